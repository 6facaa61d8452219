//! Long answers of tenants' servers, which take turns: each is read into memory whole, and all of them have
//! to fit.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::fault::Fault;
use crate::{Tenant, tenants::Turn};

/// What needs no turn, in bytes and in messages: the statistics of some hundred queues, or a migration, which
/// has some three hundred statements. A message becomes about a hundred bytes.
const SHORT: u64 = 64 << 10;
const SHORT_MESSAGES: u32 = 1000;

/// From when a long answer may be sent it is complete within this time: one as long as it may be takes a
/// tenth of it.
const LONG_LONGEST: Duration = Duration::from_secs(2);

/// What a session tells the relay of its questions, and holds while a long answer is in memory.
#[derive(Debug, Default)]
pub(super) struct Asked {
    is_new: AtomicBool,
    /// Whether an answer may be long: one that is read as a whole, and then let go of.
    may_be_long: AtomicBool,
    turn: Mutex<Option<(Turn, Instant)>>,
}

impl Asked {
    /// A question of ours begins.
    pub(super) fn begin(&self, may_be_long: bool) {
        self.may_be_long.store(may_be_long, Ordering::Relaxed);
        self.is_new.store(true, Ordering::Release);
    }

    /// The answer is all there. What comes after it belongs to no answer, and is counted from zero.
    pub(super) fn end(&self, is_sound: bool) {
        // Before the turn is given up, so that nobody takes another one for an answer that is over.
        self.begin(false);
        // Dropped without a word it was none.
        if let Some((turn, _)) = self.turn().take().filter(|_| is_sound) {
            turn.end();
        }
    }

    /// Whether there was another question since this was asked.
    pub(super) fn is_new(&self) -> bool {
        self.is_new.load(Ordering::Relaxed) && self.is_new.swap(false, Ordering::Relaxed)
    }

    /// The same, to be asked again.
    fn is_over(&self) -> bool {
        self.is_new.load(Ordering::Acquire)
    }

    fn turn(&self) -> MutexGuard<'_, Option<(Turn, Instant)>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deadline(&self) -> Option<Instant> {
        self.turn().as_ref().map(|(_, deadline)| *deadline)
    }
}

/// The turns of one connection.
pub(super) struct Turns {
    tenant: Tenant,
    asked: Arc<Asked>,
    waits: Option<Pin<Box<dyn Future<Output = Option<Turn>> + Send>>>,
    /// Wakes when a long answer has taken too long.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Turns {
    pub(super) fn new(tenant: Tenant, asked: Arc<Asked>) -> Self {
        Self { tenant, asked, waits: None, timer: None }
    }

    /// Waits for one, where an answer has become a long one.
    pub(super) fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        bytes: u64,
        messages: u32,
    ) -> Poll<Result<(), Fault>> {
        let is_short = bytes <= SHORT && messages <= SHORT_MESSAGES;
        match self.asked.deadline() {
            // Here, too: a server that sends faster than we read keeps the timer from being asked.
            Some(deadline) if deadline <= Instant::now() => return Poll::Ready(Err(late())),
            None if !is_short && !self.asked.is_over() => (),
            _ => {
                self.waits = None;
                return Poll::Ready(Ok(()));
            }
        }
        if !self.asked.may_be_long.load(Ordering::Relaxed) {
            let said = format!("{bytes} bytes where a word was asked for");
            return Poll::Ready(Err(Fault::Protocol(said)));
        }
        let tenant = &self.tenant;
        let waits = self.waits.get_or_insert_with(|| {
            let tenant = tenant.clone();
            Box::pin(async move { tenant.turn().await })
        });
        let turn = ready!(waits.as_mut().poll(cx));
        self.waits = None;
        let Some(turn) = turn else {
            return Poll::Ready(Err(Fault::Unreachable(
                "the long answer of the database waited too long for other databases' long answers; trying \
                 again"
                    .into(),
            )));
        };
        *self.asked.turn() = Some((turn, Instant::now() + LONG_LONGEST));
        Poll::Ready(Ok(()))
    }

    /// Ready when a long answer takes too long. To be polled while nothing can be read.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        let Some(deadline) = self.asked.deadline() else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // The answer may have ended meanwhile, and another one begun.
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(late())
    }
}

fn late() -> Fault {
    Fault::Unreachable(format!("a long answer of the database was not complete within {LONG_LONGEST:?}"))
}

#[cfg(test)]
mod tests;
