//! The backend in a cluster: instances are pods of a Deployment per queue. One for each database.

mod budget;
mod canary;
mod for_reconciler;
mod scale_in;
mod target;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment as ApiDeployment;
use kube::api::DynamicObject;
use kube::{Api, Resource};
use rowlock_crds::{EventReason, TaskQueue};
use rowlock_queue::Db;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::backend::DesiredPods;
use crate::kubernetes::api::events::{NewEvent, deployment_of};
use crate::kubernetes::api::kept::{Deployment, Metadata};
use crate::kubernetes::api::objects::NamespaceWatch;
use crate::kubernetes::api::writer::{WriteError, bounded};
use crate::kubernetes::context::Context;
use crate::kubernetes::deployment::apply_result::Outcome;
use crate::kubernetes::deployment::build::{self, Owner};
use crate::kubernetes::deployment::canary::CanaryView;
use crate::kubernetes::deployment::foreign_scaling::{ForeignScaling, Observation};
use crate::kubernetes::deployment::last_applied::{
    AppliedObject, LastApplied, WATCH_DELAY, foreign, has_template, is_operator_change, rollout_slot_of,
};
use crate::kubernetes::deployment::next_write::{Live, Wanted, Write, next_write};
use crate::kubernetes::deployment::worker_image::WorkerImage;
use crate::kubernetes::rollouts::{NamespacedName, rollout_slot};

use scale_in::Numbers;

/// How long before a rejected template is tried again: a policy may have changed.
const REJECTED_RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// How often a write is tried in one pass, if another writer changes the object in between.
const MAX_WRITE_ATTEMPTS: usize = 5;

/// How many queues are written at the same time: a webhook that hangs for one queue delays few others, and a
/// new leader of hundreds of queues is done soon.
const CONCURRENT_WRITES: usize = 8;

/// The pods of all queues of one database.
pub(crate) struct PodBackend {
    pub(super) context: Arc<Context>,
    pub(super) namespace: Arc<NamespaceWatch>,
    image: WorkerImage,
    db: Db,
    /// Boxed: the nodes of a map have room for more than they hold.
    queues: BTreeMap<String, Box<LastApplied>>,
}

impl PodBackend {
    pub(crate) fn new(context: Arc<Context>, namespace: Arc<NamespaceWatch>, db: Db) -> Self {
        let image = context.config.image();
        Self { context, namespace, image, db, queues: BTreeMap::new() }
    }

    /// Replaces the connection.
    pub(crate) fn set_db(&mut self, db: Db) {
        self.db = db;
    }

    /// The `TaskQueues` of the queues, by the names of the queues.
    pub(crate) fn set_owners(&mut self, task_queues: &BTreeMap<String, Arc<TaskQueue>>) {
        self.queues.retain(|queue, last| {
            task_queues.get(queue).is_some_and(|one| one.metadata.uid.as_ref() == Some(&last.owner.uid))
        });
        for (queue, one) in task_queues {
            let last = self.queues.entry(queue.clone()).or_insert_with(|| Box::new(LastApplied::of(one)));
            last.set_task_queue(one);
        }
    }

    pub(crate) fn outcome(&self, queue: &str) -> Outcome {
        self.queues.get(queue).map_or(Outcome::NotTried, |last| last.outcome.clone())
    }

    /// The foreign field managers that set the number of pods.
    pub(crate) fn foreign_scaling(&self, queue: &str) -> Option<ForeignScaling> {
        self.queues.get(queue)?.foreign_scaling.current().cloned()
    }

    /// The canary that runs or has failed.
    pub(crate) fn canary(&self, queue: &str) -> Option<CanaryView> {
        self.queues.get(queue)?.canary.clone()
    }

    pub(super) fn stored(&self, last: &LastApplied) -> Option<Arc<Deployment>> {
        self.namespace.deployment(last.deployment_name())
    }

    /// Compares the objects of a queue with what they should be, and writes what differs.
    pub(super) async fn apply_objects(
        &self,
        last: &mut LastApplied,
        desired: &DesiredPods<'_>,
        stored: Option<Arc<Deployment>>,
    ) -> Result<Outcome, WriteError> {
        let pods = last.pods(desired, stored.as_deref());
        let live = self.live(last, stored.as_deref()).await?;
        if let Some(outcome) = foreign(live.metadata.as_deref(), "Deployment", &last.owner) {
            return Ok(outcome);
        }
        let leaves_replicas = self.leaves_replicas(last, desired, &live).await;
        let decided = self.decide_rollout(last, desired, &live).await;
        let mut object = decided.build(last, desired.manifest, pods, &self.image);
        let mut outcome = Outcome::Done;
        // The old template of a canary comes back at once.
        if !decided.is_new() && !self.mark_rollout_slot(last, stored.as_deref(), &live, &mut object) {
            outcome = Outcome::waiting_for_slot(self.context.config.rollouts_at_once);
        } else if let Some(detail) = self.rejection(last, &live, &object).await? {
            outcome = Outcome::Rejected(detail);
            self.context.release_rollout_slot(&namespaced_name(&last.owner));
            // Pods that run already are scaled with the template that the server accepted last.
            if let Some(accepted) = &last.accepted_template {
                object["spec"]["template"] = serde_json::from_str(accepted).unwrap_or_default();
                // With its old annotations, so that it does not look like a change by the operator.
                build::mark_made_from(&mut object, live.metadata.as_deref(), &desired.manifest.spec.rollout);
            }
        }
        let holds_template = match outcome {
            Outcome::Done => false,
            Outcome::Rejected(_) => last.accepted_template.is_none(),
            _ => true,
        };
        let numbers = Numbers { current: live.replicas, wanted: pods, leaves_replicas };
        let writes_template = !holds_template && live.gets_template(&object);
        let pods = self.prepare_scale_in(last, stored.as_deref(), numbers, writes_template).await;
        object["spec"]["replicas"] = pods.into();
        let wanted = Wanted { object: &object, replicas: pods, leaves_replicas, holds_template };
        match next_write(last.deployment.as_ref(), &live, &wanted) {
            Write::Scale => self.scale(last, pods).await?,
            Write::Apply | Write::Restore => {
                let applied = self.write(last, &mut object, &live.foreign_managers, leaves_replicas).await?;
                if outcome == Outcome::Done {
                    last.accepted_template = Some(object["spec"]["template"].to_string().into());
                }
                last.deployment = Some(AppliedObject::new(&object, applied));
                if !leaves_replicas {
                    last.note_written(pods);
                }
            }
            Write::Nothing if leaves_replicas && !holds_template => {
                last.note_live(live.metadata, live.replicas);
            }
            Write::Nothing => (),
        }
        if !holds_template {
            self.apply_budget(last).await?;
        }
        if outcome == Outcome::Done {
            self.note_rollout(last, decided).await;
        }
        Ok(outcome)
    }

    /// The Deployment in the cluster, by the last write or the watch.
    async fn live(&self, last: &LastApplied, stored: Option<&Deployment>) -> Result<Live, WriteError> {
        let (metadata, replicas) = match last.newest(stored) {
            Some((metadata, replicas)) => (Some(Arc::clone(metadata)), Some(replicas)),
            // The watch shows only objects with our labels, so another one of this name may exist.
            None => (
                self.read::<ApiDeployment>(&last.owner.namespace, &last.owner.name).await?.map(Arc::new),
                None,
            ),
        };
        Ok(Live::of(metadata, replicas))
    }

    /// Marks the object with its rollout slot, if it needs one. `false`: it has to wait for a slot.
    fn mark_rollout_slot(
        &self,
        last: &LastApplied,
        stored: Option<&Deployment>,
        live: &Live,
        object: &mut Value,
    ) -> bool {
        let Some(metadata) = live.metadata.as_ref().filter(|_| live.foreign_managers.is_empty()) else {
            return true;
        };
        let needs_slot = live.replicas > 0 && is_operator_change(metadata, object);
        if needs_slot && !self.context.take_rollout_slot(&namespaced_name(&last.owner)) {
            return false;
        }
        let slot = if needs_slot { Some(rollout_slot(stored)) } else { rollout_slot_of(metadata, object) };
        if let Some(slot) = slot {
            build::mark_rollout_slot(object, slot);
        }
        true
    }

    /// Writes the Deployment. If others set the number of pods, their number is read and written back, and a
    /// conflict is tried again.
    async fn write(
        &self,
        last: &LastApplied,
        object: &mut Value,
        foreign_managers: &[String],
        leaves_replicas: bool,
    ) -> Result<DynamicObject, WriteError> {
        let mut attempt = 1;
        loop {
            match self.write_once(last, object, foreign_managers, leaves_replicas).await {
                Err(error) if leaves_replicas && error.is_conflict() && attempt < MAX_WRITE_ATTEMPTS => {
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn write_once(
        &self,
        last: &LastApplied,
        object: &mut Value,
        foreign_managers: &[String],
        leaves_replicas: bool,
    ) -> Result<DynamicObject, WriteError> {
        let needs_whole = leaves_replicas || !foreign_managers.is_empty();
        let whole = if needs_whole { self.read_whole(&last.owner).await? } else { None };
        if let Some(whole) = whole.as_ref().filter(|_| leaves_replicas) {
            // With the resourceVersion, a change by others in between is a conflict instead of being lost.
            object["spec"]["replicas"] = whole.data["spec"]["replicas"].clone();
            object["metadata"]["resourceVersion"] = whole.metadata.resource_version.clone().into();
        }
        match whole.filter(|_| !foreign_managers.is_empty()) {
            Some(whole) => self.restore(last, whole, object, foreign_managers).await,
            None => self.context.writer.apply::<ApiDeployment>(object).await,
        }
    }

    async fn read_whole(&self, owner: &Owner) -> Result<Option<DynamicObject>, WriteError> {
        let resource = kube::api::ApiResource::erase::<ApiDeployment>(&());
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.context.client.clone(), &owner.namespace, &resource);
        bounded(api.get_opt(&owner.name)).await
    }

    /// Whether the number of pods is left to others: by `spec.suspendScaling`, or during a back-off. Warns
    /// about field managers that set it though the operator should.
    async fn leaves_replicas(&self, last: &mut LastApplied, desired: &DesiredPods<'_>, live: &Live) -> bool {
        if desired.keeps {
            last.foreign_scaling.reset();
            return true;
        }
        let (replicas, made_from, managers) = (live.replicas, &last.owner.generation, live.scalers.clone());
        let (wanted, mode) = (desired.pods, desired.manifest.spec.workers.scaling());
        let observation = Observation { replicas, wanted, mode, managers, made_from };
        if let Some(note) = last.foreign_scaling.observe(observation, Instant::now()) {
            self.warn(last, EventReason::ReplicasRestored, note).await;
        }
        last.foreign_scaling.is_backing_off(Instant::now())
    }

    /// Changes the number of pods, and nothing else.
    async fn scale(&self, last: &mut LastApplied, replicas: u32) -> Result<(), WriteError> {
        let Owner { namespace, name, .. } = &last.owner;
        let scaled = self.context.writer.scale(namespace, name, replicas).await?;
        last.deployment = Some(AppliedObject::new(&Value::Null, scaled));
        last.note_written(replicas);
        Ok(())
    }

    /// Why the API server rejects the template, by a dry run. It is asked once for each new template.
    async fn rejection(
        &self,
        last: &mut LastApplied,
        live: &Live,
        object: &Value,
    ) -> Result<Option<String>, WriteError> {
        let template = object["spec"]["template"].to_string();
        let is_live = || live.metadata.as_ref().is_some_and(|metadata| has_template(metadata, object));
        if last.accepted_template.is_none() && live.foreign_managers.is_empty() && is_live() {
            // The server has accepted it before: a new leader need not ask again for every queue.
            last.accepted_template = Some(template.as_str().into());
        }
        if last.accepted_template.as_deref() == Some(template.as_str()) {
            last.dry_run = None;
            return Ok(None);
        }
        // Labels count too: a policy may require one. The answer is kept even if the write fails.
        let asked = format!("{}{template}", object["metadata"]["labels"]);
        if let Some((dry_run, detail, at)) = &last.dry_run
            && *dry_run == asked
            && at.elapsed() < REJECTED_RETRY_INTERVAL
        {
            return Ok(detail.clone());
        }
        let detail = match self.context.writer.dry_run::<ApiDeployment>(object).await {
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
        let by = foreign_managers.join(", ");
        let note = format!(
            "{by} had changed the pod template of the Deployment: the operator restores it from the TaskQueue"
        );
        // Before the writes: if the last of them fails, the next pass no longer sees the foreign field
        // manager.
        self.warn(last, EventReason::TemplateRestored, note).await;
        self.context.writer.replace_template::<ApiDeployment>(live, object).await
    }

    async fn warn(&self, last: &LastApplied, reason: EventReason, note: String) {
        let related = Some(deployment_of(&last.regarding, last.deployment_name()));
        let (reason, action) = (reason.as_str(), reason.action());
        let new_event = NewEvent { regarding: &last.regarding, related, warning: true, reason, action, note };
        self.context.writer.publish_event(&new_event).await;
    }

    /// Asks the API server: the watch shows only objects with our labels.
    async fn read<K>(&self, namespace: &str, name: &str) -> Result<Option<Metadata>, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        let api: Api<K> = Api::namespaced(self.context.client.clone(), namespace);
        Ok(bounded(api.get_metadata_opt(name)).await?.map(|found| found.metadata.into()))
    }
}

fn namespaced_name(owner: &Owner) -> NamespacedName {
    (owner.namespace.clone(), owner.name.clone())
}
