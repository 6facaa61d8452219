//! One poller for all controllers of a database, within one namespace. Each Secret has a controller of its
//! own; one of them polls the database and listens for all, and they publish what their queues ask for, so
//! that all of them share its connections.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rowlock_plan::{Connections, Decision, ObservedQueue, share};
use rowlock_queue::{Declared, Error, QueueId};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::observe::{OBSERVE_TIMEOUT, Snapshot, poll_interval_after, timed_out};

/// How long a snapshot taken by another controller may be reused: two ticks and a bit. A poller idle for
/// longer loses the role.
const SNAPSHOT_FRESH_FOR: Duration = Duration::from_secs(5);

/// A database, for the controllers of its queues.
#[derive(Debug, Default)]
pub struct SharedPoller {
    state: Mutex<State>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    /// Held during a poll: all others wait for its snapshot.
    polling: tokio::sync::Mutex<()>,
    /// A queue has been scaled to zero.
    scaled_to_zero: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By the names of the controllers.
    demands: BTreeMap<String, Demand>,
    /// Whose queues some controller here manages, or is about to.
    owners: BTreeSet<String>,
    /// The controller that polls and listens for all of them, and when it polled last.
    poller: Option<(String, Instant)>,
    failed: Option<FailedPoll>,
}

/// The error that the last controller got in place of a snapshot.
#[derive(Debug)]
struct FailedPoll {
    /// The controller.
    who: String,
    error: Arc<Error>,
    /// So long nobody asks again, where two of them failed: one alone may have a reason of its own.
    until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Demand {
    user: Option<String>,
    queues: BTreeMap<String, (ObservedQueue, Decision)>,
    leaving: u32,
    scaled_to_zero: BTreeSet<QueueId>,
}

/// A controller's part in a shared poller; given up when dropped.
#[derive(Debug)]
pub struct Participant {
    shared: Arc<SharedPoller>,
    name: String,
    /// When the server of this poller was started.
    started_at: i64,
}

impl SharedPoller {
    /// Whose queues are managed by us, in this controller or another.
    pub fn set_owners(&self, owners: BTreeSet<String>) {
        self.state().owners = owners;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Participant {
    /// Joins as the controller of that name, which no other has. `started_at`: when the server was started,
    /// the same for all participants.
    pub fn join(shared: &Arc<SharedPoller>, name: String, started_at: i64) -> Self {
        shared.state().demands.insert(name.clone(), Demand::default());
        Self { shared: Arc::clone(shared), name, started_at }
    }

    /// A snapshot of the database: the poller's, or one that this controller takes by `observe`, where it is
    /// the poller, or that snapshot is old, or was requested before `since`. Only one asks at a time. `true`:
    /// this one did.
    ///
    /// # Errors
    /// The error of the last poll, if it failed.
    pub(crate) async fn snapshot(
        &self,
        since: Option<Instant>,
        observe: impl Future<Output = Result<Snapshot, Error>>,
    ) -> (Result<Arc<Snapshot>, Arc<Error>>, bool) {
        let now = Some(Instant::now());
        let wanted = if self.try_become_poller() { now } else { since };
        if let Some(seen) = self.fresh_snapshot(wanted) {
            return (Ok(seen), false);
        }
        let Ok(_polling) = timeout(OBSERVE_TIMEOUT, self.shared.polling.lock()).await else {
            return (Err(Arc::new(timed_out())), false);
        };
        // Somebody else was at it.
        if let Some(seen) = self.fresh_snapshot(wanted) {
            return (Ok(seen), false);
        }
        let requested_at = Instant::now();
        if let Some(error) = self.shared.state().failed.as_ref().and_then(|failed| failed.holds(requested_at))
        {
            return (self.fresh_snapshot(since).ok_or(error), false);
        }
        match observe.await {
            Ok(seen) => {
                let seen = Arc::new(seen);
                // Of another server: of no use to the others here.
                if seen.started_at == self.started_at {
                    self.seen(&seen);
                } else {
                    self.shared.state().resign(&self.name);
                }
                (Ok(seen), true)
            }
            Err(error) => {
                let error = Arc::new(error);
                let mut state = self.shared.state();
                let failed_again = state.failed.take().is_some_and(|failed| failed.failed_again(&self.name));
                let until = (failed_again && error.is_transient())
                    .then(|| Instant::now() + poll_interval_after(requested_at.elapsed()));
                state.failed = Some(FailedPoll { who: self.name.clone(), error: Arc::clone(&error), until });
                // Another may have more luck.
                state.resign(&self.name);
                (Err(error), true)
            }
        }
    }

    fn seen(&self, snapshot: &Arc<Snapshot>) {
        let mut state = self.shared.state();
        state.failed = None;
        if let Some((_, at)) = state.poller.as_mut().filter(|(name, _)| *name == self.name) {
            *at = Instant::now();
        }
        drop(state);
        self.shared.snapshots.send_replace(Some(Arc::clone(snapshot)));
    }

    /// The last snapshot, while it is fresh.
    fn fresh_snapshot(&self, since: Option<Instant>) -> Option<Arc<Snapshot>> {
        let last = self.shared.snapshots.borrow().clone()?;
        let is_fresh =
            last.requested_at.elapsed() < last.took * 2 + last.poll_interval() + SNAPSHOT_FRESH_FOR;
        (is_fresh && since.is_none_or(|since| since <= last.requested_at)).then_some(last)
    }

    /// Whether this controller polls for all; it becomes the poller where no other has polled lately.
    fn try_become_poller(&self) -> bool {
        let rest = self
            .shared
            .snapshots
            .borrow()
            .as_ref()
            .map_or(Duration::ZERO, |snapshot| snapshot.poll_interval());
        let mut state = self.shared.state();
        let lately =
            |(name, at): &(String, Instant)| *name != self.name && at.elapsed() < SNAPSHOT_FRESH_FOR + rest;
        if !state.poller.as_ref().is_some_and(lately) {
            state.poller = Some((self.name.clone(), Instant::now()));
        }
        state.poller.as_ref().is_some_and(|(name, _)| *name == self.name)
    }

    /// Whether this controller polls for all.
    pub(crate) fn is_poller(&self) -> bool {
        self.shared.state().poller.as_ref().is_some_and(|(name, _)| *name == self.name)
    }

    /// Returns when there is something to do: for the poller, when a queue of another was scaled to zero; for
    /// others, when there is a snapshot newer than `since`.
    pub(crate) async fn woken(&self, since: Option<Instant>) {
        let since = since.unwrap_or_else(Instant::now);
        let mut snapshots = self.shared.snapshots.subscribe();
        if self.is_poller() {
            self.shared.scaled_to_zero.notified().await;
        } else {
            let newer = |snapshot: &Option<Arc<Snapshot>>| {
                snapshot.as_ref().is_some_and(|snapshot| since < snapshot.requested_at)
            };
            // It fails only when the shared poller is gone, which this participant keeps.
            let _ = snapshots.wait_for(newer).await;
        }
    }

    /// Of these queues, which are not this controller's: how many instances live for others than us, and how
    /// many for controllers here that have not reported them yet, or cannot.
    pub(crate) fn count_other_instances<'a>(
        &self,
        elsewhere: impl Iterator<Item = &'a Declared>,
    ) -> (i64, i64) {
        let state = self.shared.state();
        let reported: BTreeSet<&String> =
            state.demands.values().flat_map(|demand| demand.queues.keys()).collect();
        elsewhere.filter(|queue| !reported.contains(&queue.stats.name)).fold(
            (0, 0),
            |(others, unreported), queue| {
                let live = queue.stats.instances;
                // A server may say any number.
                if state.owners.contains(&queue.owner) {
                    (others, unreported.saturating_add(live))
                } else {
                    (others.saturating_add(live), unreported)
                }
            },
        )
    }

    /// Whether a loop here tends that queue, or is about to.
    pub(crate) fn is_ours(&self, queue: &Declared) -> bool {
        let state = self.shared.state();
        state.owners.contains(&queue.owner)
            || state.demands.values().any(|demand| demand.queues.contains_key(&queue.stats.name))
    }

    /// Publishes what is asked for here, by which user, before connections limit it.
    pub(crate) fn publish_demand<'a>(
        &self,
        user: Option<&str>,
        queues: impl Iterator<Item = (&'a String, (&'a ObservedQueue, &'a Decision))>,
        leaving: u32,
    ) {
        let queues =
            queues.map(|(name, (observed, decision))| (name.clone(), (observed.clone(), decision.clone())));
        let queues = queues.collect();
        let mut state = self.shared.state();
        let demand = state.demands.entry(self.name.clone()).or_default();
        (demand.user, demand.queues, demand.leaving) = (user.map(str::to_owned), queues, leaving);
    }

    /// Publishes which queues are scaled to zero here; returns those of all participants.
    pub(crate) fn publish_scaled_to_zero(&self, here: BTreeSet<QueueId>) -> BTreeSet<QueueId> {
        let mut state = self.shared.state();
        let demand = state.demands.entry(self.name.clone()).or_default();
        let more = !here.is_subset(&demand.scaled_to_zero);
        demand.scaled_to_zero = here;
        let all = state.demands.values().flat_map(|demand| &demand.scaled_to_zero).copied().collect();
        drop(state);
        if more && !self.is_poller() {
            self.shared.scaled_to_zero.notify_one();
        }
        all
    }

    /// Pods that are leaving, over all controllers, or those of one user.
    pub(crate) fn leaving(&self, of: Option<&str>) -> u32 {
        let state = self.shared.state();
        state.demands.values().filter(|demand| demand.is_of(of)).map(|demand| demand.leaving).sum()
    }

    /// What connections leave of what was asked for here, in the order of the queues' names: every controller
    /// comes to the same. Over all controllers, or those of one user.
    pub(crate) fn shares(&self, connections: &Connections, of: Option<&str>) -> Vec<Decision> {
        let state = self.shared.state();
        let all: BTreeMap<_, _> = state
            .demands
            .iter()
            .filter(|(_, demand)| demand.is_of(of))
            .flat_map(|(participant, demand)| {
                demand.queues.iter().map(move |(queue, queue_demand)| ((queue, participant), queue_demand))
            })
            .collect();
        let (observed, mut decisions): (Vec<_>, Vec<_>) =
            all.values().map(|queue_demand| (*queue_demand).clone()).unzip();
        share(connections, &observed, &mut decisions);
        let of = all.keys().zip(decisions);
        of.filter(|((_, participant), _)| **participant == self.name).map(|(_, decision)| decision).collect()
    }
}

impl State {
    /// Leaves polling to another.
    fn resign(&mut self, name: &str) {
        self.poller.take_if(|(poller, _)| poller == name);
    }
}

impl FailedPoll {
    /// Whether this one is not the first controller that failed.
    fn failed_again(&self, name: &str) -> bool {
        self.who != name || self.until.is_some()
    }

    fn holds(&self, now: Instant) -> Option<Arc<Error>> {
        self.until.filter(|until| now < *until).map(|_| Arc::clone(&self.error))
    }
}

impl Demand {
    fn is_of(&self, user: Option<&str>) -> bool {
        user.is_none() || self.user.as_deref() == user
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.demands.remove(&self.name);
        state.resign(&self.name);
    }
}

#[cfg(test)]
mod tests;
