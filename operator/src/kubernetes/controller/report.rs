//! What was seen of a queue, written into its status and told in events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};
use rowlock_crds::{
    ConditionReason, ConditionType, EventReason, FieldError, ScalingMode, TaskQueue, TaskQueueStatus,
    annotations, unknown_names,
};

use super::Controller;
use crate::kubernetes::api::events::{NewEvent, deployment_of};
use crate::kubernetes::api::writer::WriteError;
use crate::kubernetes::context::is_of;
use crate::kubernetes::convert::{manifest, owner};
use crate::kubernetes::database::session::Problem;
use crate::kubernetes::deployment::outcome::Outcome;
use crate::kubernetes::deployment::resources::of_queue;
use crate::kubernetes::status::conditions::{StatusInputs, decide_conditions};
use crate::kubernetes::status::pod_events::newest_warning;
use crate::kubernetes::status::pod_health::{HealthInputs, PodHealth, PodRef, health};
use crate::kubernetes::status::pre_stop_hooks;
use crate::kubernetes::status::scaling_events::ScalingEvents;
use crate::kubernetes::status::{change, database as database_status, former, status};
use crate::view::{QueueView, View};

/// For so long pods may start before a queue that was ready is so no more: an image that has to be fetched
/// takes about as long.
const WAKE_UP_GRACE: Duration = Duration::from_mins(1);

/// How often the events of a pod in trouble are read: the API server looks through all of the namespace for
/// them.
const POD_EVENTS_INTERVAL: Duration = Duration::from_mins(1);

/// How often it is tried to give a scale its first number, while that fails or has not been seen yet.
const START_AGAIN: Duration = Duration::from_secs(30);

/// The last status of a queue that was written.
pub(super) struct LastStatus {
    uid: String,
    pub(super) status: TaskQueueStatus,
    at: Option<Instant>,
    /// Since when none of the pods that are wanted is ready, though the database answers.
    unready_since: Option<Instant>,
    scaling_events: ScalingEvents,
    /// What the events of the pod in trouble said, and when.
    pod_event: Option<(PodRef, Instant, Option<String>)>,
    /// Which of its annotations and labels people were told of that mean nothing.
    unknown: Vec<FieldError>,
    /// When its scale was last given a number.
    scale_tried_at: Option<Instant>,
}

impl Controller {
    /// `queue` is `None` where another `TaskQueue` has the queue already.
    pub(super) async fn write_status(
        &mut self,
        one: &Arc<TaskQueue>,
        queue: Option<&String>,
        view: Option<&View>,
    ) {
        let (name, now) = (one.name_any(), Timestamp::now());
        let view = view.and_then(|view| view.queues.iter().find(|view| Some(&view.name) == queue));
        let mut last = self.last(one);
        let health = self.health(one, &mut last, view, now).await;
        let deployment = self.namespace.deployments.get(&self.source.namespace, &name);
        let (outcome, contest) = match (&mut self.reconciler, queue) {
            (Some(reconciler), Some(queue)) => {
                let pods = reconciler.backend_mut();
                (pods.outcome(queue), pods.contest(queue))
            }
            _ => (Outcome::NotTried, None),
        };
        let duplicate = queue.is_none().then(|| duplicate(one));
        let identity = self.identity.as_deref().filter(|_| queue.is_some());
        let database = database_status(last.status.database.as_ref(), identity, now);
        let unready_for = last.unready_for(self.problem.is_some(), view, &health);
        let worker = of_queue(&self.context.config.worker_resources, &one.spec.worker.resources);
        let inputs = StatusInputs {
            place: (&self.source.namespace, &name),
            former: former(database.as_ref(), now),
            spec: &one.spec,
            problem: duplicate.as_ref().or(self.problem.as_ref()),
            view,
            outcome: &outcome,
            contest: contest.as_ref(),
            deployment: deployment.as_deref(),
            health: &health,
            is_waking_up: last.is_ready()
                && unready_for.is_some_and(|unready_for| unready_for < WAKE_UP_GRACE),
            unready_for,
            worker: &worker,
        };
        let conditions = decide_conditions(&inputs);
        let mut next =
            status(&inputs, &conditions, one.metadata.generation, &last.status, database.clone(), now);
        let ours = owner(one, &self.context.cluster);
        let asked = one.annotations().get(annotations::ADOPT);
        next.adopted = match inputs.view {
            Some(view) if view.owner.as_ref() == Some(&ours) => asked.cloned(),
            _ => last.status.adopted.clone().filter(|adopted| Some(adopted) == asked),
        };
        self.warn_unknown_names(one, &mut last).await;
        self.publish_scaling(one, &mut last, view, contest.is_some()).await;
        self.start_scale(one, &mut last, view).await;
        let since = last.at.map(|at| at.elapsed());
        if change(&last.status, &next).is_due(since, self.context.numbers_interval()) {
            match self.context.write_status(one, &next).await {
                Ok(()) => {
                    let before = std::mem::replace(&mut last.status, next.clone());
                    last.at = Some(Instant::now());
                    self.publish_events(one, &before, &next, &health).await;
                }
                Err(error) => note(&error),
            }
        }
        self.last_statuses.insert(name, last);
    }

    /// What was written last, of this `TaskQueue` and no other of its name.
    fn last(&mut self, one: &TaskQueue) -> LastStatus {
        let uid = one.uid().unwrap_or_default();
        let last = self.last_statuses.remove(&one.name_any()).filter(|last| last.uid == uid);
        last.unwrap_or_else(|| LastStatus::of(one))
    }

    async fn health(
        &self,
        one: &TaskQueue,
        last: &mut LastStatus,
        view: Option<&QueueView>,
        now: Timestamp,
    ) -> PodHealth {
        let pods = self.namespace.pods_of(&one.name_any());
        let instances = view.and_then(|view| view.stats.as_ref()).map(|stats| stats.instances);
        let port = one.spec.handler.http.port;
        let mut health = health(&pods, HealthInputs { port, instances }, now);
        let Some(pod) = health.pod.clone().filter(|_| health.read_events) else {
            last.pod_event = None;
            return health;
        };
        let known =
            last.pod_event.take().filter(|(of, at, _)| *of == pod && at.elapsed() < POD_EVENTS_INTERVAL);
        let known = if let Some(known) = known {
            known
        } else {
            let detail = newest_warning(&self.context.client, &self.source.namespace, &pod).await;
            (pod, Instant::now(), detail)
        };
        if let Some(detail) = &known.2 {
            health.add(detail);
        }
        last.pod_event = Some(known);
        health
    }

    async fn publish_events(
        &self,
        one: &TaskQueue,
        before: &TaskQueueStatus,
        after: &TaskQueueStatus,
        health: &PodHealth,
    ) {
        let regarding = one.object_ref(&());
        let pod = health.pod.as_ref().map(|pod| ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: regarding.namespace.clone(),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        });
        self.context.publish_events(&regarding, before, after, pod).await;
        if before.observed_generation == after.observed_generation {
            return;
        }
        if let Some(note) = pre_stop_hooks::harmful_hooks(one.spec.template.as_ref()) {
            let (reason, action) = (EventReason::PreStop.as_str(), EventReason::PreStop.action());
            let new_event =
                NewEvent { regarding: &regarding, related: None, warning: true, reason, action, note };
            self.context.writer.publish_event(&new_event).await;
        }
    }

    /// Which annotations and labels mean nothing, once.
    async fn warn_unknown_names(&self, one: &TaskQueue, last: &mut LastStatus) {
        let unknown = unknown_names(one.annotations().keys(), one.labels().keys());
        let note = unknown.iter().map(ToString::to_string).reduce(|all, more| format!("{all}. {more}"));
        if let Some(note) = note.filter(|_| last.unknown != unknown) {
            let regarding = one.object_ref(&());
            let (reason, action) = (EventReason::UnknownName.as_str(), EventReason::UnknownName.action());
            let new_event =
                NewEvent { regarding: &regarding, related: None, warning: true, reason, action, note };
            self.context.writer.publish_event(&new_event).await;
        }
        last.unknown = unknown;
    }

    /// That there are more or fewer than before, and why.
    async fn publish_scaling(
        &self,
        one: &TaskQueue,
        last: &mut LastStatus,
        view: Option<&QueueView>,
        contested: bool,
    ) {
        let Some(view) = view else { return };
        let (every, now) = (self.context.numbers_interval(), Instant::now());
        let Some((reason, note)) =
            last.scaling_events.note(view.instances, &view.decision, contested, every, now)
        else {
            return;
        };
        let regarding = one.object_ref(&());
        let (related, reason, action) = (Some(deployment_of(&regarding)), reason.as_str(), reason.action());
        let new_event = NewEvent { regarding: &regarding, related, warning: false, reason, action, note };
        self.context.writer.publish_event(&new_event).await;
    }

    /// Gives the scale of a `TaskQueue` its first number, the pods that there are: without one, nobody can
    /// read the scale, and so no autoscaler could begin. One at least, since autoscalers leave alone what is
    /// at zero.
    async fn start_scale(&self, one: &TaskQueue, last: &mut LastStatus, view: Option<&QueueView>) {
        let workers = &one.spec.workers;
        let missing = workers.scaling() == ScalingMode::External && workers.replicas.is_none();
        let early = last.scale_tried_at.is_some_and(|at| at.elapsed() < START_AGAIN);
        let Some(view) = view.filter(|_| missing && !early) else { return };
        last.scale_tried_at = Some(Instant::now());
        match self.context.start_scale(one, view.instances.max(1)).await {
            // Somebody has written to it meanwhile, perhaps this very number.
            Err(WriteError::Api(kube::Error::Api(status))) if status.code == 409 => {
                last.scale_tried_at = None;
            }
            Err(error) => {
                let name = one.name_any();
                tracing::warn!(%error, task_queue = name, "workers.replicas was not set; trying again");
            }
            Ok(()) => (),
        }
    }
}

fn duplicate(one: &TaskQueue) -> Problem {
    let queue = manifest(one).queue_name().to_owned();
    let message = format!(
        "an older TaskQueue of this namespace has the queue `{queue}`: give this one another queueName"
    );
    Problem::new(ConditionReason::OwnedByAnother, message)
}

impl LastStatus {
    fn of(one: &TaskQueue) -> Self {
        let status = one.status.clone().unwrap_or_default();
        let uid = one.uid().unwrap_or_default();
        Self {
            uid,
            status,
            at: None,
            unready_since: None,
            scaling_events: ScalingEvents::default(),
            pod_event: None,
            unknown: Vec::new(),
            scale_tried_at: None,
        }
    }

    /// How long there has been no pod that is ready, of those that there shall be. While the database is
    /// away no worker is.
    fn unready_for(
        &mut self,
        is_away: bool,
        view: Option<&QueueView>,
        health: &PodHealth,
    ) -> Option<Duration> {
        let unready_for =
            !is_away && health.ready == 0 && view.is_some_and(|view| 0 < view.decision.pods_desired);
        self.unready_since = unready_for.then(|| self.unready_since.unwrap_or_else(Instant::now));
        self.unready_since.map(|since| since.elapsed())
    }

    fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|one| is_of(one, ConditionType::Ready, "True"))
    }
}

fn note(error: &WriteError) {
    tracing::debug!(%error, "a status was not written; trying again");
}
