//! Reports a pass: writes the status of each `TaskQueue`, and publishes events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};
use rowlock_crds::{
    ConditionReason, ConditionType, EventReason, FieldError, PodTemplate, ScalingMode, TaskQueue,
    TaskQueueStatus, annotations, unknown_names,
};
use rowlock_queue::is_owner;

use super::last_status::LastStatus;
use crate::kubernetes::api::events::{NewEvent, deployment_of};
use crate::kubernetes::api::objects::NamespaceWatch;
use crate::kubernetes::context::{Context, is_of};
use crate::kubernetes::deployment::apply_result::Outcome;
use crate::kubernetes::deployment::canary::CanaryView;
use crate::kubernetes::deployment::foreign_scaling::ForeignScaling;
use crate::kubernetes::deployment::worker_resources::of_queue;
use crate::kubernetes::desired::{owner, queue_name};
use crate::kubernetes::pods::health::{HealthInputs, PodHealth, PodRef, health};
use crate::kubernetes::problem::Problem;
use crate::kubernetes::status::conditions::{StatusInputs, decide_conditions};
use crate::kubernetes::status::pod_events::newest_warning;
use crate::kubernetes::status::pre_stop_hooks;
use crate::kubernetes::status::scaling_events::ScalingEvents;
use crate::kubernetes::status::write_budget::WriteBudget;
use crate::kubernetes::status::{
    change, database as database_status, former, long_unreachable, pods_never_ready, status, stays,
};
use crate::view::QueueView;

/// How long a queue that was ready stays ready while its first pods start: about as long as pulling an image
/// takes.
const WAKE_UP_GRACE: Duration = Duration::from_mins(1);

/// How often the events of a failing pod are read: the API server searches the whole namespace for them.
const POD_EVENTS_INTERVAL: Duration = Duration::from_mins(1);

/// How often the operator tries to initialise the scale of a `TaskQueue`, until the watch shows its number.
const START_SCALE_INTERVAL: Duration = Duration::from_secs(30);

/// What a pass has found out about one `TaskQueue`.
pub(super) struct Report<'a> {
    pub(super) view: Option<&'a QueueView>,
    pub(super) problem: Option<Problem>,
    /// Which database it is.
    pub(super) identity: Option<&'a str>,
    pub(super) outcome: Outcome,
    pub(super) foreign_scaling: Option<ForeignScaling>,
    pub(super) canary: Option<CanaryView>,
}

impl Report<'_> {
    /// The report on a `TaskQueue` that names the queue of an older one.
    pub(super) fn duplicate(one: &TaskQueue) -> Self {
        let queue = queue_name(one);
        let message = format!(
            "an older TaskQueue of this namespace has the queue `{queue}`: give this one another queueName"
        );
        let problem = Some(Problem::new(ConditionReason::OwnedByAnother, message));
        let (outcome, foreign_scaling, canary) = (Outcome::NotTried, None, None);
        Self { view: None, problem, identity: None, outcome, foreign_scaling, canary }
    }

    /// Whether the pass has observed neither the queue nor why it cannot.
    fn is_blank(&self) -> bool {
        let unknown = |problem: &Problem| problem.reason == ConditionReason::NotObserved;
        self.view.is_none() && self.problem.as_ref().is_none_or(unknown)
    }
}

/// Reports on the `TaskQueues` of one controller.
pub(super) struct Reporter {
    context: Arc<Context>,
    namespace: String,
    watch: Arc<NamespaceWatch>,
    /// By the names of the `TaskQueues`.
    last: BTreeMap<String, Box<LastReport>>,
}

/// The last report on a `TaskQueue`.
struct LastReport {
    uid: String,
    status: LastStatus,
    written_at: Option<Instant>,
    budget: WriteBudget,
    /// Since when nothing has been observed; `None`: something has.
    blank_since: Option<Instant>,
    /// Whether an event has said that the database is unreachable.
    unreachable_event: bool,
    /// Since when no pod is ready, though pods are wanted and the database answers.
    unready_since: Option<Instant>,
    /// Since when pods are ready, but no instance is in the database.
    unjoined_since: Option<Instant>,
    /// Whether another leader waited in vain for a ready pod, and none has been ready since.
    unready_before: bool,
    scaling_events: ScalingEvents,
    /// The newest event of the failing pod, and when it was read.
    pod_event: Option<(PodRef, Instant, Option<String>)>,
    /// The unknown annotations and labels of the last event.
    unknown: Vec<FieldError>,
    /// When the operator last tried to initialise the scale.
    scale_tried_at: Option<Instant>,
}

impl Reporter {
    pub(super) fn new(context: Arc<Context>, namespace: &str, watch: Arc<NamespaceWatch>) -> Self {
        Self { context, namespace: namespace.to_owned(), watch, last: BTreeMap::new() }
    }

    /// Forgets the other `TaskQueues`.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.last.retain(|name, _| keep(name));
    }

    /// The last status that was written; the watch may show it later.
    pub(super) fn last_status(&self, name: &str) -> Option<&TaskQueueStatus> {
        self.last.get(name).map(|last| &*last.status)
    }

    pub(super) async fn write(&mut self, one: &Arc<TaskQueue>, report: &Report<'_>) {
        let mut last = self.take_last(one);
        last.status.share(one);
        if last.stays(one.metadata.generation, report) {
            self.last.insert(one.name_any(), last);
            return;
        }
        let health = self.health(one, &mut last, report.view).await;
        let next = self.next_status(one, &mut last, report, &health);
        self.warn_unknown_names(one, &mut last).await;
        self.publish_scaling(one, &mut last, report).await;
        self.start_scale(one, &mut last, report.view).await;
        self.write_if_due(one, &mut last, next, &health).await;
        self.warn_unreachable(one, &mut last).await;
        self.last.insert(one.name_any(), last);
    }

    /// The last report on this `TaskQueue`, not on a deleted one of the same name.
    fn take_last(&mut self, one: &Arc<TaskQueue>) -> Box<LastReport> {
        let uid = one.uid().unwrap_or_default();
        let last = self.last.remove(&one.name_any()).filter(|last| last.uid == uid);
        last.unwrap_or_else(|| Box::new(LastReport::of(one)))
    }

    fn next_status(
        &self,
        one: &TaskQueue,
        last: &mut LastReport,
        report: &Report<'_>,
        health: &PodHealth,
    ) -> TaskQueueStatus {
        let (name, now) = (one.name_any(), Timestamp::now());
        let deployment = self.watch.deployment_of(one.spec.deployment_name(&name), &name);
        let database = database_status(last.status.database.as_ref(), report.identity, now);
        let unready_for = last.unready_for(report.problem.is_some(), report.view, health);
        let unjoined_for = last.unjoined_for(report.problem.is_some(), report.view, health);
        let worker = of_queue(&self.context.config.worker_resources, &one.spec.worker.resources);
        let inputs = StatusInputs {
            place: (&self.namespace, &name),
            former: former(database.as_ref(), now),
            spec: &one.spec,
            problem: report.problem.as_ref(),
            view: report.view,
            outcome: &report.outcome,
            foreign_scaling: report.foreign_scaling.as_ref(),
            canary: report.canary.as_ref(),
            deployment: deployment.as_deref(),
            health,
            is_waking_up: last.is_ready()
                && unready_for.is_some_and(|unready_for| unready_for < WAKE_UP_GRACE),
            unready_for,
            unjoined_for,
            worker: &worker,
            now,
        };
        let conditions = decide_conditions(&inputs);
        let mut next =
            status(&inputs, &conditions, one.metadata.generation, &last.status, database.clone(), now);
        let ours = owner(one, &self.context.cluster);
        let asked = one.annotations().get(annotations::ADOPT).filter(|asked| is_owner(asked));
        next.adopted = match report.view {
            Some(view) if view.owner.as_ref() == Some(&ours) => asked.cloned(),
            _ => last.status.adopted.clone().filter(|adopted| Some(adopted) == asked),
        };
        next
    }

    async fn write_if_due(
        &self,
        one: &TaskQueue,
        last: &mut LastReport,
        next: TaskQueueStatus,
        health: &PodHealth,
    ) {
        let since = last.written_at.map(|at| at.elapsed());
        let (change, has_budget) = (change(&last.status, &next), last.budget.has_left(Instant::now()));
        if !change.is_due(since, self.context.numbers_interval(), has_budget) {
            return;
        }
        match self.context.write_status(one, &next).await {
            Ok(()) => {
                if change.costs_budget() {
                    last.budget.spend();
                }
                let before = last.status.replace(next);
                last.written_at = Some(Instant::now());
                self.publish_events(one, &before, &last.status, health).await;
            }
            Err(error) => tracing::debug!(%error, "a status was not written; trying again"),
        }
    }

    async fn health(&self, one: &TaskQueue, last: &mut LastReport, view: Option<&QueueView>) -> PodHealth {
        let pods = self.watch.pods_of(&one.name_any());
        let instances = view.and_then(|view| view.stats.as_ref()).map(|stats| stats.instances);
        let port = one.spec.handler.http.port;
        let mut health = health(&pods, HealthInputs { port, instances }, Timestamp::now());
        let Some(pod) = health.pod.clone().filter(|_| health.read_events) else {
            last.pod_event = None;
            return health;
        };
        let known =
            last.pod_event.take().filter(|(of, at, _)| *of == pod && at.elapsed() < POD_EVENTS_INTERVAL);
        let known = if let Some(known) = known {
            known
        } else {
            let detail = newest_warning(&self.context.client, &self.namespace, &pod).await;
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
        let template = one.spec.template.as_ref().map(PodTemplate::to_value);
        if let Some(note) = pre_stop_hooks::harmful_hooks(template.as_ref()) {
            self.warn(one, EventReason::PreStop.as_str(), EventReason::PreStop.action(), note).await;
        }
    }

    /// Publishes an event that names unknown annotations and labels, once.
    async fn warn_unknown_names(&self, one: &TaskQueue, last: &mut LastReport) {
        let unknown = unknown_names(one.annotations().keys(), one.labels().keys());
        let note = unknown.iter().map(ToString::to_string).reduce(|all, more| format!("{all}. {more}"));
        if let Some(note) = note.filter(|_| last.unknown != unknown) {
            self.warn(one, EventReason::UnknownName.as_str(), EventReason::UnknownName.action(), note).await;
        }
        last.unknown = unknown;
    }

    /// Publishes an event about a database that has been unreachable for a while, once for each time.
    /// Problems that somebody has to solve have an event at once.
    async fn warn_unreachable(&self, one: &TaskQueue, last: &mut LastReport) {
        let found = long_unreachable(&last.status, Timestamp::now());
        let before = std::mem::replace(&mut last.unreachable_event, found.is_some());
        if let Some(condition) = found.filter(|_| !before) {
            self.warn(one, &condition.reason, EventReason::Ready.action(), condition.message.clone()).await;
        }
    }

    async fn warn(&self, one: &TaskQueue, reason: &str, action: &str, note: String) {
        let regarding = one.object_ref(&());
        let new_event =
            NewEvent { regarding: &regarding, related: None, warning: true, reason, action, note };
        self.context.writer.publish_event(&new_event).await;
    }

    /// Publishes an event about another number of pods than before, with the reason.
    async fn publish_scaling(&self, one: &TaskQueue, last: &mut LastReport, report: &Report<'_>) {
        let Some(view) = report.view else { return };
        let contested = report.foreign_scaling.is_some();
        let (every, now) = (self.context.numbers_interval(), Instant::now());
        let Some((reason, note)) =
            last.scaling_events.note(view.instances, &view.decision, contested, every, now)
        else {
            return;
        };
        let regarding = one.object_ref(&());
        let (related, reason, action) = (
            Some(deployment_of(&regarding, one.spec.deployment_name(&one.name_any()))),
            reason.as_str(),
            reason.action(),
        );
        let new_event = NewEvent { regarding: &regarding, related, warning: false, reason, action, note };
        self.context.writer.publish_event(&new_event).await;
    }

    /// Sets a missing `workers.replicas` to the current number of pods. Without it the API server cannot
    /// answer a read of the scale, so no autoscaler could start. The number is at least one, since
    /// autoscalers ignore a scale of zero.
    async fn start_scale(&self, one: &TaskQueue, last: &mut LastReport, view: Option<&QueueView>) {
        let workers = &one.spec.workers;
        let missing = workers.scaling() == ScalingMode::External && workers.replicas.is_none();
        let early = last.scale_tried_at.is_some_and(|at| at.elapsed() < START_SCALE_INTERVAL);
        let Some(view) = view.filter(|_| missing && !early) else { return };
        last.scale_tried_at = Some(Instant::now());
        match self.context.start_scale(one, view.instances.max(1)).await {
            // Another writer has changed it meanwhile, perhaps the number itself.
            Err(error) if error.is_conflict() => last.scale_tried_at = None,
            Err(error) => {
                let name = one.name_any();
                tracing::warn!(
                    %error,
                    task_queue = name,
                    "workers.replicas cannot be initialised; trying again"
                );
            }
            Ok(()) => (),
        }
    }
}

impl LastReport {
    fn of(one: &Arc<TaskQueue>) -> Self {
        let status = LastStatus::Watched(Arc::clone(one));
        Self {
            uid: one.uid().unwrap_or_default(),
            unready_before: pods_never_ready(&status, one.metadata.generation),
            // Another leader has published it.
            unreachable_event: long_unreachable(&status, Timestamp::now()).is_some(),
            status,
            written_at: None,
            budget: WriteBudget::new(Instant::now()),
            blank_since: Some(Instant::now()),
            unready_since: None,
            unjoined_since: None,
            scaling_events: ScalingEvents::default(),
            pod_event: None,
            unknown: Vec::new(),
            scale_tried_at: None,
        }
    }

    /// How long no pod has been ready, though pods are wanted. Not counted while the database is away, since
    /// then no worker is ready.
    fn unready_for(
        &mut self,
        is_away: bool,
        view: Option<&QueueView>,
        health: &PodHealth,
    ) -> Option<Duration> {
        let wanted = view.map(|view| 0 < view.decision.pods_desired);
        self.unready_before &= health.ready == 0 && wanted != Some(false);
        let unready_for = !is_away && health.ready == 0 && wanted == Some(true);
        self.unready_since = unready_for.then(|| self.unready_since.unwrap_or_else(Instant::now));
        let elapsed = self.unready_since.map(|since| since.elapsed());
        elapsed.map(|elapsed| if self.unready_before { Duration::MAX } else { elapsed })
    }

    /// How long pods have been ready without an instance in the database. Not counted while the database is
    /// away, since then nobody knows its instances.
    fn unjoined_for(
        &mut self,
        is_away: bool,
        view: Option<&QueueView>,
        health: &PodHealth,
    ) -> Option<Duration> {
        let stats = view.and_then(|view| view.stats.as_ref());
        let unjoined = !is_away && 0 < health.ready && stats.is_some_and(|stats| stats.instances == 0);
        self.unjoined_since = unjoined.then(|| self.unjoined_since.unwrap_or_else(Instant::now));
        self.unjoined_since.map(|since| since.elapsed())
    }

    /// Whether the status of the leader before stays, because this one has observed nothing yet.
    fn stays(&mut self, generation: Option<i64>, report: &Report<'_>) -> bool {
        self.blank_since = self.blank_since.filter(|_| report.is_blank());
        self.blank_since.is_some_and(|since| stays(&self.status, generation, since.elapsed()))
    }

    fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|one| is_of(one, ConditionType::Ready, "True"))
    }
}
