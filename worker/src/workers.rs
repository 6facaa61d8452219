//! Who works: the allocation in force, the workers it leaves free, the runs in progress.
//!
//! One lock over all of it, so that what a heartbeat says is a snapshot: a worker promised to a claim in flight
//! counts as held, else the queue would grant it to somebody else as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rowlock_queue::TaskId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(crate) struct Workers {
    capacity: u32,
    state: Mutex<State>,
    /// Wakes the claimer: a worker got free, a NOTIFY arrived, a heartbeat brought news.
    pub(crate) wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    allocation: i64,
    allowed: u32,
    paused: bool,
    draining: bool,
    held: u32,
    rest: Rest,
    runs: HashMap<TaskId, CancellationToken>,
}

/// Whether the claimer had found nothing to do, as far as the next heartbeat is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    #[default]
    Busy,
    /// Works again, but no heartbeat has said yet that it did not.
    WasIdle,
    Idle,
}

/// What one heartbeat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) held: u32,
    pub(crate) wants: u32,
    pub(crate) acknowledged: i64,
    pub(crate) sleeps: bool,
    pub(crate) allowed: u32,
}

/// One worker at work; dropping it frees the worker.
#[derive(Debug)]
pub(crate) struct Busy {
    workers: Arc<Workers>,
    task: TaskId,
    stop: CancellationToken,
}

impl Workers {
    pub(crate) fn new(capacity: u32) -> Arc<Self> {
        Arc::new(Self { capacity, state: Mutex::default(), wake: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes every free worker, up to `most`, for a claim that is about to be sent. Zero: none to give.
    pub(crate) fn reserve(&self, most: u32) -> u32 {
        let mut state = self.state();
        if state.paused || state.draining {
            return 0;
        }
        let free = state.allowed.min(self.capacity).saturating_sub(state.held).min(most);
        state.held += free;
        free
    }

    /// Gives back what a claim did not fill.
    pub(crate) fn unreserve(&self, workers: u32) {
        let mut state = self.state();
        state.held = state.held.saturating_sub(workers);
    }

    /// Turns one reserved worker into one at work. The run ends when `parent` or a cancel says so.
    pub(crate) fn start(self: &Arc<Self>, task: TaskId, parent: &CancellationToken) -> Busy {
        let stop = parent.child_token();
        let mut state = self.state();
        state.runs.insert(task, stop.clone());
        if state.rest == Rest::Idle {
            state.rest = Rest::WasIdle;
        }
        drop(state);
        Busy { workers: Arc::clone(self), task, stop }
    }

    /// Stops one run, if it is still in progress.
    pub(crate) fn stop(&self, task: TaskId) -> bool {
        let state = self.state();
        let run = state.runs.get(&task);
        if let Some(stop) = run {
            stop.cancel();
        }
        run.is_some()
    }

    /// The claimer found nothing to do. True when that is news: nobody sends NOTIFY for us until a heartbeat said so.
    pub(crate) fn fall_idle(&self) -> bool {
        let mut state = self.state();
        let news = state.rest == Rest::Busy;
        state.rest = Rest::Idle;
        news
    }

    pub(crate) fn drain(&self) {
        self.state().draining = true;
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.state().draining
    }

    /// A consistent picture for one heartbeat. An allocation counts as acknowledged from here on, because every
    /// claim that was reserved under an older one is in `held`.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut state = self.state();
        let sleeps = state.rest != Rest::Busy;
        if state.rest == Rest::WasIdle {
            state.rest = Rest::Busy;
        }
        Snapshot {
            held: state.held,
            wants: if state.draining { 0 } else { self.capacity },
            acknowledged: state.allocation,
            sleeps,
            allowed: state.allowed,
        }
    }

    /// Running, allowed and possible, for the metrics.
    pub(crate) fn counts(&self) -> (usize, u32, u32) {
        let state = self.state();
        (state.runs.len(), state.allowed, self.capacity)
    }

    /// Puts an allocation in force: a smaller one interrupts nobody, it only starts nothing new.
    pub(crate) fn allocate(&self, allocation: i64, allowed: u32, paused: bool) {
        let mut state = self.state();
        let more = state.allowed < allowed || (state.paused && !paused);
        state.allocation = allocation;
        state.allowed = allowed;
        state.paused = paused;
        drop(state);
        if more {
            self.wake.notify_one();
        }
    }
}

impl Busy {
    pub(crate) fn task(&self) -> TaskId {
        self.task
    }

    pub(crate) fn stopped(&self) -> &CancellationToken {
        &self.stop
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.workers.state();
        state.runs.remove(&self.task);
        state.held = state.held.saturating_sub(1);
        drop(state);
        self.workers.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: i64) -> TaskId {
        id.to_string().parse().unwrap()
    }

    #[test]
    fn claims_never_exceed_allocation_nor_capacity() {
        let workers = Workers::new(4);
        assert_eq!(workers.reserve(1000), 0, "nothing is allocated before the first heartbeat");
        workers.allocate(1, 9, false);
        assert_eq!(workers.reserve(1000), 4);
        assert_eq!(workers.reserve(1000), 0);
        workers.unreserve(4);
        workers.allocate(2, 3, false);
        assert_eq!(workers.reserve(2), 2);
        assert_eq!(workers.reserve(1000), 1);
    }

    #[test]
    fn a_shrunk_allocation_starts_nothing_and_interrupts_nobody() {
        let workers = Workers::new(4);
        workers.allocate(1, 2, false);
        assert_eq!(workers.reserve(2), 2);
        let root = CancellationToken::new();
        let first = workers.start(task(1), &root);
        let second = workers.start(task(2), &root);
        workers.allocate(2, 1, false);
        let snapshot = workers.snapshot();
        assert_eq!((snapshot.held, snapshot.acknowledged), (2, 2));
        drop(first);
        assert_eq!(workers.reserve(2), 0);
        assert!(!second.stopped().is_cancelled());
        drop(second);
        assert_eq!(workers.reserve(2), 1);
    }

    #[test]
    fn a_claim_in_flight_counts_as_held() {
        let workers = Workers::new(4);
        workers.allocate(1, 4, false);
        workers.reserve(3);
        workers.allocate(2, 0, false);
        assert_eq!(workers.snapshot().held, 3);
    }

    #[test]
    fn pausing_and_draining_stop_claims() {
        let workers = Workers::new(4);
        workers.allocate(1, 4, true);
        assert_eq!(workers.reserve(1), 0);
        workers.allocate(1, 4, false);
        workers.drain();
        assert_eq!(workers.reserve(1), 0);
        assert_eq!(workers.snapshot().wants, 0);
    }

    #[test]
    fn falling_idle_is_news_once_until_a_heartbeat_was_busy() {
        let workers = Workers::new(4);
        workers.allocate(1, 4, false);
        assert!(workers.fall_idle());
        assert!(workers.snapshot().sleeps);
        assert!(!workers.fall_idle(), "a poll that finds nothing is no news");
        workers.reserve(1);
        let busy = workers.start(task(1), &CancellationToken::new());
        assert!(workers.snapshot().sleeps, "it had a free worker since the last heartbeat");
        assert!(!workers.snapshot().sleeps);
        drop(busy);
        assert!(workers.fall_idle());
    }

    #[test]
    fn a_cancel_stops_only_its_run() {
        let workers = Workers::new(4);
        workers.allocate(1, 4, false);
        workers.reserve(2);
        let root = CancellationToken::new();
        let (first, second) = (workers.start(task(1), &root), workers.start(task(2), &root));
        assert!(workers.stop(task(1)));
        assert!(!workers.stop(task(3)));
        assert!(first.stopped().is_cancelled() && !second.stopped().is_cancelled());
    }
}
