//! One poller for all controllers of a database, within one namespace. Each Secret has its own controller.
//! One of them polls the database and listens, for all of them. Each publishes how many pods its queues need,
//! so that they can share the database's connections.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rowlock_plan::{Connections, Decision, ObservedQueue, share};
use rowlock_queue::{Declared, Error, QueueId};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::observe::{OBSERVE_TIMEOUT, Snapshot, Whose, poll_interval_after, timed_out};
use crate::shortage::{Group, Holdings, held};

/// How long a snapshot taken by another controller may be reused: a little more than two ticks. A poller idle
/// for longer loses the role.
const SNAPSHOT_FRESH_FOR: Duration = Duration::from_secs(5);

/// What the controllers of one database share.
#[derive(Debug, Default)]
pub struct SharedPoller {
    state: Mutex<State>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    /// Locked during a poll: the other controllers wait for its snapshot.
    polling: tokio::sync::Mutex<()>,
    /// Notified when a queue of a controller that is not the poller has been scaled to zero.
    scaled_to_zero: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By the names of the controllers.
    demands: BTreeMap<String, Demand>,
    /// The owners of all queues that this operator manages, or will manage soon.
    owners: BTreeSet<String>,
    /// The name of the controller that polls and listens for all, and when it last polled.
    poller: Option<(String, Instant)>,
    failed: Option<FailedPoll>,
}

/// The last poll, if it failed.
#[derive(Debug)]
struct FailedPoll {
    /// The name of the controller that polled.
    controller: String,
    error: Arc<Error>,
    /// Until then no controller polls again. `None` until a second controller has failed too: the first may
    /// be the only one that cannot connect.
    until: Option<Instant>,
}

/// What the queues of one controller ask for.
#[derive(Debug, Default)]
struct Demand {
    /// The database user of the controller.
    user: Option<String>,
    queues: BTreeMap<String, QueueDemand>,
    /// The pods that they have or ask for, whichever are more, summed up.
    most: u32,
    /// Pods that stop or are being replaced.
    leaving: u32,
    scaled_to_zero: BTreeSet<QueueId>,
}

/// What one queue asks for.
#[derive(Debug, Clone)]
pub(crate) struct QueueDemand {
    /// The name of its `TaskQueue`.
    pub(crate) task_queue: String,
    pub(crate) observed: ObservedQueue,
    /// Before connections limit it.
    pub(crate) decision: Decision,
}

/// The instances of queues that a controller does not manage.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct OtherInstances {
    /// Those of other operators, or of this one in other namespaces.
    pub(crate) others: Group,
    /// Those of this operator that no controller has reported yet.
    pub(crate) unreported: u32,
}

/// A controller's membership in a shared poller. It ends on drop.
#[derive(Debug)]
pub struct Participant {
    shared: Arc<SharedPoller>,
    name: String,
    /// When the database's server was started, in microseconds since 1970.
    started_at: i64,
}

impl SharedPoller {
    /// Sets the owners of all queues that this operator manages, in any controller.
    pub fn set_owners(&self, owners: BTreeSet<String>) {
        self.state().owners = owners;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Participant {
    /// Joins as the controller of that name, which must be unique. `started_at`: when the server was started,
    /// the same for all participants.
    pub fn join(shared: &Arc<SharedPoller>, name: String, started_at: i64) -> Self {
        shared.state().demands.insert(name.clone(), Demand::default());
        Self { shared: Arc::clone(shared), name, started_at }
    }

    /// A snapshot of the database: the poller's last one, or a new one from `observe`. A new one is taken if
    /// this controller is the poller, or if the last one is old or was requested before `since`. Only one
    /// controller polls at a time. Returns `true` if this one did.
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
        // Another controller has polled meanwhile.
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
                // A snapshot of another server is no use to the other controllers.
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
                let controller = self.name.clone();
                state.failed = Some(FailedPoll { controller, error: Arc::clone(&error), until });
                // Another controller may succeed.
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

    /// Whether this controller is the poller. It becomes the poller if no other has polled lately.
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

    /// Whether this controller is the poller.
    pub(crate) fn is_poller(&self) -> bool {
        self.shared.state().poller.as_ref().is_some_and(|(name, _)| *name == self.name)
    }

    /// For the poller, returns when a queue of another controller has been scaled to zero. For the others,
    /// returns when there is a snapshot newer than `since`.
    pub(crate) async fn woken(&self, since: Option<Instant>) {
        let since = since.unwrap_or_else(Instant::now);
        let mut snapshots = self.shared.snapshots.subscribe();
        if self.is_poller() {
            self.shared.scaled_to_zero.notified().await;
        } else {
            let newer = |snapshot: &Option<Arc<Snapshot>>| {
                snapshot.as_ref().is_some_and(|snapshot| since < snapshot.requested_at)
            };
            // This fails only if the shared poller has been dropped, but this participant references it.
            let _ = snapshots.wait_for(newer).await;
        }
    }

    /// Counts the running instances of queues that are not this controller's, unless another controller
    /// reports them.
    pub(crate) fn count_other_instances<'a>(
        &self,
        elsewhere: impl Iterator<Item = &'a Declared>,
    ) -> OtherInstances {
        let state = self.shared.state();
        let reported: BTreeSet<&String> =
            state.demands.values().flat_map(|demand| demand.queues.keys()).collect();
        let (mut others, mut unreported) = (Group::default(), Group::default());
        for queue in elsewhere.filter(|queue| !reported.contains(&queue.stats.name)) {
            let whose = if state.owners.contains(&queue.owner) { &mut unreported } else { &mut others };
            whose.add(queue.stats.instances);
        }
        OtherInstances { others, unreported: unreported.pods }
    }

    /// Whether a controller of this operator manages the queue, or will manage it soon.
    pub(crate) fn whose(&self, queue: &Declared) -> Whose {
        let state = self.shared.state();
        if state.demands.values().any(|demand| demand.queues.contains_key(&queue.stats.name)) {
            Whose::Managed
        } else if state.owners.contains(&queue.owner) {
            Whose::Ours
        } else {
            Whose::Others
        }
    }

    /// Publishes what the queues of this controller ask for before connections limit it, and its database
    /// user.
    pub(crate) fn publish_demand(
        &self,
        user: Option<&str>,
        queues: impl Iterator<Item = (String, QueueDemand)>,
        leaving: u32,
    ) {
        let queues: BTreeMap<String, QueueDemand> = queues.collect();
        let most = queues.values().map(|queue| queue.observed.pods.max(queue.decision.pods_desired));
        let most = most.fold(0, u32::saturating_add);
        let user = user.map(str::to_owned);
        let mut state = self.shared.state();
        let demand = state.demands.entry(self.name.clone()).or_default();
        (demand.user, demand.queues, demand.most, demand.leaving) = (user, queues, most, leaving);
    }

    /// Publishes which queues of this controller are scaled to zero. Returns those of all participants.
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

    /// The pods that stop or are being replaced, of all controllers or of those with one database user.
    pub(crate) fn leaving(&self, of: Option<&str>) -> u32 {
        let state = self.shared.state();
        state.demands.values().filter(|demand| demand.is_of(of)).map(|demand| demand.leaving).sum()
    }

    /// The decisions for the queues of this controller, in the order of their names, lowered to what the
    /// connections allow. Connections are shared among all controllers, or among those with one database
    /// user. Each controller computes the same shares. And what all of them hold, if that is a limit.
    pub(crate) fn shares(&self, connections: &Connections, of: Option<&str>) -> (Vec<Decision>, Holdings) {
        let state = self.shared.state();
        let those = || state.demands.values().filter(|demand| demand.is_of(of));
        let most = those().map(|demand| demand.most).fold(connections.leaving, u32::saturating_add);
        if most <= connections.pods()
            && let Some(own) = state.demands.get(&self.name)
        {
            // There is room for everything: no controller needs to look through the queues of all others.
            let decisions = own.queues.values().map(|queue| queue.decision.clone()).collect();
            return (decisions, Holdings::default());
        }
        let all: BTreeMap<_, _> = state
            .demands
            .iter()
            .filter(|(_, demand)| demand.is_of(of))
            .flat_map(|(participant, demand)| {
                demand.queues.iter().map(move |(queue, queue_demand)| ((queue, participant), queue_demand))
            })
            .collect();
        let (observed, mut decisions): (Vec<_>, Vec<_>) =
            all.values().map(|queue| (queue.observed.clone(), queue.decision.clone())).unzip();
        share(connections, &observed, &mut decisions);
        let held = observed.iter().zip(&decisions).map(|(queue, decision)| held(queue, decision));
        let holdings = Holdings::of(all.values().map(|queue| queue.task_queue.as_str()).zip(held));
        let of = all.keys().zip(decisions);
        let own = of.filter(|((_, participant), _)| **participant == self.name);
        (own.map(|(_, decision)| decision).collect(), holdings)
    }
}

impl State {
    /// Makes another controller the poller, if this one is.
    fn resign(&mut self, name: &str) {
        self.poller.take_if(|(poller, _)| poller == name);
    }
}

impl FailedPoll {
    /// Whether more than one controller has failed, if the controller of that name fails now.
    fn failed_again(&self, name: &str) -> bool {
        self.controller != name || self.until.is_some()
    }

    /// The error, while no controller polls again.
    fn holds(&self, now: Instant) -> Option<Arc<Error>> {
        self.until.filter(|until| now < *until).map(|_| Arc::clone(&self.error))
    }
}

impl Demand {
    /// Whether the controller connects as that user; `None` is any user.
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
#[cfg(test)]
pub(crate) use tests::declared;
