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

use super::Tender;
use crate::kubernetes::apply::WriteError;
use crate::kubernetes::charges::{manifest, owner};
use crate::kubernetes::database::Trouble;
use crate::kubernetes::events::{News, deployment_of};
use crate::kubernetes::health::{Health, PodRef, Surroundings, health};
use crate::kubernetes::hooks;
use crate::kubernetes::judgement::{Seen, judge};
use crate::kubernetes::outcome::Outcome;
use crate::kubernetes::resources::of_queue;
use crate::kubernetes::said::newest_warning;
use crate::kubernetes::scaled::Scaled;
use crate::kubernetes::shared::is_of;
use crate::kubernetes::status::{change, database as database_of, former, status};
use crate::view::{QueueView, View};

/// For so long pods may start before a queue that was ready is so no more: an image that has to be fetched
/// takes about as long.
const WAKING: Duration = Duration::from_mins(1);

/// How often the events of a pod in trouble are read: the API server looks through all of the namespace for
/// them.
const EVENTS_EVERY: Duration = Duration::from_mins(1);

/// How often it is tried to give a scale its first number, while that fails or has not been seen yet.
const START_AGAIN: Duration = Duration::from_secs(30);

/// The last status of a queue that was written.
pub(super) struct Last {
    uid: String,
    pub(super) status: TaskQueueStatus,
    at: Option<Instant>,
    /// Since when none of the pods that are wanted is ready, though the database answers.
    lacking: Option<Instant>,
    scaled: Scaled,
    /// What the events of the pod in trouble said, and when.
    said: Option<(PodRef, Instant, Option<String>)>,
    /// Which of its annotations and labels people were told of that mean nothing.
    unknown: Vec<FieldError>,
    /// When its scale was last given a number.
    scale_tried_at: Option<Instant>,
}

impl Tender {
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
        let (outcome, contest) = match (&mut self.operator, queue) {
            (Some(operator), Some(queue)) => {
                let pods = operator.applier_mut();
                (pods.outcome(queue), pods.contest(queue))
            }
            _ => (Outcome::NotTried, None),
        };
        let double = queue.is_none().then(|| double(one));
        let identity = self.identity.as_deref().filter(|_| queue.is_some());
        let database = database_of(last.status.database.as_ref(), identity, now);
        let lacks = last.lacks(self.trouble.is_some(), view, &health);
        let worker = of_queue(&self.shared.config.worker_resources, &one.spec.worker.resources);
        let seen = Seen {
            place: (&self.source.namespace, &name),
            former: former(database.as_ref(), now),
            spec: &one.spec,
            trouble: double.as_ref().or(self.trouble.as_ref()),
            view,
            outcome: &outcome,
            contest: contest.as_ref(),
            deployment: deployment.as_deref(),
            health: &health,
            wakes: last.is_ready() && lacks.is_some_and(|lacks| lacks < WAKING),
            lacks,
            worker: &worker,
        };
        let verdicts = judge(&seen);
        let mut next = status(&seen, &verdicts, one.metadata.generation, &last.status, database.clone(), now);
        let ours = owner(one, &self.shared.cluster);
        let asked = one.annotations().get(annotations::ADOPT);
        next.adopted = match seen.view {
            Some(view) if view.owner.as_ref() == Some(&ours) => asked.cloned(),
            _ => last.status.adopted.clone().filter(|adopted| Some(adopted) == asked),
        };
        self.tell_of_names(one, &mut last).await;
        self.tell_of_pods(one, &mut last, view, contest.is_some()).await;
        self.start_scale(one, &mut last, view).await;
        let since = last.at.map(|at| at.elapsed());
        if change(&last.status, &next).is_due(since, self.shared.numbers_every()) {
            match self.shared.write_status(one, &next).await {
                Ok(()) => {
                    let before = std::mem::replace(&mut last.status, next.clone());
                    last.at = Some(Instant::now());
                    self.tell(one, &before, &next, &health).await;
                }
                Err(error) => note(&error),
            }
        }
        self.written.insert(name, last);
    }

    /// What was written last, of this `TaskQueue` and no other of its name.
    fn last(&mut self, one: &TaskQueue) -> Last {
        let uid = one.uid().unwrap_or_default();
        let last = self.written.remove(&one.name_any()).filter(|last| last.uid == uid);
        last.unwrap_or_else(|| Last::of(one))
    }

    async fn health(
        &self,
        one: &TaskQueue,
        last: &mut Last,
        view: Option<&QueueView>,
        now: Timestamp,
    ) -> Health {
        let pods = self.namespace.pods_of(&one.name_any());
        let instances = view.and_then(|view| view.stats.as_ref()).map(|stats| stats.instances);
        let port = one.spec.handler.http.port;
        let mut health = health(&pods, Surroundings { port, instances }, now);
        let Some(pod) = health.pod.clone().filter(|_| health.asks) else {
            last.said = None;
            return health;
        };
        let known = last.said.take().filter(|(of, at, _)| *of == pod && at.elapsed() < EVENTS_EVERY);
        let known = if let Some(known) = known {
            known
        } else {
            let said = newest_warning(&self.shared.client, &self.source.namespace, &pod).await;
            (pod, Instant::now(), said)
        };
        if let Some(said) = &known.2 {
            health.add(said);
        }
        last.said = Some(known);
        health
    }

    async fn tell(
        &self,
        one: &TaskQueue,
        before: &TaskQueueStatus,
        after: &TaskQueueStatus,
        health: &Health,
    ) {
        let about = one.object_ref(&());
        let pod = health.pod.as_ref().map(|pod| ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: about.namespace.clone(),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        });
        self.shared.tell(&about, before, after, pod).await;
        if before.observed_generation == after.observed_generation {
            return;
        }
        if let Some(note) = hooks::before_the_end(one.spec.template.as_ref()) {
            let (reason, action) = (EventReason::PreStop.as_str(), EventReason::PreStop.action());
            let news = News { about: &about, related: None, warning: true, reason, action, note };
            self.shared.hand.event(&news).await;
        }
    }

    /// Which annotations and labels mean nothing, once.
    async fn tell_of_names(&self, one: &TaskQueue, last: &mut Last) {
        let unknown = unknown_names(one.annotations().keys(), one.labels().keys());
        let note = unknown.iter().map(ToString::to_string).reduce(|all, more| format!("{all}. {more}"));
        if let Some(note) = note.filter(|_| last.unknown != unknown) {
            let about = one.object_ref(&());
            let (reason, action) = (EventReason::UnknownName.as_str(), EventReason::UnknownName.action());
            let news = News { about: &about, related: None, warning: true, reason, action, note };
            self.shared.hand.event(&news).await;
        }
        last.unknown = unknown;
    }

    /// That there are more or fewer than before, and why.
    async fn tell_of_pods(
        &self,
        one: &TaskQueue,
        last: &mut Last,
        view: Option<&QueueView>,
        contested: bool,
    ) {
        let Some(view) = view else { return };
        let (every, now) = (self.shared.numbers_every(), Instant::now());
        let Some((reason, note)) = last.scaled.note(view.instances, &view.decision, contested, every, now)
        else {
            return;
        };
        let about = one.object_ref(&());
        let (related, reason, action) = (Some(deployment_of(&about)), reason.as_str(), reason.action());
        let news = News { about: &about, related, warning: false, reason, action, note };
        self.shared.hand.event(&news).await;
    }

    /// Gives the scale of a `TaskQueue` its first number, the pods that there are: without one, nobody can
    /// read the scale, and so no autoscaler could begin. One at least, since autoscalers leave alone what is
    /// at zero.
    async fn start_scale(&self, one: &TaskQueue, last: &mut Last, view: Option<&QueueView>) {
        let workers = &one.spec.workers;
        let missing = workers.scaling() == ScalingMode::External && workers.replicas.is_none();
        let early = last.scale_tried_at.is_some_and(|at| at.elapsed() < START_AGAIN);
        let Some(view) = view.filter(|_| missing && !early) else { return };
        last.scale_tried_at = Some(Instant::now());
        match self.shared.start_scale(one, view.instances.max(1)).await {
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

fn double(one: &TaskQueue) -> Trouble {
    let queue = manifest(one).queue_name().to_owned();
    let message = format!(
        "an older TaskQueue of this namespace has the queue `{queue}`: give this one another queueName"
    );
    Trouble::new(ConditionReason::OwnedByAnother, message)
}

impl Last {
    fn of(one: &TaskQueue) -> Self {
        let status = one.status.clone().unwrap_or_default();
        let uid = one.uid().unwrap_or_default();
        Self {
            uid,
            status,
            at: None,
            lacking: None,
            scaled: Scaled::default(),
            said: None,
            unknown: Vec::new(),
            scale_tried_at: None,
        }
    }

    /// How long there has been no pod that is ready, of those that there shall be. While the database is
    /// away no worker is.
    fn lacks(&mut self, is_away: bool, view: Option<&QueueView>, health: &Health) -> Option<Duration> {
        let lacks = !is_away && health.ready == 0 && view.is_some_and(|view| 0 < view.decision.pods_desired);
        self.lacking = lacks.then(|| self.lacking.unwrap_or_else(Instant::now));
        self.lacking.map(|since| since.elapsed())
    }

    fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|one| is_of(one, ConditionType::Ready, "True"))
    }
}

fn note(error: &WriteError) {
    tracing::debug!(%error, "a status was not written; trying again");
}
