//! Instances as pods: the applier of a cluster, for the queues of one database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use kube::{Api, Client, Resource};
use rowlock_crds::TaskQueue;
use serde_json::Value;

use super::apply::{Hand, WriteError, bounded};
use super::build::{self, Owner};
use super::managed;
use super::outcome::Outcome;
use super::watch::Namespace;
use super::worker::WorkerImage;
use crate::applier::{Applier, Intent};

/// How long a refusal holds before the same template is tried again: a policy may have changed.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// For so long after a write the watch may not have shown its effect.
const WATCH_DELAY: Duration = Duration::from_secs(5);

/// The pods of all queues of one database.
pub(crate) struct Pods {
    hand: Hand,
    client: Client,
    namespace: Arc<Namespace>,
    image: WorkerImage,
    queues: BTreeMap<String, Known>,
}

/// What is remembered of one queue. All of it may be lost: then all is written once more.
struct Known {
    owner: Owner,
    about: ObjectReference,
    /// The template that was tried last, what the server said, and when.
    tried: Option<(Value, Option<String>, Instant)>,
    /// The last template that the server took.
    good: Option<Value>,
    deployment: Option<Written>,
    budget: Option<Written>,
    outcome: Outcome,
}

/// The last write of an object.
struct Written {
    hash: String,
    metadata: ObjectMeta,
    replicas: u32,
    at: Instant,
}

impl Pods {
    pub(crate) fn new(hand: Hand, client: Client, namespace: Arc<Namespace>, image: WorkerImage) -> Self {
        Self { hand, client, namespace, image, queues: BTreeMap::new() }
    }

    /// Whose the queues are from now on, by their names.
    pub(crate) fn set_owners(&mut self, task_queues: &BTreeMap<String, Arc<TaskQueue>>) {
        self.queues.retain(|queue, known| {
            task_queues.get(queue).is_some_and(|one| one.metadata.uid.as_ref() == Some(&known.owner.uid))
        });
        for (queue, one) in task_queues {
            self.queues.entry(queue.clone()).or_insert_with(|| Known::of(one));
        }
    }

    /// What came of the last try.
    pub(crate) fn outcome(&self, queue: &str) -> Outcome {
        self.queues.get(queue).map_or(Outcome::NotTried, |known| known.outcome.clone())
    }

    /// The newer of what was written and what the watch shows.
    fn seen(&self, known: &Known) -> Option<(ObjectMeta, u32)> {
        let Owner { namespace, name, .. } = &known.owner;
        let stored = self.namespace.deployments.get(namespace, name);
        let stored = stored.map(|one| (one.metadata.clone(), replicas(&one)));
        match (stored, &known.deployment) {
            (Some((metadata, _)), Some(written))
                if metadata.uid == written.metadata.uid
                    && metadata.generation < written.metadata.generation =>
            {
                Some((written.metadata.clone(), written.replicas))
            }
            (None, Some(written)) if written.at.elapsed() < WATCH_DELAY => {
                Some((written.metadata.clone(), written.replicas))
            }
            (stored, _) => stored,
        }
    }

    async fn apply_queue(&self, known: &mut Known, intent: &Intent<'_>) -> Result<Outcome, WriteError> {
        let mut object = build::deployment(&known.owner, intent.manifest, intent.pods, &self.image);
        let seen = match self.seen(known) {
            // Not ours by its labels, or not there: only the server knows.
            None => self.look(&known.owner).await?,
            seen => seen.map(|(metadata, _)| metadata),
        };
        if let Some(outcome) = foreign(seen.as_ref(), "Deployment", &known.owner) {
            return Ok(outcome);
        }
        let mut outcome = Outcome::Done;
        let as_it_was = |written: &Option<Written>, object: &Value| {
            written.as_ref().is_some_and(|written| {
                written.hash == build::hash_of(object)
                    && seen.as_ref().is_some_and(|seen| {
                        (&seen.uid, seen.generation) == (&written.metadata.uid, written.metadata.generation)
                    })
            })
        };
        let strangers = seen.as_ref().and_then(|seen| seen.managed_fields.as_deref()).map(managed::strangers);
        let strangers = strangers.unwrap_or_default();
        if let Some(said) = self.refused(known, &object).await? {
            outcome = Outcome::Refused(said);
            let Some(good) = known.good.clone() else { return Ok(outcome) };
            // What the queue runs already is scaled on as it is.
            object["spec"]["template"] = good;
            build::seal(&mut object);
        }
        if strangers.is_empty() && as_it_was(&known.deployment, &object) {
            self.apply_budget(known).await?;
            return Ok(outcome);
        }
        let applied = if strangers.is_empty() {
            self.hand.apply::<Deployment>(&object).await?
        } else {
            self.restore(known, &object, &strangers).await?
        };
        if !matches!(outcome, Outcome::Refused(_)) {
            known.good = Some(object["spec"]["template"].clone());
        }
        known.deployment = Some(Written::new(&object, applied));
        self.apply_budget(known).await?;
        Ok(outcome)
    }

    /// What the server says against the template, which is asked only of a new one.
    async fn refused(&self, known: &mut Known, object: &Value) -> Result<Option<String>, WriteError> {
        let template = &object["spec"]["template"];
        if known.good.as_ref() == Some(template) {
            known.tried = None;
            return Ok(None);
        }
        if let Some((tried, Some(said), at)) = &known.tried
            && tried == template
            && at.elapsed() < TRY_AGAIN
        {
            return Ok(Some(said.clone()));
        }
        let said = match self.hand.try_out::<Deployment>(object).await {
            Ok(()) => None,
            Err(error) => Some(error.refusal().ok_or(error)?),
        };
        known.tried = Some((template.clone(), said.clone(), Instant::now()));
        Ok(said)
    }

    async fn restore(
        &self,
        known: &Known,
        object: &Value,
        strangers: &[String],
    ) -> Result<DynamicObject, WriteError> {
        let Owner { namespace, name, .. } = &known.owner;
        let resource = kube::api::ApiResource::erase::<Deployment>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let live = bounded(api.get(name)).await?;
        let restored = self.hand.replace_template::<Deployment>(live, object).await?;
        let who = strangers.join(", ");
        let note = format!(
            "{who} had changed the pod template of the Deployment: it is again what the TaskQueue says"
        );
        self.hand.event(&known.about, true, "TemplateRestored", &note).await;
        Ok(restored)
    }

    async fn apply_budget(&self, known: &mut Known) -> Result<(), WriteError> {
        let Owner { namespace, name, .. } = &known.owner;
        let stored = self.namespace.budgets.get(namespace, name).map(|one| one.metadata.clone());
        if foreign(stored.as_ref(), "PodDisruptionBudget", &known.owner).is_some() {
            return Ok(());
        }
        let object = build::budget(&known.owner);
        let done = known.budget.as_ref().is_some_and(|written| {
            let unseen = written.at.elapsed() < WATCH_DELAY;
            let same = stored.map_or(unseen, |stored| {
                unseen
                    || (&stored.uid, stored.generation)
                        == (&written.metadata.uid, written.metadata.generation)
            });
            same && written.hash == build::hash_of(&object)
        });
        if !done {
            let applied = self.hand.apply::<PodDisruptionBudget>(&object).await?;
            known.budget = Some(Written::new(&object, applied));
        }
        Ok(())
    }

    async fn look(&self, owner: &Owner) -> Result<Option<ObjectMeta>, WriteError> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &owner.namespace);
        Ok(bounded(api.get_metadata_opt(&owner.name)).await?.map(|found| found.metadata))
    }
}

impl Applier for Pods {
    fn instances(&self, queue: &str) -> u32 {
        let known = self.queues.get(queue);
        let seen =
            known.and_then(|known| self.seen(known).filter(|(metadata, _)| is_owned(metadata, &known.owner)));
        seen.map_or(0, |(_, replicas)| replicas)
    }

    fn metrics_addresses(&self, _queue: &str) -> Vec<(String, String)> {
        // Prometheus finds pods by itself.
        Vec::new()
    }

    async fn apply(&mut self, intents: &[Intent<'_>]) {
        let mut queues = std::mem::take(&mut self.queues);
        for intent in intents {
            let Some(known) = queues.get_mut(intent.manifest.queue_name()) else { continue };
            known.outcome = match self.apply_queue(known, intent).await {
                Ok(outcome) => outcome,
                Err(error) => Outcome::of(&error),
            };
        }
        self.queues = queues;
    }

    /// The pods outlive the operator.
    async fn drain(&mut self) {}

    async fn end_now(&mut self) {}
}

impl Known {
    fn of(task_queue: &TaskQueue) -> Self {
        Self {
            owner: owner(task_queue),
            about: task_queue.object_ref(&()),
            tried: None,
            good: None,
            deployment: None,
            budget: None,
            outcome: Outcome::NotTried,
        }
    }
}

impl Written {
    fn new(object: &Value, applied: DynamicObject) -> Self {
        let replicas = applied.data["spec"]["replicas"].as_u64().and_then(|n| u32::try_from(n).ok());
        Self {
            hash: build::hash_of(object).to_owned(),
            replicas: replicas.unwrap_or_default(),
            metadata: applied.metadata,
            at: Instant::now(),
        }
    }
}

pub(crate) fn owner(task_queue: &TaskQueue) -> Owner {
    let metadata = task_queue.metadata.clone();
    Owner {
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
    }
}

fn replicas(deployment: &Deployment) -> u32 {
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    replicas.and_then(|replicas| u32::try_from(replicas).ok()).unwrap_or_default()
}

fn is_owned(metadata: &ObjectMeta, owner: &Owner) -> bool {
    metadata.owner_references.iter().flatten().any(|reference| reference.uid == owner.uid)
}

/// An object of our name that is not ours.
fn foreign(seen: Option<&ObjectMeta>, kind: &str, owner: &Owner) -> Option<Outcome> {
    let seen = seen.filter(|seen| !is_owned(seen, owner))?;
    let name = &owner.name;
    let of = seen.owner_references.iter().flatten().next();
    let whose = of.map_or_else(
        || "is nobody's that we know".to_owned(),
        |of| format!("belongs to the {} `{}` ({})", of.kind, of.name, of.uid),
    );
    let message = format!(
        "the {kind} `{name}` {whose}: it is left alone; rename or delete it, or rename the TaskQueue"
    );
    Some(Outcome::Foreign(message))
}
