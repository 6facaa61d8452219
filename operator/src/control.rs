//! The loop's one step. It knows nothing of why it runs, and checks every property each time.

use crate::applier::{Applier, Intent};
use crate::declaration::declaration;
use crate::observe::{backlog, observe};
use crate::view::{QueueView, View};
use rowlock_crds::Manifest;
use rowlock_plan::{Decision, Memory, ObservedQueue, decide};
use rowlock_queue::{Caretaker, Db, Error, QueueStats};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks, however long they take: a queue asleep waits no longer for its first instance.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// How often the caretaker works here while no instance lives that would do it.
const CARE_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps the workers of all queues of one database right.
#[expect(missing_debug_implementations, reason = "a database handle has nothing to show, and a URL to hide")]
pub struct Operator<A> {
    db: Db,
    applier: A,
    owner: String,
    queues: BTreeMap<String, Tended>,
    caretaker: Caretaker,
    cared_at: Option<Instant>,
    /// What the last look at the queues took.
    counting: Duration,
    since: Instant,
    trouble: Option<Arc<Error>>,
}

struct Tended {
    manifest: Manifest,
    owner: String,
    generation: i64,
    /// The generation the database was told last.
    declared: Option<i64>,
    /// Why it could not be told, so that this is logged once.
    refused: Option<Arc<Error>>,
    memory: Memory,
    reason: Option<(u32, &'static str)>,
}

impl<A: Applier> Operator<A> {
    /// `owner` is written beside each queue: another owner's queue is left alone.
    pub fn new(db: Db, applier: A, owner: &str) -> Self {
        Self {
            db,
            applier,
            owner: owner.to_owned(),
            queues: BTreeMap::new(),
            caretaker: Caretaker::new(),
            cared_at: None,
            counting: Duration::ZERO,
            since: Instant::now(),
            trouble: None,
        }
    }

    /// What shall be from now on. `generation` grows with every change.
    pub fn set_manifests(&mut self, manifests: Vec<Manifest>, generation: i64) {
        let owner = self.owner.clone();
        self.set_each(manifests.into_iter().map(|manifest| (manifest, generation, owner.clone())));
    }

    /// The same, for manifests that each have a generation and an owner of their own.
    pub fn set_each(&mut self, manifests: impl IntoIterator<Item = (Manifest, i64, String)>) {
        let mut before = std::mem::take(&mut self.queues);
        for (manifest, generation, owner) in manifests {
            let name = manifest.queue_name().to_owned();
            let tended = match before.remove(&name) {
                Some(old) if old.manifest == manifest && old.owner == owner => old,
                old => Tended {
                    manifest,
                    owner,
                    generation,
                    declared: None,
                    refused: None,
                    memory: old.map(|old| old.memory).unwrap_or_default(),
                    reason: None,
                },
            };
            self.queues.insert(name, tended);
        }
        for queue in before.keys() {
            tracing::warn!(%queue, "declared nowhere any more: its instances drain; its tasks are kept, and wait until it is again");
        }
    }

    /// The same database by another address, or another one: every queue is declared to it anew.
    pub fn set_db(&mut self, db: Db) {
        self.db = db;
        self.queues.values_mut().for_each(|tended| tended.declared = None);
    }

    pub fn applier_mut(&mut self) -> &mut A {
        &mut self.applier
    }

    /// Observe, plan, apply: once, for all queues.
    pub async fn reconcile(&mut self) -> View {
        self.declare().await;
        let asked = Instant::now();
        let observed = observe(&self.db).await;
        self.counting = asked.elapsed();
        let (stats, trouble) = match observed {
            Ok(stats) => (stats, None),
            Err(error) => (BTreeMap::new(), Some(Arc::new(error))),
        };
        self.note_trouble(trouble);
        self.care(&stats).await;
        let now = self.since.elapsed();
        let mut decisions = Vec::with_capacity(self.queues.len());
        for (name, tended) in &mut self.queues {
            let pods = self.applier.instances(name);
            let decision = tended.plan(stats.get(name), pods, now);
            decisions.push(decision);
        }
        let intents: Vec<Intent<'_>> = self
            .queues
            .values()
            .zip(&decisions)
            .map(|(tended, decision)| Intent { manifest: &tended.manifest, pods: decision.pods_desired })
            .collect();
        self.applier.apply(&intents).await;
        self.view(&stats, decisions)
    }

    /// How long to wait, at least, before the next look: counting a backlog of millions takes its time, and shall take no more than a
    /// twentieth of it.
    pub fn rest(&self) -> Duration {
        (self.counting * 19).min(LONGEST_REST)
    }

    /// Stops all instances in order and waits for them.
    pub async fn drain(&mut self) {
        self.applier.drain().await;
    }

    /// Stops all instances without letting them finish what they do, and waits for them.
    pub async fn end_now(&mut self) {
        self.applier.end_now().await;
    }

    /// Tells the database of each queue that it does not know yet as it is declared now.
    async fn declare(&mut self) {
        for (name, tended) in &mut self.queues {
            if tended.declared == Some(tended.generation) {
                continue;
            }
            let declaration = declaration(&tended.manifest, &tended.owner, tended.generation);
            match rowlock_queue::declare(&self.db, &declaration).await {
                Ok(_) => {
                    tended.declared = Some(tended.generation);
                    tended.refused = None;
                }
                Err(error) => {
                    let known =
                        tended.refused.as_ref().is_some_and(|known| known.to_string() == error.to_string());
                    if !known {
                        tracing::error!(queue = %name, %error, "the queue cannot be declared; trying again");
                        tended.refused = Some(Arc::new(error));
                    }
                }
            }
        }
    }

    /// Moves what is due and makes room for what comes while no instance lives that would do it: a queue
    /// asleep at zero is woken by what this finds.
    async fn care(&mut self, stats: &BTreeMap<String, QueueStats>) {
        let lives = stats.values().any(|queue| queue.instances > 0);
        let early = self.cared_at.is_some_and(|at| at.elapsed() < CARE_INTERVAL);
        if lives || early || self.trouble.is_some() {
            return;
        }
        self.cared_at = Some(Instant::now());
        // Not unbroken: who does not beat cannot know whether others could.
        if let Err(error) = self.caretaker.run_once(&self.db, None, None).await {
            tracing::warn!(%error, "caretaking failed; trying again");
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

    fn view(&self, stats: &BTreeMap<String, QueueStats>, decisions: Vec<Decision>) -> View {
        let queues = self.queues.iter().zip(decisions).map(|((name, tended), decision)| QueueView {
            name: name.clone(),
            refused: tended.refused.clone(),
            stats: stats.get(name).cloned(),
            instances: self.applier.instances(name),
            decision,
            metrics: self.applier.metrics_addresses(name),
        });
        View { queues: queues.collect(), trouble: self.trouble.clone() }
    }
}

impl Tended {
    /// Whether the queue of that name belongs to another owner: no worker of ours shall do its tasks.
    fn is_anothers(&self) -> bool {
        matches!(self.refused.as_deref(), Some(Error::Refused { code, .. }) if code == rowlock_queue::NOT_THE_OWNER)
    }

    fn plan(&mut self, stats: Option<&QueueStats>, pods: u32, now: Duration) -> Decision {
        let mut observed =
            ObservedQueue { pods, stats: stats.map(backlog), ..ObservedQueue::of(&self.manifest.spec) };
        if self.is_anothers() {
            (observed.total, observed.suspend_scaling) = (0, false);
        }
        let decision = decide(&observed, std::mem::take(&mut self.memory), now);
        self.memory = decision.memory.clone();
        let reason = Some((decision.pods_desired, decision.reason.as_str()));
        if self.reason != reason {
            let queue = self.manifest.queue_name();
            if decision.pods_desired == pods {
                tracing::debug!(queue, "{decision}");
            } else {
                tracing::info!(queue, "{decision}");
            }
            self.reason = reason;
        }
        decision
    }
}
