//! Whether this instance is kept from work because nobody can grant it workers.
//!
//! To have none is no fault: the queue's total may be used up by others. It is one where each attempt to
//! grant any met another session that was just doing so, for longer than that ever takes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Thirty heartbeats: a grant takes milliseconds, and is tried about four times a second over all instances.
const STARVED_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Starved(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    missed: bool,
    over: bool,
}

impl Starved {
    /// Takes in a heartbeat: whether it waits for workers while there are tasks, and whether a grant was tried and
    /// missed. True: find out who is in the way.
    pub(crate) fn see(&self, waits: bool, missed: Option<bool>) -> bool {
        let mut state = self.state();
        if !waits || missed == Some(false) {
            *state = State::default();
            return false;
        }
        state.missed |= missed.is_some();
        let since = *state.since.get_or_insert_with(Instant::now);
        let news = state.missed && !state.over && STARVED_AFTER <= since.elapsed();
        state.over |= news;
        news
    }

    /// Whether it is kept from work at this moment.
    pub(crate) fn is_over(&self) -> bool {
        self.state().over
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
    async fn only_who_waits_long_and_sees_no_grant_go_through_is_starved() {
        let starved = Starved::default();
        assert!(!starved.see(true, Some(true)));
        advance(STARVED_AFTER).await;
        assert!(starved.see(true, None));
        assert!(starved.is_over());
        assert!(!starved.see(true, Some(true)), "it is said once");
        assert!(!starved.see(true, Some(false)), "somebody grants again: the total is used up");
        assert!(!starved.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_workers_or_nothing_to_do_is_not() {
        let starved = Starved::default();
        for waits in [true, false, true] {
            starved.see(waits, Some(true));
            advance(STARVED_AFTER / 2).await;
        }
        assert!(!starved.see(true, Some(true)));
        let others = Starved::default();
        others.see(true, None);
        advance(STARVED_AFTER).await;
        assert!(!others.see(true, None), "it has not tried yet");
    }
}
