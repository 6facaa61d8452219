//! One pass of the loop. It knows nothing of why it runs, and checks every property each time.

use crate::backend::{Backend, DesiredPods};
use crate::connection_limit::Limits;
use crate::managed_queue::{DesiredQueue, ManagedQueue, ObservedPods};
use crate::observe::{ObservedQueues, Snapshot, observe, poll_interval_after};
use crate::shared_poller::Participant;
use crate::view::{QueueView, View};
use crate::wakeups::Wakeups;
use rowlock_crds::Manifest;
use rowlock_plan::{Decision, ObservedQueue, Reason, share};
use rowlock_queue::{Connect, Db, Declared, Error, Maintainer, MaintenanceReport};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often maintenance runs here while there is no instance that would do it.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// And how often while no task waits, which each look tells: an idle database is asked less.
const QUIET_INTERVAL: Duration = Duration::from_secs(10);

/// How often a failure of maintenance that lasts is logged.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Keeps the workers of all queues of one database right.
#[expect(missing_debug_implementations, reason = "a database handle has nothing to show, and a URL to hide")]
pub struct Reconciler<B> {
    db: Db,
    backend: B,
    owner: String,
    queues: BTreeMap<String, ManagedQueue>,
    connect: Option<Connect>,
    wakeups: Option<Wakeups>,
    limits: Limits,
    participant: Option<Participant>,
    /// Instances of queues of ours whose controller has not reported them yet, or cannot.
    unreported: u32,
    maintainer: Maintainer,
    maintained_at: Option<Instant>,
    /// When a failure of maintenance was logged last, if it fails.
    failure_logged_at: Option<Instant>,
    /// The last snapshot of the database, taken by this controller or another of the database.
    snapshot: Option<Arc<Snapshot>>,
    /// When a queue was declared last, which a snapshot requested earlier need not show.
    declared_at: Option<Instant>,
    /// How long the last snapshot took, where this controller took it itself.
    observing_took: Duration,
    since: Instant,
    /// The moment that was last seen, from then on.
    now: Duration,
    problem: Option<Arc<Error>>,
}

impl<B: Backend> Reconciler<B> {
    /// `owner` is written beside each queue: another owner's queue is left alone.
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
            maintainer: Maintainer::new(),
            maintained_at: None,
            failure_logged_at: None,
            snapshot: None,
            declared_at: None,
            observing_took: Duration::ZERO,
            since: Instant::now(),
            now: Duration::ZERO,
            problem: None,
        }
    }

    /// What shall be from now on. `generation` grows with every change.
    pub fn set_manifests(&mut self, manifests: Vec<Manifest>, generation: i64) {
        let owner = self.owner.clone();
        let desired = |manifest| DesiredQueue { manifest, generation, owner: owner.clone(), adopts: None };
        self.set_queues(manifests.into_iter().map(desired));
    }

    /// The same, for manifests that each have a generation and an owner of their own.
    pub fn set_queues(&mut self, desired_queues: impl IntoIterator<Item = DesiredQueue>) {
        let mut before = std::mem::take(&mut self.queues);
        for desired in desired_queues {
            let name = desired.manifest.queue_name().to_owned();
            let old = before.remove(&name);
            self.queues.insert(name, ManagedQueue::new(desired, old));
        }
        for queue in before.keys() {
            tracing::warn!(%queue, "TaskQueue removed: draining its instances; its tasks are kept");
        }
    }

    /// The same database by another address, or another one: every queue is declared to it again.
    pub fn set_db(&mut self, db: Db) {
        self.db = db;
        self.maintainer = Maintainer::new();
        (self.limits, self.snapshot) = (Limits::default(), None);
        self.queues.values_mut().for_each(ManagedQueue::forget_database);
    }

    /// Other controllers have queues of this database too: this one's part in their shared poller. `None`: no
    /// other is known.
    pub fn share_poller(&mut self, participant: Option<Participant>) {
        self.participant = participant;
    }

    /// From now on listens for tasks of queues that are scaled to zero, over a connection of its own.
    pub fn listen(&mut self, connect: Connect) {
        (self.connect, self.wakeups) = (Some(connect), None);
    }

    /// Returns when a task came for a queue that is scaled to zero, or another controller of this database
    /// has a new snapshot or waits for one.
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

    /// Whether this controller polls the database itself, rather than another one for it.
    #[must_use]
    pub fn is_poller(&self) -> bool {
        self.participant.as_ref().is_none_or(Participant::is_poller)
    }

    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Observe, plan, apply: once, for all queues.
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
            })
            .collect();
        self.backend.apply(&desired_pods).await;
        self.request_wakeups(seen, &decisions).await;
        self.view(seen, decisions)
    }

    /// How long to wait, at least, before the next poll.
    #[must_use]
    pub fn poll_interval(&self) -> Duration {
        poll_interval_after(self.observing_took)
    }

    /// Stops all instances in order and waits for them.
    pub async fn drain(&mut self) {
        self.backend.drain().await;
    }

    /// Stops all instances without letting them finish what they do, and waits for them.
    pub async fn end_now(&mut self) {
        self.backend.end_now().await;
    }

    /// All queues of the database; nothing where it does not answer.
    async fn snapshot(&mut self) -> Option<Arc<Snapshot>> {
        let began = Instant::now();
        let is_ours = |queue: &Declared| {
            self.queues.contains_key(&queue.stats.name)
                || self.participant.as_ref().is_some_and(|participant| participant.is_ours(queue))
        };
        let snapshot = observe(&self.db, is_ours);
        let (snapshot, itself) = match &self.participant {
            Some(participant) => participant.snapshot(self.declared_at, snapshot).await,
            None => (snapshot.await.map(Arc::new).map_err(Arc::new), true),
        };
        self.observing_took = if itself { began.elapsed() } else { Duration::ZERO };
        if self.is_poller() {
            self.wakeups = self.wakeups.take().or_else(|| self.connect.clone().map(Wakeups::start));
        } else {
            // Another controller of this database has both, for all.
            self.wakeups = None;
            self.db.close_idle().await;
        }
        match snapshot {
            Ok(snapshot) => {
                self.note_problem(None);
                // The same again is of the same moment.
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
        let (others, unreported) = match &self.participant {
            Some(participant) => participant.count_other_instances(elsewhere),
            None => (elsewhere.map(|queue| queue.stats.instances).fold(0, i64::saturating_add), 0),
        };
        let others = others.saturating_add(snapshot.unseen);
        self.unreported = u32::try_from(unreported).unwrap_or_default();
        self.limits.note(&snapshot.limits, self.db.user(), others, self.participant.is_some(), self.now);
    }

    fn plan(&mut self, seen: &ObservedQueues) -> Vec<Decision> {
        let now = self.now;
        let (mut observed, mut decisions): (Vec<ObservedQueue>, Vec<Decision>) = (Vec::new(), Vec::new());
        for (name, managed) in &mut self.queues {
            let stats = seen.get(name).map(|queue| &queue.stats);
            let observed_pods = ObservedPods {
                pods: self.backend.instances(name),
                ready: self.backend.ready(name),
                not_starting: self.backend.not_starting(name),
                age: self.backend.age(name),
            };
            let queue = managed.observe(stats, observed_pods, now);
            decisions.push(managed.decide(&queue, now));
            observed.push(queue);
        }
        self.share(&observed, &mut decisions);
        for ((managed, decision), queue) in self.queues.values_mut().zip(&decisions).zip(&observed) {
            managed.note(decision, queue.pods);
        }
        decisions
    }

    /// Lowers what was decided to what the database has connections for. What holds for one user alone is
    /// shared among the controllers of that user.
    fn share(&mut self, observed: &[ObservedQueue], decisions: &mut Vec<Decision>) {
        let leaving = self.backend.leaving();
        self.limits.set_leaving(leaving);
        let Some(participant) = &self.participant else {
            if let Some(limit) = self.limits.current() {
                share(&limit.connections, observed, decisions);
            }
            return;
        };
        let user = self.db.user();
        participant.publish_demand(user, self.queues.keys().zip(observed.iter().zip(&*decisions)), leaving);
        let Some(is_own) = self.limits.current().map(|limit| limit.is_own) else { return };
        let of = user.filter(|_| is_own);
        self.limits.set_leaving(participant.leaving(of) + if is_own { 0 } else { self.unreported });
        if let Some(limit) = self.limits.current() {
            *decisions = participant.shares(&limit.connections, of);
        }
    }

    /// Moves what is due and makes room for what comes while no instance lives that would do it: a queue
    /// that is scaled to zero is woken by what this finds.
    async fn maintain(&mut self, seen: &ObservedQueues) {
        if !self.is_poller() {
            return;
        }
        let lives = seen.values().any(|queue| queue.stats.instances > 0);
        // What waits may be due, or be more than a limit allows.
        let waits = seen.values().map(|queue| &queue.stats).any(|stats| {
            [stats.available, stats.scheduled, stats.retryable, stats.due_soon].iter().any(|tasks| 0 < *tasks)
        });
        let every = if lives || waits { MAINTENANCE_INTERVAL } else { QUIET_INTERVAL };
        let early = self.maintained_at.is_some_and(|at| at.elapsed() < every);
        if early || self.problem.is_some() {
            return;
        }
        self.maintained_at = Some(Instant::now());
        let maintained = if lives {
            // Instances may have fewer rights than it takes to clean.
            self.maintainer.maintain_partitions(&self.db, &mut MaintenanceReport::default()).await
        } else {
            // Not unbroken: who sends no heartbeats cannot know whether others could.
            self.maintainer.run_once(&self.db, None, None).await.map(drop)
        };
        match maintained {
            Err(error) if self.failure_logged_at.is_none_or(|at| LOG_EVERY <= at.elapsed()) => {
                self.failure_logged_at = Some(Instant::now());
                tracing::warn!(%error, "maintenance failed; trying again");
            }
            Err(error) => tracing::debug!(%error, "maintenance failed; trying again"),
            Ok(()) if self.failure_logged_at.take().is_some() => tracing::info!("maintenance works again"),
            Ok(()) => (),
        }
    }

    /// A queue for which there shall be a pod needs none of this: its instance listens itself, or is about to
    /// poll.
    async fn request_wakeups(&mut self, seen: &ObservedQueues, decisions: &[Decision]) {
        let is_at_zero =
            |decision: &Decision| decision.pods_desired == 0 && decision.reason == Reason::MinWorkers;
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

    fn note_problem(&mut self, problem: Option<Arc<Error>>) {
        match (&self.problem, &problem) {
            (None, Some(error)) => {
                tracing::warn!(%error, "cannot read queue statistics; keeping the current number of instances");
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
            instances: self.backend.instances(name),
            decision,
            limit: self.limits.current().cloned(),
            metrics: self.backend.metrics_addresses(name),
        });
        View {
            queues: queues.collect(),
            problem: self.problem.clone(),
            started_at: self.snapshot.as_ref().map(|snapshot| snapshot.started_at),
        }
    }
}
