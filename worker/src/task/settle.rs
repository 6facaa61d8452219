//! Writes outcomes, coalesced: a flush starts when the previous one returned, with all that came meanwhile.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rowlock_queue::{Error, Outcome, SETTLE_MAX, Settled, Settlement};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::error::WorkerError;
use crate::metrics::Metrics;
use crate::throttled_log::{LogThrottle, OutageLog};

/// Outcomes that may wait for a flush; a slot whose outcome finds no room stays occupied, which slows claims.
pub(crate) const SETTLEMENT_BUFFER: usize = 1000;

/// How long errors are borne that neither time heals by itself nor the outcomes are to blame for (a password that was changed, a right
/// that was taken, a partition that is missing): somebody may be at it, and the tasks are done already.
const REFUSED_TIMEOUT: Duration = Duration::from_mins(1);

/// The one verb the settler needs; a seam for its tests.
pub(crate) trait SettlementStore: Send + Sync {
    fn settle(&self, batch: &[Settlement]) -> impl Future<Output = Result<Vec<Settled>, Error>> + Send;
}

pub(crate) struct Settler<S> {
    pub(crate) store: S,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) outage: Arc<OutageLog>,
    /// Outcomes that came too late.
    pub(crate) late: LogThrottle,
    /// Once tripped, nothing is settled any more.
    pub(crate) fenced: CancellationToken,
}

impl<S: SettlementStore> Settler<S> {
    /// Ends when every sender is gone and all is settled, or when the instance is fenced.
    pub(crate) async fn run(self, mut outcomes: mpsc::Receiver<Settlement>) -> Result<(), WorkerError> {
        let mut batch = Vec::with_capacity(SETTLE_MAX);
        loop {
            let fenced = self.fenced.clone();
            tokio::select! {
                biased;
                () = fenced.cancelled() => return Ok(()),
                came = outcomes.recv_many(&mut batch, SETTLE_MAX) => if came == 0 { return Ok(()) },
            }
            tokio::select! {
                biased;
                () = fenced.cancelled() => return Ok(()),
                flushed = self.flush(&mut batch) => flushed?,
            }
            batch.clear();
        }
    }

    /// Sends until the database has answered for all of them. Sending again after a lost answer is safe.
    async fn flush(&self, mut rest: &mut [Settlement]) -> Result<(), WorkerError> {
        let mut batch_size = rest.len();
        let mut backoff = Backoff::DATABASE;
        let mut refused_since = None;
        let mut replaced = Replaced::Nothing;
        // Of errors that seem to be everybody's: how many were refused one after the other, and whether others are taken meanwhile.
        let (mut in_a_row, mut others_pass) = (0, false);
        while !rest.is_empty() {
            let now = batch_size.min(rest.len());
            let error = match self.store.settle(&rest[..now]).await {
                Ok(settled) => {
                    self.outage.answered("settle");
                    self.count(&rest[..now], &settled);
                    rest = &mut rest[now..];
                    others_pass |= refused_since.is_some();
                    (backoff, refused_since, replaced, in_a_row) =
                        (Backoff::DATABASE, None, Replaced::Nothing, 0);
                    continue;
                }
                Err(error) => error,
            };
            self.metrics.error(error.metric_label());
            if error.is_value_error() {
                // Find the one that is refused whatever we do, so that the others are not held up.
                match &mut rest[..now] {
                    [one] => match replace(one, &error, replaced) {
                        Some(more) => replaced = more,
                        None => return Err(WorkerError::Queue(error)),
                    },
                    _ => batch_size = 1,
                }
                continue;
            }
            self.outage.failed("settle", &error);
            if error.is_transient() {
                refused_since = None;
            } else if others_pass && rest.len() <= in_a_row {
                // It is theirs alone: what can be said of the first of them is said, and no other one waits for it.
                if let Some(more) = replace(&mut rest[0], &error, replaced) {
                    replaced = more;
                } else {
                    tracing::error!(task = %rest[0].task, %error, "the outcome is refused in every form; the task stays as it is until the instance ends");
                    rest = &mut rest[1..];
                    replaced = Replaced::Nothing;
                }
                continue;
            } else if REFUSED_TIMEOUT <= refused_since.get_or_insert_with(Instant::now).elapsed() {
                // Nothing we send is taken: the leases are handed back, and the reason is the operator's to see.
                return Err(WorkerError::Queue(error));
            } else if now == 1 {
                // Perhaps it is one row's: the next one first, and this one last.
                in_a_row += 1;
                rest.rotate_left(1);
            } else {
                batch_size = 1;
            }
            if matches!(error, Error::Timeout) {
                // What is too much for one statement would be too much again.
                batch_size = now.div_ceil(2);
            }
            sleep(backoff.next_delay()).await;
        }
        Ok(())
    }

    fn count(&self, batch: &[Settlement], settled: &[Settled]) {
        let mut late = 0;
        self.metrics.settle_batch(batch.len());
        for (settlement, settled) in batch.iter().zip(settled) {
            let label = match (settled, &settlement.outcome) {
                (Settled::LeaseLost, _) => {
                    self.metrics.lease_lost();
                    tracing::debug!(task = %settlement.task, "the lease was lost; the outcome does not count");
                    late += 1;
                    continue;
                }
                (Settled::Cancelled, _) => "cancel",
                (Settled::Dead, _) | (_, Outcome::Dead { .. }) => "dead",
                (_, Outcome::Complete { .. }) => "complete",
                (_, Outcome::Retry { .. }) => "retry",
                (_, Outcome::Snooze { .. }) => "snooze",
                (_, Outcome::Release) => "release",
            };
            self.metrics.settled(label);
        }
        if let Some(tasks) = self.late.record(late) {
            tracing::warn!(tasks, "leases were lost; what became of these tasks does not count");
        }
    }
}

/// What was done to an outcome because the database refuses it as it is.
#[derive(Clone, Copy)]
enum Replaced {
    Nothing,
    Text,
    Outcome,
}

/// Of an outcome that the database refuses the text goes first, which may hold what the database's encoding
/// does not: work that was done is done. One that is refused all the same becomes a dead task that says so.
/// If even that is refused, the instance ends: `None`.
fn replace(settlement: &mut Settlement, refusal: &Error, done: Replaced) -> Option<Replaced> {
    let task = settlement.task;
    let why = format!("it could not be written ({})", refusal.metric_label());
    match (done, &mut settlement.outcome) {
        (Replaced::Nothing, Outcome::Complete { result: result @ Some(_) }) => {
            tracing::warn!(%task, "the database refused the result; the task is complete without it");
            *result = None;
            Some(Replaced::Text)
        }
        (Replaced::Nothing, Outcome::Retry { error, .. } | Outcome::Dead { error }) => {
            tracing::warn!(%task, "the handler's error was refused by the database and is not kept");
            *error = format!("the handler said why, and {why}");
            Some(Replaced::Text)
        }
        (Replaced::Nothing | Replaced::Text, outcome) => {
            let error = refusal.metric_label();
            tracing::error!(%task, error, "the outcome was refused; the task is dead");
            *outcome = Outcome::Dead { error: format!("there was an outcome, and {why}") };
            Some(Replaced::Outcome)
        }
        (Replaced::Outcome, _) => None,
    }
}

#[cfg(test)]
mod tests;
