//! Permits for long answers of tenants' servers. An answer is read into memory as a whole, so only a few may
//! be in memory at a time.

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
use crate::{
    Tenant,
    tenant_limits::{ANSWER_PERMIT_TIMEOUT, AnswerPermit},
    timeouts::STATEMENT_TIMEOUT,
};

/// Answers up to this size need no permit, in bytes and in messages. The statistics of a few hundred queues
/// fit, and so does a migration, which has some three hundred statements. A message takes about a hundred
/// bytes in memory.
const SHORT: u64 = 64 << 10;
const SHORT_MESSAGES: u32 = 1000;

/// The time for a long answer to become complete, from its permit on: ten times what the longest one takes.
const LONG_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

// Otherwise a statement whose answer has to wait reaches its time limit, which looks like a fault of the
// server.
const _: () = assert!(
    ANSWER_PERMIT_TIMEOUT.as_millis() + LONG_ANSWER_TIMEOUT.as_millis() < STATEMENT_TIMEOUT.as_millis()
);

/// The current query of a session, shared with the proxy. It keeps the permit while a long answer is in
/// memory.
#[derive(Debug, Default)]
pub(super) struct QueryState {
    is_new: AtomicBool,
    /// Whether the answer may be long. A long answer is read as a whole and dropped soon.
    may_be_long: AtomicBool,
    permit: Mutex<Option<(AnswerPermit, Instant)>>,
}

impl QueryState {
    /// A query begins.
    pub(super) fn begin(&self, may_be_long: bool) {
        self.may_be_long.store(may_be_long, Ordering::Relaxed);
        self.is_new.store(true, Ordering::Release);
    }

    /// The answer has been read. Later bytes belong to no answer and are counted from zero. A permit that is
    /// dropped instead of released counts against its tenant.
    pub(super) fn end(&self, is_valid: bool) {
        // First, so that no permit is acquired for an answer that is already over.
        self.begin(false);
        if let Some((permit, _)) = self.permit().take().filter(|_| is_valid) {
            permit.release();
        }
    }

    /// Whether a query began since the last call.
    pub(super) fn take_new(&self) -> bool {
        self.is_new.load(Ordering::Relaxed) && self.is_new.swap(false, Ordering::Relaxed)
    }

    /// Whether no byte of an answer has been counted since the last query began or ended.
    fn is_over(&self) -> bool {
        self.is_new.load(Ordering::Acquire)
    }

    fn permit(&self) -> MutexGuard<'_, Option<(AnswerPermit, Instant)>> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deadline(&self) -> Option<Instant> {
        self.permit().as_ref().map(|(_, deadline)| *deadline)
    }
}

/// The permits of one connection.
pub(super) struct AnswerPermits {
    tenant: Tenant,
    query: Arc<QueryState>,
    acquiring: Option<Pin<Box<dyn Future<Output = Option<AnswerPermit>> + Send>>>,
    /// Fires when a long answer has taken too long.
    timer: Option<Pin<Box<Sleep>>>,
}

impl AnswerPermits {
    pub(super) fn new(tenant: Tenant, query: Arc<QueryState>) -> Self {
        Self { tenant, query, acquiring: None, timer: None }
    }

    /// Waits for a permit if an answer of this size needs one.
    pub(super) fn poll_acquire(
        &mut self,
        cx: &mut Context<'_>,
        bytes: u64,
        messages: u32,
    ) -> Poll<Result<(), Fault>> {
        let is_short = bytes <= SHORT && messages <= SHORT_MESSAGES;
        match self.query.deadline() {
            // A server that sends faster than we read keeps the timer from being polled.
            Some(deadline) if deadline <= Instant::now() => return Poll::Ready(Err(overdue())),
            None if !is_short && !self.query.is_over() => (),
            _ => {
                self.acquiring = None;
                return Poll::Ready(Ok(()));
            }
        }
        if !self.query.may_be_long.load(Ordering::Relaxed) {
            let detail = format!("an answer of {bytes} bytes where a short one was expected");
            return Poll::Ready(Err(Fault::Protocol(detail)));
        }
        let tenant = &self.tenant;
        let acquiring = self.acquiring.get_or_insert_with(|| {
            let tenant = tenant.clone();
            Box::pin(async move { tenant.answer_permit().await })
        });
        let permit = ready!(acquiring.as_mut().poll(cx));
        self.acquiring = None;
        let Some(permit) = permit else {
            return Poll::Ready(Err(Fault::Unreachable(
                "the long answer of the database waited too long for the long answers of other databases; \
                 trying again"
                    .into(),
            )));
        };
        *self.query.permit() = Some((permit, Instant::now() + LONG_ANSWER_TIMEOUT));
        Poll::Ready(Ok(()))
    }

    /// Ready when a long answer has taken too long. Poll it while there is nothing to read.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        let Some(deadline) = self.query.deadline() else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // That answer may have ended meanwhile, and another one may have begun.
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(overdue())
    }
}

fn overdue() -> Fault {
    Fault::Unreachable(format!(
        "a long answer of the database was not complete within {LONG_ANSWER_TIMEOUT:?}"
    ))
}

#[cfg(test)]
mod tests;
