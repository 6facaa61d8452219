//! The slots of this instance: its allocation, free slots and attempts in progress.
//!
//! One lock protects all of it, so that a heartbeat reports a consistent snapshot. A slot reserved for a
//! claim in flight counts as held; otherwise the queue would grant it to another instance as well.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rowlock_queue::TaskId;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(crate) struct Slots {
    capacity: u32,
    state: Mutex<State>,
    /// Wakes the claimer: a slot became free, a NOTIFY arrived, or a heartbeat reported tasks or slots.
    pub(crate) wake: Notify,
    /// Wakes the task that waits to be alone: a slot became free, or the instance drains.
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    allocation: i64,
    allocated: u32,
    paused: bool,
    draining: bool,
    /// One task is to run alone: nothing else may start.
    alone: bool,
    held: u32,
    idleness: Idleness,
    attempts: HashMap<TaskId, CancellationToken>,
}

/// Whether the next heartbeat reports this instance as idle, which means that its claimer found nothing to
/// do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Idleness {
    #[default]
    Busy,
    /// Busy again, but no heartbeat has reported the idle time yet.
    WasIdle,
    Idle,
}

/// What one heartbeat reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) held: u32,
    pub(crate) wants: u32,
    pub(crate) acknowledged: i64,
    pub(crate) idle: bool,
    pub(crate) allocated: u32,
}

/// An occupied slot; dropping it frees the slot.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    task: TaskId,
    stop: CancellationToken,
}

/// While this exists, nothing is claimed.
#[derive(Debug)]
pub(crate) struct Alone(Arc<Slots>);

impl Slots {
    pub(crate) fn new(capacity: u32) -> Arc<Self> {
        Arc::new(Self { capacity, state: Mutex::default(), wake: Notify::new(), freed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves every free slot, up to `most`, for a claim that is about to be sent.
    pub(crate) fn reserve(&self, most: u32) -> u32 {
        let mut state = self.state();
        if state.paused || state.draining || state.alone {
            return 0;
        }
        let free = state.allocated.min(self.capacity).saturating_sub(state.held).min(most);
        state.held += free;
        free
    }

    /// Frees reserved slots that a claim did not fill.
    pub(crate) fn unreserve(&self, slots: u32) {
        let mut state = self.state();
        state.held = state.held.saturating_sub(slots);
    }

    /// Turns one reserved slot into an occupied one. Cancelling `parent` or the task stops the attempt.
    pub(crate) fn start(self: &Arc<Self>, task: TaskId, parent: &CancellationToken) -> Slot {
        let stop = parent.child_token();
        let mut state = self.state();
        state.attempts.insert(task, stop.clone());
        if state.idleness == Idleness::Idle {
            state.idleness = Idleness::WasIdle;
        }
        drop(state);
        Slot { slots: Arc::clone(self), task, stop }
    }

    /// Prevents every claim until the returned value is dropped, so that one task can run alone.
    pub(crate) fn alone(self: &Arc<Self>) -> Alone {
        self.state().alone = true;
        Alone(Arc::clone(self))
    }

    /// Waits until all slots but one are free. False: the instance drains before that, or it takes too long.
    pub(crate) async fn wait_until_alone(&self, limit: Duration) -> bool {
        timeout(limit, self.until_alone()).await.unwrap_or(false)
    }

    async fn until_alone(&self) -> bool {
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            {
                let state = self.state();
                if state.draining {
                    return false;
                }
                if state.held <= 1 {
                    return true;
                }
            }
            freed.await;
        }
    }

    /// Stops one attempt, if it is still in progress.
    pub(crate) fn stop(&self, task: TaskId) -> bool {
        let state = self.state();
        let attempt = state.attempts.get(&task);
        if let Some(stop) = attempt {
            stop.cancel();
        }
        attempt.is_some()
    }

    /// The claimer found nothing to do. Returns true if the instance was busy before: producers send a NOTIFY
    /// only after a heartbeat has reported an idle instance.
    pub(crate) fn mark_idle(&self) -> bool {
        let mut state = self.state();
        let was_busy = state.idleness == Idleness::Busy;
        state.idleness = Idleness::Idle;
        was_busy
    }

    pub(crate) fn drain(&self) {
        self.state().draining = true;
        self.freed.notify_waiters();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.state().draining
    }

    /// A consistent snapshot for one heartbeat. It acknowledges the allocation, because `held` contains every
    /// slot that a claim reserved under an older one.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut state = self.state();
        let idle = state.idleness != Idleness::Busy;
        if state.idleness == Idleness::WasIdle {
            state.idleness = Idleness::Busy;
        }
        Snapshot {
            held: state.held,
            wants: if state.draining { 0 } else { self.capacity },
            acknowledged: state.allocation,
            idle,
            allocated: state.allocated,
        }
    }

    /// Running tasks, allocated slots and capacity, for the metrics.
    pub(crate) fn counts(&self) -> (usize, u32, u32) {
        let state = self.state();
        (state.attempts.len(), state.allocated, self.capacity)
    }

    /// Applies an allocation. A smaller one interrupts no attempt; it only prevents new ones.
    pub(crate) fn allocate(&self, allocation: i64, allocated: u32, paused: bool) {
        let mut state = self.state();
        let more = state.allocated < allocated || (state.paused && !paused);
        state.allocation = allocation;
        state.allocated = allocated;
        state.paused = paused;
        drop(state);
        if more {
            self.wake.notify_one();
        }
    }
}

impl Slot {
    pub(crate) fn task(&self) -> TaskId {
        self.task
    }

    pub(crate) fn stopped(&self) -> &CancellationToken {
        &self.stop
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        state.attempts.remove(&self.task);
        state.held = state.held.saturating_sub(1);
        drop(state);
        self.slots.wake.notify_one();
        self.slots.freed.notify_waiters();
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.state().alone = false;
        self.0.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    fn task(id: i64) -> TaskId {
        id.to_string().parse().unwrap()
    }

    #[test]
    fn claims_exceed_neither_allocation_nor_capacity() {
        let slots = Slots::new(4);
        assert_eq!(slots.reserve(1000), 0, "nothing is allocated before the first heartbeat");
        slots.allocate(1, 9, false);
        assert_eq!(slots.reserve(1000), 4);
        assert_eq!(slots.reserve(1000), 0);
        slots.unreserve(4);
        slots.allocate(2, 3, false);
        assert_eq!(slots.reserve(2), 2);
        assert_eq!(slots.reserve(1000), 1);
    }

    #[test]
    fn a_smaller_allocation_starts_no_task_and_interrupts_none() {
        let slots = Slots::new(4);
        slots.allocate(1, 2, false);
        assert_eq!(slots.reserve(2), 2);
        let root = CancellationToken::new();
        let first = slots.start(task(1), &root);
        let second = slots.start(task(2), &root);
        slots.allocate(2, 1, false);
        let snapshot = slots.snapshot();
        assert_eq!((snapshot.held, snapshot.acknowledged), (2, 2));
        drop(first);
        assert_eq!(slots.reserve(2), 0);
        assert!(!second.stopped().is_cancelled());
        drop(second);
        assert_eq!(slots.reserve(2), 1);
    }

    #[test]
    fn a_claim_in_flight_counts_as_held() {
        let slots = Slots::new(4);
        slots.allocate(1, 4, false);
        slots.reserve(3);
        slots.allocate(2, 0, false);
        assert_eq!(slots.snapshot().held, 3);
    }

    #[test]
    fn pausing_and_draining_stop_claims() {
        let slots = Slots::new(4);
        slots.allocate(1, 4, true);
        assert_eq!(slots.reserve(1), 0);
        slots.allocate(1, 4, false);
        slots.drain();
        assert_eq!(slots.reserve(1), 0);
        assert_eq!(slots.snapshot().wants, 0);
    }

    #[tokio::test]
    async fn a_task_that_is_to_run_alone_waits_for_the_others_and_starts_no_more() {
        let slots = Slots::new(4);
        slots.allocate(1, 4, false);
        slots.reserve(2);
        let root = CancellationToken::new();
        let (other, _suspect) = (slots.start(task(1), &root), slots.start(task(2), &root));
        let alone = slots.alone();
        assert_eq!(slots.reserve(1), 0);
        let mut waits = pin!(slots.wait_until_alone(LIMIT));
        assert!(poll_once(waits.as_mut()).await.is_none(), "another task runs");
        drop(other);
        assert!(waits.await);
        assert_eq!(slots.reserve(1), 0);
        drop(alone);
        assert_eq!(slots.reserve(4), 3);
        let waits = slots.wait_until_alone(LIMIT);
        slots.drain();
        assert!(!waits.await, "the instance drains");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_runs_for_long_does_not_keep_the_others_waiting() {
        let slots = Slots::new(4);
        slots.allocate(1, 4, false);
        slots.reserve(2);
        let root = CancellationToken::new();
        let _running = (slots.start(task(1), &root), slots.start(task(2), &root));
        let alone = slots.alone();
        assert!(!slots.wait_until_alone(LIMIT).await);
        drop(alone);
        assert_eq!(slots.reserve(4), 2);
    }

    /// One poll of a future.
    async fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }

    #[test]
    fn becoming_idle_is_reported_once_until_a_heartbeat_was_busy() {
        let slots = Slots::new(4);
        slots.allocate(1, 4, false);
        assert!(slots.mark_idle());
        assert!(slots.snapshot().idle);
        assert!(!slots.mark_idle(), "idle already");
        slots.reserve(1);
        let slot = slots.start(task(1), &CancellationToken::new());
        assert!(slots.snapshot().idle, "it had a free slot since the last heartbeat");
        assert!(!slots.snapshot().idle);
        drop(slot);
        assert!(slots.mark_idle());
    }

    #[test]
    fn a_cancel_stops_only_its_attempt() {
        let slots = Slots::new(4);
        slots.allocate(1, 4, false);
        slots.reserve(2);
        let root = CancellationToken::new();
        let (first, second) = (slots.start(task(1), &root), slots.start(task(2), &root));
        assert!(slots.stop(task(1)));
        assert!(!slots.stop(task(3)));
        assert!(first.stopped().is_cancelled() && !second.stopped().is_cancelled());
    }
}
