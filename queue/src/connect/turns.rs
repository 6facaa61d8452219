//! Long answers of tenants' servers, which take turns: each is read into memory whole, and all of them have
//! to fit.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use super::fault::Fault;
use crate::{Tenant, tenants::Turn};

/// What needs no turn, in bytes and in messages: the statistics of some hundred queues.
const SHORT: u64 = 64 << 10;
const SHORT_MESSAGES: u32 = 250;

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
        self.is_new.store(true, Ordering::Relaxed);
    }

    /// The answer is all there.
    pub(super) fn end(&self, is_sound: bool) {
        // Dropped without a word it was none.
        if let Some((turn, _)) = self.turn().take().filter(|_| is_sound) {
            turn.end();
        }
    }

    /// Whether there was another question since this was asked.
    pub(super) fn is_new(&self) -> bool {
        self.is_new.load(Ordering::Relaxed) && self.is_new.swap(false, Ordering::Relaxed)
    }

    fn turn(&self) -> MutexGuard<'_, Option<(Turn, Instant)>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deadline(&self) -> Option<Instant> {
        self.turn().as_ref().map(|(_, deadline)| *deadline)
    }
}

/// The turns of one connection.
#[derive(Debug)]
pub(super) struct Turns {
    tenant: Tenant,
    asked: Arc<Asked>,
}

impl Turns {
    pub(super) fn new(tenant: Tenant, asked: Arc<Asked>) -> Self {
        Self { tenant, asked }
    }

    /// Waits for one, where an answer has become a long one.
    pub(super) async fn take(&self, bytes: u64, messages: u32) -> Result<(), Fault> {
        if (bytes <= SHORT && messages <= SHORT_MESSAGES) || self.asked.deadline().is_some() {
            return Ok(());
        }
        if !self.asked.may_be_long.load(Ordering::Relaxed) {
            return Err(Fault::Protocol(format!("{bytes} bytes where a word was asked for")));
        }
        let turn = self.tenant.turn().await.ok_or_else(|| {
            Fault::Unreachable(
                "the long answer of the database waited too long for other databases' long answers; trying \
                 again"
                    .into(),
            )
        })?;
        *self.asked.turn() = Some((turn, Instant::now() + LONG_LONGEST));
        Ok(())
    }

    /// What is read, unless a long answer takes too long.
    pub(super) async fn in_time<T>(&self, read: impl Future<Output = T>) -> Result<T, Fault> {
        let mut read = pin!(read);
        // The answer may have ended meanwhile, and another one begun.
        while let Some(deadline) = self.asked.deadline() {
            match timeout_at(deadline, &mut read).await {
                Ok(read) => return Ok(read),
                Err(_) if self.asked.deadline() == Some(deadline) => {
                    return Err(Fault::Unreachable(format!(
                        "a long answer of the database was not complete within {LONG_LONGEST:?}"
                    )));
                }
                Err(_) => (),
            }
        }
        Ok(read.await)
    }
}
