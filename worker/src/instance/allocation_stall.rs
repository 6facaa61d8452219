//! Detects that no instance can allocate slots, because another session holds the lock for it.
//!
//! An instance without slots is normal: other instances may use the queue's total. It is a fault if every
//! attempt to allocate found the lock held, for much longer than an allocation takes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Thirty heartbeats. An allocation takes milliseconds, and the instances together try about four a second.
const STALLED_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct AllocationStall(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    missed: bool,
    stalled: bool,
}

impl AllocationStall {
    /// Records a heartbeat. `waiting`: the instance has no slots although tasks wait. `missed`: an allocation
    /// was tried and found the lock held (`None`: none was tried). Returns true when the stall begins, so
    /// that the caller looks up the holder.
    pub(crate) fn update(&self, waiting: bool, missed: Option<bool>) -> bool {
        let mut state = self.state();
        if !waiting || missed == Some(false) {
            *state = State::default();
            return false;
        }
        state.missed |= missed.is_some();
        let since = *state.since.get_or_insert_with(Instant::now);
        let started = state.missed && !state.stalled && STALLED_AFTER <= since.elapsed();
        state.stalled |= started;
        started
    }

    /// Whether allocation is stalled now.
    pub(crate) fn is_stalled(&self) -> bool {
        self.state().stalled
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_waits_long_while_no_allocation_succeeds_is_stalled() {
        let stall = AllocationStall::default();
        assert!(!stall.update(true, Some(true)));
        advance(STALLED_AFTER).await;
        assert!(stall.update(true, None));
        assert!(stall.is_stalled());
        assert!(!stall.update(true, Some(true)), "reported once");
        assert!(!stall.update(true, Some(false)), "allocation works again: the total is used up");
        assert!(!stall.is_stalled());
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_with_slots_or_without_waiting_tasks_is_not_stalled() {
        let stall = AllocationStall::default();
        for waiting in [true, false, true] {
            stall.update(waiting, Some(true));
            advance(STALLED_AFTER / 2).await;
        }
        assert!(!stall.update(true, Some(true)));
        let others = AllocationStall::default();
        others.update(true, None);
        advance(STALLED_AFTER).await;
        assert!(!others.update(true, None), "no allocation was tried yet");
    }
}
