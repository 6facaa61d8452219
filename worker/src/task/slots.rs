//! The slots of this instance: its allocation, free slots and attempts in progress.
//!
//! One lock protects all of it, so that a heartbeat reports a consistent snapshot. A slot reserved for a
//! claim in flight counts as held; otherwise the queue would grant it to another instance as well. A task
//! that was claimed ahead has no slot until it starts.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rowlock_queue::TaskId;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::task::ahead::{Ahead, LeasedTask};

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
    ahead: Ahead,
}

impl State {
    /// Whether a task may start, if a slot is free for it.
    fn may_start(&self) -> bool {
        !self.paused && !self.draining && !self.alone
    }

    /// An attempt begins in an occupied slot.
    fn begin(&mut self, task: TaskId, parent: &CancellationToken) -> CancellationToken {
        let stop = parent.child_token();
        self.attempts.insert(task, stop.clone());
        if self.idleness == Idleness::Idle {
            self.idleness = Idleness::WasIdle;
        }
        stop
    }
}

/// For how many tasks a claim asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Reserved slots, whose tasks start at once.
    pub(crate) slots: u32,
    /// Tasks that will wait for a slot.
    pub(crate) ahead: u32,
}

impl Wanted {
    pub(crate) fn all(self) -> u32 {
        self.slots.saturating_add(self.ahead)
    }
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
        if !state.may_start() {
            return 0;
        }
        let free = self.usable(&state).saturating_sub(state.held).min(most);
        state.held += free;
        free
    }

    /// How many tasks may run now.
    fn usable(&self, state: &State) -> u32 {
        state.allocated.min(self.capacity)
    }

    /// What to claim, up to `most` tasks: reserves every free slot. With `ahead`, also tasks that will wait
    /// for one, as soon as few of them are left.
    pub(crate) fn wanted(&self, most: u32, ahead: bool) -> Wanted {
        let slots = self.reserve(most);
        let state = self.state();
        let usable = self.usable(&state);
        let is_due = ahead && state.may_start() && (0 < slots || state.ahead.is_low(usable));
        let room = if is_due { state.ahead.room(usable) } else { 0 };
        Wanted { slots, ahead: room.min(most.saturating_sub(slots)) }
    }

    /// Keeps tasks until slots are free for them.
    pub(crate) fn keep_ahead(&self, tasks: Vec<LeasedTask>) {
        let mut state = self.state();
        for task in tasks {
            state.ahead.push(task);
        }
    }

    /// Starts the next task that was claimed ahead, if a slot is free.
    pub(crate) fn start_ahead(self: &Arc<Self>, parent: &CancellationToken) -> Option<(Slot, LeasedTask)> {
        let mut state = self.state();
        if !state.may_start() || self.usable(&state) <= state.held {
            return None;
        }
        let next = state.ahead.pop()?;
        let task = next.claim.id;
        state.held += 1;
        let stop = state.begin(task, parent);
        drop(state);
        Some((Slot { slots: Arc::clone(self), task, stop }, next))
    }

    /// Takes the tasks claimed ahead that are to be released. `may_start`: what else may keep them from
    /// starting does not.
    pub(crate) fn take_back(&self, may_start: bool) -> Vec<LeasedTask> {
        let mut state = self.state();
        let may_start = may_start && state.may_start();
        state.ahead.take_back(may_start)
    }

    /// When to call [`take_back`](Self::take_back) at the latest.
    pub(crate) fn take_back_due(&self) -> Option<Instant> {
        self.state().ahead.due()
    }

    /// The handler has answered after this time. `bytes`: the size of the payload.
    pub(crate) fn ran(&self, took: Duration, bytes: usize) {
        self.state().ahead.ran(took, bytes);
    }

    /// Frees reserved slots that a claim did not fill.
    pub(crate) fn unreserve(&self, slots: u32) {
        let mut state = self.state();
        state.held = state.held.saturating_sub(slots);
    }

    /// Turns one reserved slot into an occupied one. Cancelling `parent` or the task stops the attempt.
    pub(crate) fn start(self: &Arc<Self>, task: TaskId, parent: &CancellationToken) -> Slot {
        let stop = self.state().begin(task, parent);
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

    /// Stops one attempt, or takes back the task before it starts. False: it does neither run nor wait here.
    pub(crate) fn stop(&self, task: TaskId) -> bool {
        let mut state = self.state();
        if let Some(stop) = state.attempts.get(&task) {
            stop.cancel();
            return true;
        }
        let waited = state.ahead.cancel(task);
        drop(state);
        if waited {
            self.wake.notify_one();
        }
        waited
    }

    /// The claimer found nothing to do. Returns true if the instance was busy before: producers send a NOTIFY
    /// only after a heartbeat has reported an idle instance.
    pub(crate) fn mark_idle(&self) -> bool {
        let mut state = self.state();
        if 0 < state.ahead.len() {
            return false;
        }
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

    /// Running tasks, tasks claimed ahead, allocated slots and capacity, for the metrics.
    pub(crate) fn counts(&self) -> (usize, usize, u32, u32) {
        let state = self.state();
        (state.attempts.len(), state.ahead.len(), state.allocated, self.capacity)
    }

    /// Applies an allocation. A smaller one interrupts no attempt; it only prevents new ones, and releases
    /// what was claimed ahead.
    pub(crate) fn allocate(&self, allocation: i64, allocated: u32, paused: bool) {
        let mut state = self.state();
        let more = state.allocated < allocated || (state.paused && !paused);
        let less = allocated < state.allocated || paused;
        state.allocation = allocation;
        state.allocated = allocated;
        state.paused = paused;
        if less {
            state.ahead.revoke();
        }
        drop(state);
        if more || less {
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

    /// Starts the next task that was claimed ahead in the slot of one that has ended. `None`: there is none,
    /// or fewer may run now; the slot is free.
    pub(crate) fn next(mut self, parent: &CancellationToken) -> Option<(Self, LeasedTask)> {
        let slots = Arc::clone(&self.slots);
        let mut state = slots.state();
        if !state.may_start() || slots.usable(&state) < state.held {
            return None;
        }
        let next = state.ahead.pop()?;
        state.attempts.remove(&self.task);
        self.task = next.claim.id;
        self.stop = state.begin(self.task, parent);
        let is_low = state.ahead.is_low(slots.usable(&state));
        drop(state);
        if is_low {
            slots.wake.notify_one();
        }
        Some((self, next))
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
mod tests;
