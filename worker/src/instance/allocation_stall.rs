//! Whether this instance is kept from work because nobody can allocate slots to it.
//!
//! To have none is no fault: the queue's total may be used up by others. It is one where each attempt to
//! grant any met another session that was just doing so, for longer than that ever takes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Thirty heartbeats: a grant takes milliseconds, and is tried about four times a second over all instances.
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
    /// Takes in a heartbeat: whether it waits for slots while there are tasks, and whether a grant was tried and
    /// missed. True: find out who is in the way.
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

    /// Whether it is kept from work at this moment.
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
    async fn only_who_waits_long_and_sees_no_allocation_go_through_is_stalled() {
        let stall = AllocationStall::default();
        assert!(!stall.update(true, Some(true)));
        advance(STALLED_AFTER).await;
        assert!(stall.update(true, None));
        assert!(stall.is_stalled());
        assert!(!stall.update(true, Some(true)), "it is said once");
        assert!(!stall.update(true, Some(false)), "somebody grants again: the total is used up");
        assert!(!stall.is_stalled());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_slots_or_nothing_to_do_is_not() {
        let stall = AllocationStall::default();
        for waiting in [true, false, true] {
            stall.update(waiting, Some(true));
            advance(STALLED_AFTER / 2).await;
        }
        assert!(!stall.update(true, Some(true)));
        let others = AllocationStall::default();
        others.update(true, None);
        advance(STALLED_AFTER).await;
        assert!(!others.update(true, None), "it has not tried yet");
    }
}
