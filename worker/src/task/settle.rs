//! Writes outcomes in batches. A flush starts when the previous one has returned, and takes all outcomes that
//! came since. While many come, it waits a few milliseconds for more.

use std::borrow::Borrow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rowlock_queue::{Error, Outcome, SETTLE_MAX, Settled, Settlement};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::error::WorkerError;
use crate::metrics::{Metrics, TypeLabel};
use crate::task::run_window::RunWindow;
use crate::throttled_log::{LogThrottle, OutageLog};
use crate::traces::SettlementSpan;

/// Outcomes that may wait for a flush. When the channel is full, slots stay occupied, which slows claims
/// down.
pub(crate) const SETTLEMENT_BUFFER: usize = 1000;

/// The least time between the starts of two flushes while many outcomes come. A flush costs the database as
/// much as dozens of outcomes do, so larger ones cost less. The slots are free meanwhile.
const FLUSH_GAP: Duration = Duration::from_millis(5);

/// How many outcomes must be expected within [`FLUSH_GAP`], by the rate of the last flush, for a flush to
/// wait for them. With fewer, waiting would save little.
const WORTH_WAITING: u32 = 8;

/// How long to retry after errors that are neither temporary nor caused by an outcome: a changed password, a
/// revoked privilege, a missing partition. Somebody may be about to repair them, and the tasks are already
/// done.
const REFUSED_TIMEOUT: Duration = Duration::from_mins(1);

/// An attempt that has ended, with its outcome.
pub(crate) struct EndedAttempt {
    pub(crate) settlement: Settlement,
    /// How long the handler ran until it answered. `None`: it was not called, or was interrupted.
    pub(crate) ran: Option<Duration>,
    pub(crate) task_type: TypeLabel,
    /// The span of the settlement.
    pub(crate) settling: SettlementSpan,
}

impl EndedAttempt {
    /// The handler was not called.
    pub(crate) fn without_run(settlement: Settlement) -> Self {
        Self { settlement, ran: None, task_type: TypeLabel::default(), settling: SettlementSpan::default() }
    }
}

/// Hands an outcome to the settler. Fails only if the settler has ended. Then the instance ends too.
pub(crate) async fn send_outcome(
    metrics: &Metrics,
    settle: &mpsc::Sender<EndedAttempt>,
    ended: EndedAttempt,
) {
    metrics.outcome_known();
    let _ = settle.send(ended).await;
}

impl Borrow<Settlement> for EndedAttempt {
    fn borrow(&self) -> &Settlement {
        &self.settlement
    }
}

/// The database operation that the settler needs. Tests replace it.
pub(crate) trait SettlementStore: Send + Sync {
    fn settle(&self, batch: &[EndedAttempt]) -> impl Future<Output = Result<Vec<Settled>, Error>> + Send;
}

pub(crate) struct Settler<S> {
    pub(crate) store: S,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) runs: Arc<RunWindow>,
    pub(crate) outage: Arc<OutageLog>,
    /// Outcomes whose lease was lost.
    pub(crate) late: LogThrottle,
    /// Once it is cancelled, nothing more is settled.
    pub(crate) fenced: CancellationToken,
}

impl<S: SettlementStore> Settler<S> {
    /// Ends when every sender is dropped and all outcomes are settled, or when the instance is fenced.
    pub(crate) async fn run(self, mut outcomes: mpsc::Receiver<EndedAttempt>) -> Result<(), WorkerError> {
        let mut batch = Vec::with_capacity(SETTLE_MAX);
        let mut pace = Pace::default();
        loop {
            let fenced = self.fenced.clone();
            tokio::select! {
                biased;
                () = fenced.cancelled() => return Ok(()),
                came = outcomes.recv_many(&mut batch, SETTLE_MAX) => if came == 0 { return Ok(()) },
            }
            if let Some(due) = pace.next_flush {
                tokio::select! {
                    biased;
                    () = fenced.cancelled() => return Ok(()),
                    () = sleep_until(due) => (),
                }
                while batch.len() < SETTLE_MAX
                    && let Ok(ended) = outcomes.try_recv()
                {
                    batch.push(ended);
                }
            }
            pace.flushes(batch.len());
            tokio::select! {
                biased;
                () = fenced.cancelled() => return Ok(()),
                flushed = self.flush(&mut batch) => flushed?,
            }
            self.metrics.outcomes_written(batch.len());
            batch.clear();
        }
    }

    /// Sends the batch until the database has answered for every outcome. Sending again after a lost answer
    /// is safe.
    async fn flush(&self, batch: &mut [EndedAttempt]) -> Result<(), WorkerError> {
        let mut unsettled = Unsettled::new(batch);
        while !unsettled.rest.is_empty() {
            let sent = Instant::now();
            let error = match self.store.settle(unsettled.next()).await {
                Ok(settled) => {
                    self.outage.answered("settle");
                    self.metrics.settle_batch(sent.elapsed(), settled.len());
                    self.count(unsettled.next(), &settled);
                    unsettled.accepted(&settled);
                    continue;
                }
                Err(error) => error,
            };
            self.metrics.error(error.metric_label());
            let wait = if error.is_value_error() {
                unsettled.value_refused(&error)
            } else {
                self.outage.failed("settle", &error);
                unsettled.failed(&error)
            };
            match wait {
                Some(Wait::Not) => (),
                Some(Wait::Backoff) => sleep(unsettled.backoff.next_delay()).await,
                // The instance ends with this error and releases its leases.
                None => return Err(WorkerError::Queue(error)),
            }
        }
        Ok(())
    }

    fn count(&self, batch: &[EndedAttempt], settled: &[Settled]) {
        let mut late = 0;
        for (EndedAttempt { settlement, ran, task_type, .. }, settled) in batch.iter().zip(settled) {
            let label = match (settled, &settlement.outcome) {
                (Settled::LeaseLost, _) => {
                    self.metrics.lease_lost();
                    tracing::debug!(task = %settlement.task, "the lease was lost; the outcome is discarded");
                    late += 1;
                    continue;
                }
                (Settled::Cancelled, _) => "cancel",
                (Settled::Dead, _) => "dead",
                (_, outcome) => outcome.name(),
            };
            self.metrics.settled(task_type, label);
            match (label, ran) {
                ("complete", Some(took)) => self.runs.completed(*took),
                ("retry" | "dead", Some(_)) => self.runs.failed(),
                _ => (),
            }
        }
        if let Some(tasks) = self.late.record(late) {
            tracing::warn!(tasks, "leases were lost; the outcomes of these tasks are discarded");
        }
    }
}

/// When flushes start.
#[derive(Default)]
struct Pace {
    last_flush: Option<Instant>,
    /// The next flush waits until then. `None`: it does not wait.
    next_flush: Option<Instant>,
}

impl Pace {
    /// A flush of this many outcomes starts.
    fn flushes(&mut self, outcomes: usize) {
        let now = Instant::now();
        let outcomes = u32::try_from(outcomes).unwrap_or(u32::MAX);
        let many = |since: Instant| (now - since) * WORTH_WAITING <= FLUSH_GAP.saturating_mul(outcomes);
        self.next_flush = self.last_flush.is_some_and(many).then_some(now + FLUSH_GAP);
        self.last_flush = Some(now);
    }
}

/// Whether to wait before the next settlement.
enum Wait {
    Not,
    Backoff,
}

/// The outcomes of a batch that the database has not answered for, and what its errors have shown.
struct Unsettled<'a> {
    rest: &'a mut [EndedAttempt],
    batch_size: usize,
    backoff: Backoff,
    refused_since: Option<Instant>,
    replaced: Replaced,
    /// These tell an error of one row from an error of all rows: refusals in a row, and whether another
    /// outcome was accepted since the first refusal.
    in_a_row: usize,
    others_pass: bool,
}

impl<'a> Unsettled<'a> {
    fn new(rest: &'a mut [EndedAttempt]) -> Self {
        Self {
            batch_size: rest.len(),
            rest,
            backoff: Backoff::DATABASE,
            refused_since: None,
            replaced: Replaced::Nothing,
            in_a_row: 0,
            others_pass: false,
        }
    }

    fn next(&self) -> &[EndedAttempt] {
        &self.rest[..self.batch_size.min(self.rest.len())]
    }

    fn skip(&mut self, outcomes: usize) {
        self.rest = &mut std::mem::take(&mut self.rest)[outcomes..];
        self.replaced = Replaced::Nothing;
    }

    fn accepted(&mut self, settled: &[Settled]) {
        self.rest.iter_mut().zip(settled).for_each(|(ended, settled)| ended.settling.end(*settled));
        self.others_pass |= self.refused_since.is_some();
        self.skip(self.next().len());
        (self.backoff, self.refused_since, self.in_a_row) = (Backoff::DATABASE, None, 0);
    }

    /// Finds the outcome that the database refuses, so that it does not hold up the others. `None`: nothing
    /// of it can be replaced any more.
    fn value_refused(&mut self, error: &Error) -> Option<Wait> {
        if self.next().len() == 1 && uses_no_attempt(&self.rest[0].settlement.outcome) {
            self.give_up_first(error);
        } else if self.next().len() == 1 {
            self.replaced = replace(&mut self.rest[0].settlement, error, self.replaced)?;
        } else {
            self.batch_size = 1;
        }
        Some(Wait::Not)
    }

    /// `None`: the database has accepted nothing for too long.
    fn failed(&mut self, error: &Error) -> Option<Wait> {
        let sent = self.next().len();
        if error.is_transient() {
            self.refused_since = None;
        } else if self.others_pass && self.rest.len() <= self.in_a_row {
            self.give_up_first(error);
            return Some(Wait::Not);
        } else if REFUSED_TIMEOUT <= self.refused_since.get_or_insert_with(Instant::now).elapsed() {
            return None;
        } else if sent == 1 {
            // The error may concern only one row: try the next outcome, and this one last.
            self.in_a_row += 1;
            self.rest.rotate_left(1);
        } else {
            self.batch_size = 1;
        }
        if matches!(error, Error::Timeout) {
            // The same batch would time out again.
            self.batch_size = sent.div_ceil(2);
        }
        Some(Wait::Backoff)
    }

    /// The error concerns only the remaining outcomes: replaces the first one, or gives it up.
    fn give_up_first(&mut self, error: &Error) {
        if let Some(more) = replace(&mut self.rest[0].settlement, error, self.replaced) {
            self.replaced = more;
        } else {
            tracing::error!(
                task = %self.rest[0].settlement.task, %error,
                "the database refuses every outcome of this task; it stays leased to this instance"
            );
            self.skip(1);
        }
    }
}

/// Which part of an outcome was replaced because the database refuses it.
#[derive(Clone, Copy)]
enum Replaced {
    Nothing,
    Text,
    Outcome,
}

/// Whether the task has not failed. If such an outcome is refused, the task must not become dead: it stays
/// leased until the instance ends.
fn uses_no_attempt(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Release | Outcome::Snooze { .. } | Outcome::HandlerEnded)
}

/// Replaces an outcome that the database refuses. First only its text, which the database's encoding may not
/// support: the work itself is done. If that is refused too, the task becomes dead. `None`: that was refused
/// as well, or the task has not failed.
fn replace(settlement: &mut Settlement, refusal: &Error, done: Replaced) -> Option<Replaced> {
    let task = settlement.task;
    let why = format!("the database refused it ({})", refusal.metric_label());
    match (done, &mut settlement.outcome) {
        (Replaced::Nothing, Outcome::Complete { result: result @ Some(_) }) => {
            tracing::warn!(%task, "the database refused the result; the task is complete without it");
            *result = None;
            Some(Replaced::Text)
        }
        (Replaced::Nothing, Outcome::Retry { error, .. } | Outcome::Dead { error }) => {
            tracing::warn!(%task, "the database refused the handler's error message; it is not kept");
            *error = format!("the handler's error message is not kept: {why}");
            Some(Replaced::Text)
        }
        (Replaced::Nothing | Replaced::Text, outcome) if !uses_no_attempt(outcome) => {
            let error = refusal.metric_label();
            tracing::error!(%task, error, "the database refused the outcome; the task is dead");
            *outcome = Outcome::Dead { error: format!("the outcome is not kept: {why}") };
            Some(Replaced::Outcome)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
