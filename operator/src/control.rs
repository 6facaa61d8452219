//! The loop's one step. It knows nothing of why it runs, and checks every property each time.

use crate::applier::{Applier, Intent};
use crate::bell::Bell;
use crate::charge::{Charge, Having, Tended};
use crate::limit::Limits;
use crate::observe::{Look, Seen, observe, rest_after};
use crate::room::Seat;
use crate::view::{QueueView, View};
use rowlock_crds::Manifest;
use rowlock_plan::{Decision, ObservedQueue, Reason, share};
use rowlock_queue::{Connect, Db, Declared, Error, Maintainer, MaintenanceReport};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the maintainer works here while no instance lives that would do it.
const CARE_INTERVAL: Duration = Duration::from_secs(1);

/// And how often while no task waits, which each look tells: an idle database is asked less.
const QUIET_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is said that maintenance still fails.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// Keeps the workers of all queues of one database right.
#[expect(missing_debug_implementations, reason = "a database handle has nothing to show, and a URL to hide")]
pub struct Operator<A> {
    db: Db,
    applier: A,
    owner: String,
    queues: BTreeMap<String, Tended>,
    connect: Option<Connect>,
    bell: Option<Bell>,
    limits: Limits,
    seat: Option<Seat>,
    /// Instances of queues of ours whose loop has not told of them yet, or cannot.
    untold: u32,
    maintainer: Maintainer,
    cared_at: Option<Instant>,
    /// When it was said last that maintenance fails, if it does.
    care_fails: Option<Instant>,
    /// The last look at the database, by this loop or another of its.
    look: Option<Arc<Look>>,
    /// When a queue was declared last, which a look that began earlier need not know.
    declared_at: Option<Instant>,
    /// What the last look took, where this loop asked itself.
    counting: Duration,
    since: Instant,
    /// The moment that was last seen, from then on.
    now: Duration,
    trouble: Option<Arc<Error>>,
}

impl<A: Applier> Operator<A> {
    /// `owner` is written beside each queue: another owner's queue is left alone.
    pub fn new(db: Db, applier: A, owner: &str) -> Self {
        Self {
            db,
            applier,
            owner: owner.to_owned(),
            queues: BTreeMap::new(),
            connect: None,
            bell: None,
            limits: Limits::default(),
            seat: None,
            untold: 0,
            maintainer: Maintainer::new(),
            cared_at: None,
            care_fails: None,
            look: None,
            declared_at: None,
            counting: Duration::ZERO,
            since: Instant::now(),
            now: Duration::ZERO,
            trouble: None,
        }
    }

    /// What shall be from now on. `generation` grows with every change.
    pub fn set_manifests(&mut self, manifests: Vec<Manifest>, generation: i64) {
        let owner = self.owner.clone();
        let charge = |manifest| Charge { manifest, generation, owner: owner.clone(), adopts: None };
        self.set_each(manifests.into_iter().map(charge));
    }

    /// The same, for manifests that each have a generation and an owner of their own.
    pub fn set_each(&mut self, charges: impl IntoIterator<Item = Charge>) {
        let mut before = std::mem::take(&mut self.queues);
        for charge in charges {
            let name = charge.manifest.queue_name().to_owned();
            let old = before.remove(&name);
            self.queues.insert(name, Tended::new(charge, old));
        }
        for queue in before.keys() {
            tracing::warn!(%queue, "declared nowhere any more: its instances drain; its tasks are kept, and wait until it is again");
        }
    }

    /// The same database by another address, or another one: every queue is declared to it anew.
    pub fn set_db(&mut self, db: Db) {
        self.db = db;
        self.maintainer = Maintainer::new();
        (self.limits, self.look) = (Limits::default(), None);
        self.queues.values_mut().for_each(Tended::forget_database);
    }

    /// Other loops tend queues of this database too: their place and this one's. `None`: nothing is known of others.
    pub fn sit(&mut self, seat: Option<Seat>) {
        self.seat = seat;
    }

    /// From now on hears when a task comes for a queue that sleeps, over a connection of its own.
    pub fn listen(&mut self, connect: Connect) {
        (self.connect, self.bell) = (Some(connect), None);
    }

    /// Returns when a task came for a queue that sleeps, or another loop of this database has news or waits for some.
    pub async fn stirred(&self) {
        let rung = async {
            match &self.bell {
                Some(bell) => bell.rung().await,
                None => std::future::pending().await,
            }
        };
        let stirred = async {
            match &self.seat {
                Some(seat) => seat.stirred(self.look.as_ref().map(|look| look.asked)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = rung => (),
            () = stirred => (),
        }
    }

    /// Whether this loop looks at the database itself, rather than another one for it.
    #[must_use]
    pub fn looks(&self) -> bool {
        self.seat.as_ref().is_none_or(Seat::looks)
    }

    pub fn applier_mut(&mut self) -> &mut A {
        &mut self.applier
    }

    /// Observe, plan, apply: once, for all queues.
    pub async fn reconcile(&mut self) -> View {
        for tended in self.queues.values_mut() {
            if tended.declare(&self.db).await {
                self.declared_at = Some(Instant::now());
            }
        }
        let look = self.look().await;
        let nothing = Seen::new();
        let seen = look.as_ref().map_or(&nothing, |look| &look.queues);
        self.care(seen).await;
        let decisions = self.plan(seen);
        let intents: Vec<Intent<'_>> = self
            .queues
            .values()
            .zip(&decisions)
            .map(|(tended, decision)| Intent {
                manifest: &tended.charge.manifest,
                pods: decision.pods_desired,
            })
            .collect();
        self.applier.apply(&intents).await;
        self.wait_for_sleepers(seen, &decisions).await;
        self.view(seen, decisions)
    }

    /// How long to wait, at least, before the next look.
    #[must_use]
    pub fn rest(&self) -> Duration {
        rest_after(self.counting)
    }

    /// Stops all instances in order and waits for them.
    pub async fn drain(&mut self) {
        self.applier.drain().await;
    }

    /// Stops all instances without letting them finish what they do, and waits for them.
    pub async fn end_now(&mut self) {
        self.applier.end_now().await;
    }

    /// All queues of the database; nothing where it does not answer.
    async fn look(&mut self) -> Option<Arc<Look>> {
        let began = Instant::now();
        let is_ours = |queue: &Declared| {
            self.queues.contains_key(&queue.stats.name)
                || self.seat.as_ref().is_some_and(|seat| seat.is_ours(queue))
        };
        let look = observe(&self.db, is_ours);
        let (look, itself) = match &self.seat {
            Some(seat) => seat.look(self.declared_at, look).await,
            None => (look.await.map(Arc::new).map_err(Arc::new), true),
        };
        self.counting = if itself { began.elapsed() } else { Duration::ZERO };
        if self.looks() {
            self.bell = self.bell.take().or_else(|| self.connect.clone().map(Bell::start));
        } else {
            // Another loop of this database has both, for all.
            self.bell = None;
            self.db.close_idle().await;
        }
        match look {
            Ok(look) => {
                self.note_trouble(None);
                // The same again is of the same moment.
                self.now = self.now.max(look.asked.saturating_duration_since(self.since));
                self.take_in(&look);
                self.look = Some(Arc::clone(&look));
                Some(look)
            }
            Err(error) => {
                self.now = self.since.elapsed();
                self.note_trouble(Some(error));
                None
            }
        }
    }

    fn take_in(&mut self, look: &Look) {
        self.queues.iter_mut().for_each(|(name, tended)| tended.compare(look.queues.get(name)));
        let elsewhere = look.queues.values().filter(|queue| !self.queues.contains_key(&queue.stats.name));
        let (others, untold) = match &self.seat {
            Some(seat) => seat.instances(elsewhere),
            None => (elsewhere.map(|queue| queue.stats.instances).fold(0, i64::saturating_add), 0),
        };
        let others = others.saturating_add(look.unseen);
        self.untold = u32::try_from(untold).unwrap_or_default();
        self.limits.note(&look.limits, self.db.user(), others, self.seat.is_some(), self.now);
    }

    fn plan(&mut self, seen: &Seen) -> Vec<Decision> {
        let now = self.now;
        let (mut observed, mut decisions): (Vec<ObservedQueue>, Vec<Decision>) = (Vec::new(), Vec::new());
        for (name, tended) in &mut self.queues {
            let stats = seen.get(name).map(|queue| &queue.stats);
            let having = Having {
                pods: self.applier.instances(name),
                ready: self.applier.ready(name),
                faltering: self.applier.falters(name),
                age: self.applier.age(name),
            };
            let queue = tended.observe(stats, having, now);
            decisions.push(tended.decide(&queue, now));
            observed.push(queue);
        }
        self.share(&observed, &mut decisions);
        for ((tended, decision), queue) in self.queues.values_mut().zip(&decisions).zip(&observed) {
            tended.note(decision, queue.pods);
        }
        decisions
    }

    /// Lowers what was decided to what the database has connections for. What holds for one user alone is shared among the loops of that user.
    fn share(&mut self, observed: &[ObservedQueue], decisions: &mut Vec<Decision>) {
        let leaving = self.applier.leaving();
        self.limits.set_leaving(leaving);
        let Some(seat) = &self.seat else {
            if let Some(limit) = self.limits.current() {
                share(&limit.connections, observed, decisions);
            }
            return;
        };
        let user = self.db.user();
        seat.tell(user, self.queues.keys().zip(observed.iter().zip(&*decisions)), leaving);
        let Some(is_own) = self.limits.current().map(|limit| limit.is_own) else { return };
        let of = user.filter(|_| is_own);
        self.limits.set_leaving(seat.leaving(of) + if is_own { 0 } else { self.untold });
        if let Some(limit) = self.limits.current() {
            *decisions = seat.share(&limit.connections, of);
        }
    }

    /// Moves what is due and makes room for what comes while no instance lives that would do it: a queue
    /// asleep at zero is woken by what this finds.
    async fn care(&mut self, seen: &Seen) {
        if !self.looks() {
            return;
        }
        let lives = seen.values().any(|queue| queue.stats.instances > 0);
        // What waits may be due, or be more than a limit allows.
        let waits = seen.values().map(|queue| &queue.stats).any(|stats| {
            [stats.available, stats.scheduled, stats.retryable, stats.due_soon].iter().any(|tasks| 0 < *tasks)
        });
        let every = if lives || waits { CARE_INTERVAL } else { QUIET_INTERVAL };
        let early = self.cared_at.is_some_and(|at| at.elapsed() < every);
        if early || self.trouble.is_some() {
            return;
        }
        self.cared_at = Some(Instant::now());
        let cared = if lives {
            // Instances may have fewer rights than it takes to clean.
            self.maintainer.maintain_partitions(&self.db, &mut MaintenanceReport::default()).await
        } else {
            // Not unbroken: who sends no heartbeats cannot know whether others could.
            self.maintainer.run_once(&self.db, None, None).await.map(drop)
        };
        match cared {
            Err(error) if self.care_fails.is_none_or(|said| SAY_EVERY <= said.elapsed()) => {
                self.care_fails = Some(Instant::now());
                tracing::warn!(%error, "maintenance failed; trying again");
            }
            Err(error) => tracing::debug!(%error, "maintenance failed; trying again"),
            Ok(()) if self.care_fails.take().is_some() => tracing::info!("maintenance works again"),
            Ok(()) => (),
        }
    }

    /// A queue for which there shall be a pod needs none of this: its instance listens for NOTIFY itself, or is about to look.
    async fn wait_for_sleepers(&mut self, seen: &Seen, decisions: &[Decision]) {
        let sleeps =
            |decision: &Decision| decision.pods_desired == 0 && decision.reason == Reason::MinWorkers;
        let queues = self.queues.iter().zip(decisions).filter(|(_, decision)| sleeps(decision));
        let mut asleep = queues.filter_map(|((name, _), _)| Some(seen.get(name)?.stats.queue)).collect();
        if let Some(seat) = &self.seat {
            asleep = seat.sleep(asleep);
        }
        if let Some(bell) = &mut self.bell {
            bell.wait_for(asleep, &self.db).await;
        }
    }

    fn note_trouble(&mut self, trouble: Option<Arc<Error>>) {
        match (&self.trouble, &trouble) {
            (None, Some(error)) => {
                tracing::warn!(%error, "nothing is known about the queues; their instances stay as they are");
            }
            (Some(_), None) => tracing::info!("the database answers again"),
            _ => (),
        }
        self.trouble = trouble;
    }

    fn view(&self, seen: &Seen, decisions: Vec<Decision>) -> View {
        let queues = self.queues.iter().zip(decisions).map(|((name, tended), decision)| QueueView {
            name: name.clone(),
            refused: tended.refused.clone(),
            owner: seen.get(name).map(|queue| queue.owner.clone()),
            stats: seen.get(name).map(|queue| queue.stats.clone()),
            instances: self.applier.instances(name),
            decision,
            limit: self.limits.current().cloned(),
            metrics: self.applier.metrics_addresses(name),
        });
        View {
            queues: queues.collect(),
            trouble: self.trouble.clone(),
            started_at: self.look.as_ref().map(|look| look.started_at),
        }
    }
}
