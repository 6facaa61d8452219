//! Turns at something of which there is little: the caller that has waited longest is next, over all its
//! attempts.
//!
//! A semaphore serves the caller that has been in its queue longest. A caller that gives up and comes back is
//! last again, and may never have a turn.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::{sync::oneshot, time::Instant};

use super::lock;

/// A number of turns.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// By since when they have waited, and in the order in which they came.
    waiting: BTreeMap<(Instant, u64), oneshot::Sender<Turn>>,
    came: u64,
}

/// A turn, which is over when it is dropped. `None`: it has been handed on.
#[derive(Debug)]
pub(super) struct Turn(Option<Arc<Turns>>);

impl Turns {
    pub(super) fn new(count: usize) -> Self {
        Self { state: Mutex::new(State { free: count, waiting: BTreeMap::new(), came: 0 }) }
    }

    /// Waits for a turn. `since`: when the caller first asked for this turn, perhaps in an earlier attempt.
    pub(super) async fn take(self: &Arc<Self>, since: Instant) -> Option<Turn> {
        let turn = {
            let mut state = lock(&self.state);
            if let Some(free) = state.free.checked_sub(1) {
                state.free = free;
                return Some(Turn(Some(Arc::clone(self))));
            }
            state.waiting.retain(|_, waiting| !waiting.is_closed());
            let (sender, turn) = oneshot::channel();
            state.came += 1;
            let came = state.came;
            state.waiting.insert((since, came), sender);
            turn
        };
        turn.await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else { return };
        let mut state = lock(&turns.state);
        let mut turn = Self(Some(Arc::clone(&turns)));
        while let Some((_, waiting)) = state.waiting.pop_first() {
            match waiting.send(turn) {
                Ok(()) => return,
                // That one has given up.
                Err(back) => turn = back,
            }
        }
        turn.0 = None;
        state.free += 1;
    }
}
