//! One pass of the loop. Whatever woke it, each pass checks everything.

mod maintain;
mod share;

use crate::backend::{Backend, DesiredPods};
use crate::connection_limit::Limits;
use crate::decision_log::DecisionLog;
use crate::horizon::Horizon;
use crate::managed_queue::{DesiredQueue, ManagedQueue, ObservedPods};
use crate::observe::{ObservedQueues, Snapshot, Whose, observe, poll_interval_after};
use crate::shared_poller::{OtherInstances, Participant};
use crate::shortage::{Group, Shortage};
use crate::view::{Polls, QueueSettings, QueueView, View};
use crate::wakeups::Wakeups;
use rowlock_crds::Manifest;
use rowlock_plan::{Decision, ObservedQueue, Reason};
use rowlock_queue::{Connect, Db, Declared, Error, Maintainer, PartitionStats};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Reconciles all queues of one database.
#[expect(missing_debug_implementations, reason = "a database handle could only print its secret URL")]
pub struct Reconciler<B> {
    db: Db,
    backend: B,
    owner: String,
    queues: BTreeMap<String, ManagedQueue>,
    connect: Option<Connect>,
    wakeups: Option<Wakeups>,
    limits: Limits,
    participant: Option<Participant>,
    /// Running instances of this operator's queues that their controller has not reported to the shared
    /// poller.
    unreported: u32,
    /// The instances of queues in this database that the shared poller knows nothing about.
    elsewhere: Group,
    maintainer: Maintainer,
    maintained_at: Option<Instant>,
    /// The partitions, and when its maintenance read them.
    partitions: Option<(Instant, PartitionStats)>,
    /// The steps of its maintenance that fail.
    failing_maintenance: maintain::FailingMaintenance,
    /// The last snapshot of the database, taken by this controller or another one.
    snapshot: Option<Arc<Snapshot>>,
    /// When a queue was last declared. A snapshot requested earlier may not show it.
    declared_at: Option<Instant>,
    /// How long the last snapshot took; zero if another controller took it.
    observing_took: Duration,
    polls: Polls,
    horizon: Horizon,
    decision_log: DecisionLog,
    /// When the reconciler was created.
    since: Instant,
    /// The time of the current pass, counted from `since`: when its snapshot was requested.
    now: Duration,
    problem: Option<Arc<Error>>,
}

impl<B: Backend> Reconciler<B> {
    /// `owner` is stored with each queue. Queues of other owners are not changed.
    pub fn new(db: Db, backend: B, owner: &str) -> Self {
        Self {
            db,
            backend,
            owner: owner.to_owned(),
            queues: BTreeMap::new(),
            connect: None,
            wakeups: None,
            limits: Limits::default(),
            participant: None,
            unreported: 0,
            elsewhere: Group::default(),
            maintainer: Maintainer::new(),
            maintained_at: None,
            partitions: None,
            failing_maintenance: maintain::FailingMaintenance::default(),
            snapshot: None,
            declared_at: None,
            observing_took: Duration::ZERO,
            polls: Polls::default(),
            horizon: Horizon::default(),
            decision_log: DecisionLog::default(),
            since: Instant::now(),
            now: Duration::ZERO,
            problem: None,
        }
    }

    /// Sets the queues to reconcile from now on. `generation` must grow with every change.
    pub fn set_manifests(&mut self, manifests: Vec<Manifest>, generation: i64) {
        let owner = self.owner.clone();
        let desired = |manifest| DesiredQueue { manifest, generation, owner: owner.clone(), adopts: None };
        self.set_queues(manifests.into_iter().map(desired));
    }

    /// The same, for queues that each have their own generation and owner.
    pub fn set_queues(&mut self, desired_queues: impl IntoIterator<Item = DesiredQueue>) {
        let mut before = std::mem::take(&mut self.queues);
        for desired in desired_queues {
            let name = desired.manifest.queue_name().to_owned();
            let old = before.remove(&name);
            self.queues.insert(name, ManagedQueue::new(desired, old));
        }
        for (queue, managed) in &before {
            tracing::warn!(%queue, "TaskQueue removed: {}", managed.what_stays());
        }
        self.decision_log.retain(|queue| self.queues.contains_key(queue));
    }

    /// Replaces the connection. It may lead to another database, so every queue is declared again.
    pub fn set_db(&mut self, db: Db) {
        self.db = db;
        self.maintainer = Maintainer::new();
        (self.limits, self.snapshot, self.partitions) = (Limits::default(), None, None);
        self.horizon = Horizon::default();
        self.decision_log = DecisionLog::default();
        self.queues.values_mut().for_each(ManagedQueue::forget_database);
    }

    /// Sets the poller that this controller shares with other controllers of the database. `None`: there are
    /// no others.
    pub fn share_poller(&mut self, participant: Option<Participant>) {
        self.participant = participant;
    }

    /// Makes the reconciler listen, on a separate connection, for tasks of queues that are scaled to zero.
    pub fn listen(&mut self, connect: Connect) {
        (self.connect, self.wakeups) = (Some(connect), None);
    }

    /// Returns when a task arrives for a queue that is scaled to zero, when another controller has a new
    /// snapshot, or when the poller should poll for another controller.
    pub async fn woken(&self) {
        let received = async {
            match &self.wakeups {
                Some(wakeups) => wakeups.received().await,
                None => std::future::pending().await,
            }
        };
        let woken = async {
            match &self.participant {
                Some(participant) => {
                    participant.woken(self.snapshot.as_ref().map(|snapshot| snapshot.requested_at)).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = received => (),
            () = woken => (),
        }
    }

    /// Whether this controller polls the database itself. Otherwise another one polls for it.
    #[must_use]
    pub fn is_poller(&self) -> bool {
        self.participant.as_ref().is_none_or(Participant::is_poller)
    }

    /// The backend, for what only its owner knows how to change.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// One pass: observes, plans and applies, for all queues.
    pub async fn reconcile(&mut self) -> View {
        for managed in self.queues.values_mut() {
            if managed.declare(&self.db).await {
                self.declared_at = Some(Instant::now());
            }
        }
        let snapshot = self.snapshot().await;
        let nothing = ObservedQueues::new();
        let seen = snapshot.as_ref().map_or(&nothing, |snapshot| &snapshot.queues);
        self.maintain(seen).await;
        let decisions = self.plan(seen);
        let desired_pods: Vec<DesiredPods<'_>> = self
            .queues
            .values()
            .zip(&decisions)
            .map(|(managed, decision)| DesiredPods {
                manifest: &managed.desired.manifest,
                pods: decision.pods_desired,
                keeps: decision.reason.keeps_pods(),
            })
            .collect();
        self.backend.apply(&desired_pods).await;
        self.request_wakeups(seen, &decisions).await;
        self.record(seen, &decisions).await;
        self.db.rest();
        self.view(seen, decisions)
    }

    /// The shortest wait before the next poll.
    #[must_use]
    pub fn poll_interval(&self) -> Duration {
        poll_interval_after(self.observing_took)
    }

    /// Drains all instances, and waits until they have ended.
    pub async fn drain(&mut self) {
        self.backend.drain().await;
    }

    /// Stops all instances without a drain, and waits until they have ended.
    pub async fn end_now(&mut self) {
        self.backend.end_now().await;
    }

    /// A snapshot of the database; `None` if the database cannot be read.
    async fn snapshot(&mut self) -> Option<Arc<Snapshot>> {
        let began = Instant::now();
        let whose = |queue: &Declared| match &self.participant {
            _ if self.queues.contains_key(&queue.stats.name) => Whose::Managed,
            Some(participant) => participant.whose(queue),
            None => Whose::Others,
        };
        let snapshot = observe(&self.db, whose);
        let (snapshot, itself) = match &self.participant {
            Some(participant) => participant.snapshot(self.declared_at, snapshot).await,
            None => (snapshot.await.map(Arc::new).map_err(Arc::new), true),
        };
        self.observing_took = if itself { began.elapsed() } else { Duration::ZERO };
        if itself {
            self.polls.note(snapshot.is_ok(), self.observing_took);
        }
        if self.is_poller() {
            self.wakeups = self.wakeups.take().or_else(|| self.connect.clone().map(Wakeups::start));
        } else {
            // The poller listens and polls for all controllers of the database.
            self.wakeups = None;
            self.db.close_idle().await;
        }
        match snapshot {
            Ok(snapshot) => {
                self.note_problem(None);
                // The snapshot may be that of the last pass. Then the time stays the same.
                self.now = self.now.max(snapshot.requested_at.saturating_duration_since(self.since));
                self.use_snapshot(&snapshot);
                self.snapshot = Some(Arc::clone(&snapshot));
                Some(snapshot)
            }
            Err(error) => {
                self.now = self.since.elapsed();
                self.note_problem(Some(error));
                None
            }
        }
    }

    fn use_snapshot(&mut self, snapshot: &Snapshot) {
        self.queues.iter_mut().for_each(|(name, managed)| managed.compare(snapshot.queues.get(name)));
        let elsewhere = snapshot.queues.values().filter(|queue| !self.queues.contains_key(&queue.stats.name));
        let OtherInstances { others, unreported } = if let Some(participant) = &self.participant {
            participant.count_other_instances(elsewhere)
        } else {
            let mut others = Group::default();
            elsewhere.for_each(|queue| others.add(queue.stats.instances));
            OtherInstances { others, unreported: 0 }
        };
        (self.elsewhere, self.unreported) = (others.and(snapshot.unseen), unreported);
        self.horizon.note(&snapshot.horizon, self.now);
        let instances = self.elsewhere.pods;
        self.limits.note(&snapshot.limits, self.db.user(), instances, self.participant.is_some(), self.now);
    }

    fn plan(&mut self, seen: &ObservedQueues) -> Vec<Decision> {
        let now = self.now;
        let (mut observed, mut decisions): (Vec<ObservedQueue>, Vec<Decision>) = (Vec::new(), Vec::new());
        for (name, managed) in &mut self.queues {
            let stats = seen.get(name).map(|queue| &queue.stats);
            let observed_pods = ObservedPods {
                pods: self.backend.instances(name),
                ready: self.backend.ready(name),
                unplaced: self.backend.unplaced(name),
                not_starting: self.backend.not_starting(name),
                is_held: self.backend.is_held(name),
                age: self.backend.age(name),
                start: self.backend.pod_start(name),
            };
            let queue = managed.observe(stats, observed_pods, now);
            decisions.push(managed.decide(&queue, now));
            observed.push(queue);
        }
        let wanted: Vec<u32> = decisions.iter().map(|decision| decision.pods_desired).collect();
        let holdings = self.share(&observed, &mut decisions);
        self.note_shortages(&wanted, &observed, &decisions, &holdings);
        for ((managed, decision), queue) in self.queues.values_mut().zip(&decisions).zip(&observed) {
            managed.note(decision, queue.pods);
        }
        decisions
    }

    /// Requests wake-ups for the queues that are scaled to zero. Where a pod is wanted, its instance listens,
    /// or will poll when it starts.
    async fn request_wakeups(&mut self, seen: &ObservedQueues, decisions: &[Decision]) {
        let is_at_zero = |decision: &Decision| decision.pods_desired == 0 && decision.reason == Reason::Idle;
        let queues = self.queues.iter().zip(decisions).filter(|(_, decision)| is_at_zero(decision));
        let mut scaled_to_zero =
            queues.filter_map(|((name, _), _)| Some(seen.get(name)?.stats.queue)).collect();
        if let Some(participant) = &self.participant {
            scaled_to_zero = participant.publish_scaled_to_zero(scaled_to_zero);
        }
        if let Some(wakeups) = &mut self.wakeups {
            wakeups.request(scaled_to_zero, &self.db).await;
        }
    }

    /// Records the decisions that have changed, for queues that are ours in the database too.
    async fn record(&mut self, seen: &ObservedQueues, decisions: &[Decision]) {
        for ((name, managed), decision) in self.queues.iter().zip(decisions) {
            let owner = managed.desired.owner.as_str();
            let Some(queue) = seen.get(name).filter(|queue| queue.owner == owner) else { continue };
            // A login that may read the decisions of this queue may not know the others.
            let detail = || managed.shortage().map(Shortage::without_names);
            let pods = self.backend.instances(name);
            let key = (name.as_str(), queue.stats.queue, owner);
            self.decision_log.note(key, pods, decision, detail, Instant::now());
        }
        if self.problem.is_none() {
            let is_poller = self.is_poller();
            self.decision_log.record(&self.db, is_poller).await;
        }
    }

    fn note_problem(&mut self, problem: Option<Arc<Error>>) {
        match (&self.problem, &problem) {
            (None, Some(error)) => {
                tracing::warn!(
                    %error,
                    "cannot read queue statistics; keeping the current number of instances"
                );
            }
            (Some(_), None) => tracing::info!("the database answers again"),
            _ => (),
        }
        self.problem = problem;
    }

    fn view(&self, seen: &ObservedQueues, decisions: Vec<Decision>) -> View {
        let queues = self.queues.iter().zip(decisions).map(|((name, managed), decision)| QueueView {
            name: name.clone(),
            refused: managed.refused.clone(),
            owner: seen.get(name).map(|queue| queue.owner.clone()),
            stats: seen.get(name).map(|queue| queue.stats.clone()),
            backlog_full: seen.get(name).is_some_and(|queue| queue.backlog_full),
            enqueued: managed.enqueued(),
            instances: self.backend.instances(name),
            ready: self.backend.ready(name),
            draining: self.backend.draining(name),
            settings: QueueSettings::of(&managed.desired.manifest),
            decision,
            limit: self.limits.current().cloned(),
            shortage: managed.shortage().cloned(),
            metrics: self.backend.metrics_addresses(name),
        });
        View {
            queues: queues.collect(),
            problem: self.problem.clone(),
            started_at: self.snapshot.as_ref().map(|snapshot| snapshot.started_at),
            snapshot_at: self.snapshot.as_ref().map(|snapshot| snapshot.requested_at),
            snapshot_took: self.snapshot.as_ref().map(|snapshot| snapshot.took),
            partitions: self.partitions.filter(|_| self.is_poller()),
            polls: self.polls,
            horizon: self.snapshot.as_ref().map(|_| self.horizon.ages()),
        }
    }
}
