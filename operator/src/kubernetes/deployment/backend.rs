//! Instances as pods: the backend of a cluster, for the queues of one database.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use kube::{Api, Resource};
use rowlock_crds::{EventReason, TaskQueue};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::backend::{Backend, DesiredPods};
use crate::kubernetes::api::events::{NewEvent, deployment_of};
use crate::kubernetes::api::watch::NamespaceWatch;
use crate::kubernetes::api::writer::{WriteError, bounded};
use crate::kubernetes::context::Context;
use crate::kubernetes::deployment::build::{self, Owner};
use crate::kubernetes::deployment::contest::{Contest, Observation};
use crate::kubernetes::deployment::field_managers;
use crate::kubernetes::deployment::last_applied::{
    AppliedObject, LastApplied, WATCH_DELAY, foreign, has_template, is_operator_change, is_owned, owner,
    rollout_slot_of,
};
use crate::kubernetes::deployment::outcome::Outcome;
use crate::kubernetes::deployment::rollouts::{NamespacedName, rollout_slot};
use crate::kubernetes::deployment::worker_container::WorkerImage;
use crate::kubernetes::status::pod_health::{is_ready, not_starting};

/// How long a refusal holds before the same template is tried again: a policy may have changed.
const REJECTED_RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// How often a write is tried at once beside others who write to the same object.
const MAX_CONFLICTS: usize = 5;

/// So many queues are written at a time: a webhook that hangs for one holds up few others, and a new leader of hundreds is soon through. All else
/// that writes to an API server is bounded there.
const CONCURRENT_WRITES: usize = 8;

/// The pods of all queues of one database.
pub(crate) struct PodBackend {
    context: Arc<Context>,
    namespace: Arc<NamespaceWatch>,
    image: WorkerImage,
    queues: BTreeMap<String, LastApplied>,
}

impl PodBackend {
    pub(crate) fn new(context: Arc<Context>, namespace: Arc<NamespaceWatch>) -> Self {
        let image = context.config.image();
        Self { context, namespace, image, queues: BTreeMap::new() }
    }

    /// Whose the queues are from now on, by their names.
    pub(crate) fn set_owners(&mut self, task_queues: &BTreeMap<String, Arc<TaskQueue>>) {
        self.queues.retain(|queue, last| {
            task_queues.get(queue).is_some_and(|one| one.metadata.uid.as_ref() == Some(&last.owner.uid))
        });
        for (queue, one) in task_queues {
            let last = self.queues.entry(queue.clone()).or_insert_with(|| LastApplied::of(one));
            last.owner = owner(one);
        }
    }

    /// What came of the last try.
    pub(crate) fn outcome(&self, queue: &str) -> Outcome {
        self.queues.get(queue).map_or(Outcome::NotTried, |last| last.outcome.clone())
    }

    /// Who else sets how many pods there are.
    pub(crate) fn contest(&self, queue: &str) -> Option<Contest> {
        self.queues.get(queue)?.contests.current().cloned()
    }

    fn stored(&self, owner: &Owner) -> Option<Arc<Deployment>> {
        self.namespace.deployments.get(&owner.namespace, &owner.name)
    }

    async fn apply_queue(
        &self,
        last: &mut LastApplied,
        desired: &DesiredPods<'_>,
    ) -> Result<Outcome, WriteError> {
        let mut object = build::deployment(&last.owner, desired.manifest, desired.pods, &self.image);
        let stored = self.stored(&last.owner);
        let (seen, replicas) = match last.newest(stored.as_deref()) {
            Some((metadata, replicas)) => (Some(metadata), replicas),
            // Not ours by its labels, or not there: only the server knows.
            None => (self.read::<Deployment>(&last.owner).await?, 0),
        };
        if let Some(outcome) = foreign(seen.as_ref(), "Deployment", &last.owner) {
            return Ok(outcome);
        }
        let foreign_managers =
            seen.as_ref().and_then(|seen| seen.managed_fields.as_deref()).map(field_managers::foreign);
        let foreign_managers = foreign_managers.unwrap_or_default();
        let leaves = self.leaves_replicas(last, desired, seen.as_ref(), replicas).await;
        if let Some(live) = seen.as_ref().filter(|_| foreign_managers.is_empty()) {
            let needs_rollout_slot = replicas > 0 && is_operator_change(live, &object);
            if needs_rollout_slot && !self.take_rollout_slot(&last.owner) {
                self.scale(last, desired, replicas, leaves).await?;
                return Ok(self.waiting());
            }
            let slot = if needs_rollout_slot {
                Some(rollout_slot(stored.as_deref()))
            } else {
                rollout_slot_of(live, &object)
            };
            if let Some(slot) = slot {
                build::mark_rollout_slot(&mut object, slot);
            }
        }
        let is_there = || seen.as_ref().is_some_and(|live| has_template(live, &object));
        if last.accepted_template.is_none() && foreign_managers.is_empty() && is_there() {
            // The server took it once: nobody asks again after every change of the leader.
            last.accepted_template = Some(object["spec"]["template"].to_string());
        }
        let mut outcome = Outcome::Done;
        if let Some(detail) = self.rejection(last, &object).await? {
            outcome = Outcome::Rejected(detail);
            self.context.release_rollout_slot(&namespaced_name(&last.owner));
            // What the queue runs already is scaled on as it is.
            let Some(accepted_template) = last.accepted_template.clone() else {
                if seen.is_some() {
                    self.scale(last, desired, replicas, leaves).await?;
                }
                return Ok(outcome);
            };
            object["spec"]["template"] = serde_json::from_str(&accepted_template).unwrap_or_default();
            // Not of this generation, then: it would look as if only we had changed it since.
            build::mark_made_from(&mut object, seen.as_ref());
        }
        let done = last.deployment.as_ref().is_some_and(|applied| {
            if leaves {
                applied.matches_but_for_replicas(&object, seen.as_ref(), replicas)
            } else {
                applied.matches(&object, seen.as_ref())
            }
        });
        if !foreign_managers.is_empty() || !done {
            let applied = self.write(last, &mut object, &foreign_managers, leaves).await?;
            if !matches!(outcome, Outcome::Rejected(_)) {
                last.accepted_template = Some(object["spec"]["template"].to_string());
            }
            last.deployment = Some(AppliedObject::new(&object, applied));
            last.wrote(desired.pods, leaves);
        } else if let (true, Some(applied), Some(seen)) = (leaves, &mut last.deployment, seen) {
            (applied.metadata, applied.replicas) = (seen, replicas);
        }
        self.apply_budget(last).await?;
        Ok(outcome)
    }

    fn take_rollout_slot(&self, owner: &Owner) -> bool {
        self.context.take_rollout_slot(&namespaced_name(owner))
    }

    /// The Deployment, with as many pods as others have said, where that is theirs to say.
    async fn write(
        &self,
        last: &LastApplied,
        object: &mut Value,
        foreign_managers: &[String],
        leaves: bool,
    ) -> Result<DynamicObject, WriteError> {
        for _ in 1..MAX_CONFLICTS {
            let applied = self.write_once(last, object, foreign_managers, leaves).await;
            match applied {
                Err(WriteError::Api(kube::Error::Api(status))) if leaves && status.code == 409 => (),
                answer => return answer,
            }
        }
        self.write_once(last, object, foreign_managers, leaves).await
    }

    async fn write_once(
        &self,
        last: &LastApplied,
        object: &mut Value,
        foreign_managers: &[String],
        leaves: bool,
    ) -> Result<DynamicObject, WriteError> {
        let live = if leaves || !foreign_managers.is_empty() { self.live(&last.owner).await? } else { None };
        if let Some(live) = live.as_ref().filter(|_| leaves) {
            // Read just now, and written only if that is still so: nobody's change in between is lost.
            object["spec"]["replicas"] = live.data["spec"]["replicas"].clone();
            object["metadata"]["resourceVersion"] = live.metadata.resource_version.clone().into();
        }
        match live.filter(|_| !foreign_managers.is_empty()) {
            Some(live) => self.restore(last, live, object, foreign_managers).await,
            None => self.context.writer.apply::<Deployment>(object).await,
        }
    }

    async fn live(&self, owner: &Owner) -> Result<Option<DynamicObject>, WriteError> {
        let resource = kube::api::ApiResource::erase::<Deployment>(&());
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.context.client.clone(), &owner.namespace, &resource);
        bounded(api.get_opt(&owner.name)).await
    }

    /// Whether the number of pods is left as others have set it: because that is theirs to say, or for now.
    /// Tells people of those who set it though it is not.
    async fn leaves_replicas(
        &self,
        last: &mut LastApplied,
        desired: &DesiredPods<'_>,
        seen: Option<&ObjectMeta>,
        replicas: u32,
    ) -> bool {
        if desired.manifest.spec.suspend_scaling {
            last.contests.leave();
            return true;
        }
        let entries = seen.and_then(|seen| seen.managed_fields.as_deref());
        let managers = entries.map(field_managers::scalers).unwrap_or_default();
        let found =
            Observation { replicas, wanted: desired.pods, managers, made_from: &last.owner.generation };
        if let Some(note) = last.contests.observe(found, Instant::now()) {
            self.warn(last, EventReason::ReplicasRestored, note).await;
        }
        last.contests.waiting(Instant::now())
    }

    /// The pods stay what they are, but not how many, unless that is left to others.
    async fn scale(
        &self,
        last: &mut LastApplied,
        desired: &DesiredPods<'_>,
        replicas: u32,
        leaves: bool,
    ) -> Result<(), WriteError> {
        if desired.pods != replicas && !leaves {
            let Owner { namespace, name, .. } = &last.owner;
            let scaled = self.context.writer.scale(namespace, name, desired.pods).await?;
            last.deployment = Some(AppliedObject::new(&Value::Null, scaled));
            last.wrote(desired.pods, leaves);
        }
        Ok(())
    }

    fn waiting(&self) -> Outcome {
        let at_once = self.context.config.rollouts_at_once;
        Outcome::Waiting(format!(
            "waiting for a rollout slot: after a new release, or with another worker image or resources, the operator updates {at_once} queues \
             at a time"
        ))
    }

    /// What the server says against the template, which is asked only of a new one.
    async fn rejection(&self, last: &mut LastApplied, object: &Value) -> Result<Option<String>, WriteError> {
        let template = object["spec"]["template"].to_string();
        if last.accepted_template.as_ref() == Some(&template) {
            last.dry_run = None;
            return Ok(None);
        }
        // What a policy asks for may be a label.
        let asked = format!("{}{template}", object["metadata"]["labels"]);
        if let Some((dry_run, Some(detail), at)) = &last.dry_run
            && *dry_run == asked
            && at.elapsed() < REJECTED_RETRY_INTERVAL
        {
            return Ok(Some(detail.clone()));
        }
        let detail = match self.context.writer.dry_run::<Deployment>(object).await {
            Ok(()) => None,
            Err(error) => Some(error.rejection().ok_or(error)?),
        };
        last.dry_run = Some((asked, detail.clone(), Instant::now()));
        Ok(detail)
    }

    async fn restore(
        &self,
        last: &LastApplied,
        live: DynamicObject,
        object: &Value,
        foreign_managers: &[String],
    ) -> Result<DynamicObject, WriteError> {
        let who = foreign_managers.join(", ");
        let note = format!(
            "{who} had changed the pod template of the Deployment: it is put back to what the TaskQueue says"
        );
        // First: of the steps that follow the last may be refused for a moment, and by then nobody is seen to have been there.
        self.warn(last, EventReason::TemplateRestored, note).await;
        self.context.writer.replace_template::<Deployment>(live, object).await
    }

    /// A warning about the Deployment.
    async fn warn(&self, last: &LastApplied, reason: EventReason, note: String) {
        let related = Some(deployment_of(&last.regarding));
        let (reason, action) = (reason.as_str(), reason.action());
        let new_event = NewEvent { regarding: &last.regarding, related, warning: true, reason, action, note };
        self.context.writer.publish_event(&new_event).await;
    }

    async fn apply_budget(&self, last: &mut LastApplied) -> Result<(), WriteError> {
        let Owner { namespace, name, .. } = &last.owner;
        let mut stored = self.namespace.budgets.get(namespace, name).map(|one| one.metadata.clone());
        if stored.is_none() && last.budget.is_none() {
            stored = self.read::<PodDisruptionBudget>(&last.owner).await?;
        }
        if foreign(stored.as_ref(), "PodDisruptionBudget", &last.owner).is_some() {
            return Ok(());
        }
        let object = build::budget(&last.owner, &self.image);
        let done = last.budget.as_ref().is_some_and(|applied| {
            let unseen = applied.at.elapsed() < WATCH_DELAY && applied.hash == build::hash_of(&object);
            unseen || applied.matches(&object, stored.as_ref())
        });
        if !done {
            let applied = self.context.writer.apply::<PodDisruptionBudget>(&object).await?;
            last.budget = Some(AppliedObject::new(&object, applied));
        }
        Ok(())
    }

    /// Asks the server itself: the watch sees only what has our labels.
    async fn read<K>(&self, owner: &Owner) -> Result<Option<ObjectMeta>, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        let api: Api<K> = Api::namespaced(self.context.client.clone(), &owner.namespace);
        Ok(bounded(api.get_metadata_opt(&owner.name)).await?.map(|found| found.metadata))
    }
}

fn namespaced_name(owner: &Owner) -> NamespacedName {
    (owner.namespace.clone(), owner.name.clone())
}

impl Backend for PodBackend {
    fn instances(&self, queue: &str) -> u32 {
        let Some(last) = self.queues.get(queue) else { return 0 };
        let seen = last.newest(self.stored(&last.owner).as_deref());
        seen.filter(|(metadata, _)| is_owned(metadata, &last.owner)).map_or(0, |(_, replicas)| replicas)
    }

    fn ready(&self, queue: &str) -> u32 {
        let Some(last) = self.queues.get(queue) else { return 0 };
        let pods = self.namespace.pods_of(&last.owner.name);
        u32::try_from(pods.iter().filter(|pod| is_ready(pod)).count()).unwrap_or(u32::MAX)
    }

    fn age(&self, queue: &str) -> Duration {
        let Some(last) = self.queues.get(queue) else { return Duration::ZERO };
        let pods = self.namespace.pods_of(&last.owner.name);
        let oldest =
            pods.iter().filter_map(|pod| pod.metadata.creation_timestamp.as_ref()).map(|made| made.0).min();
        oldest.map_or(Duration::ZERO, |made| {
            Duration::try_from(Timestamp::now().duration_since(made)).unwrap_or_default()
        })
    }

    fn leaving(&self) -> u32 {
        let beyond = |(queue, last): (&String, &LastApplied)| {
            let (staying, terminating) = self.namespace.count_pods(&last.owner.name);
            terminating + staying.saturating_sub(self.instances(queue))
        };
        self.queues.iter().map(beyond).sum()
    }

    fn not_starting(&mut self, queue: &str) -> bool {
        let Some(last) = self.queues.get_mut(queue) else { return false };
        let pods = self.namespace.pods_of(&last.owner.name);
        last.was_ready = !pods.is_empty() && (last.was_ready || pods.iter().any(|pod| is_ready(pod)));
        last.not_starting = !last.was_ready && not_starting(&pods, last.not_starting, Timestamp::now());
        last.not_starting
    }

    fn metrics_addresses(&self, _queue: &str) -> Vec<(String, String)> {
        // Prometheus finds pods by itself.
        Vec::new()
    }

    async fn apply(&mut self, desired_pods: &[DesiredPods<'_>]) {
        let mut queues = std::mem::take(&mut self.queues);
        let by_name: BTreeMap<&str, &DesiredPods<'_>> =
            desired_pods.iter().map(|desired| (desired.manifest.queue_name(), desired)).collect();
        let (this, by_name) = (&*self, &by_name);
        let each = queues.iter_mut().filter_map(|(name, last)| Some((last, *by_name.get(name.as_str())?)));
        let apply = async |(last, desired): (&mut LastApplied, &DesiredPods<'_>)| {
            last.outcome = this.apply_queue(last, desired).await.unwrap_or_else(|error| Outcome::of(&error));
        };
        futures_util::stream::iter(each).for_each_concurrent(CONCURRENT_WRITES, apply).await;
        self.queues = queues;
    }

    /// The pods outlive the operator.
    async fn drain(&mut self) {}

    async fn end_now(&mut self) {}
}
