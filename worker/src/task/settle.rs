//! Writes outcomes in batches: a flush starts when the previous one has returned, with all outcomes since
//! then.

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

/// Outcomes that may wait for a flush. When the channel is full, slots stay occupied, which slows claims
/// down.
pub(crate) const SETTLEMENT_BUFFER: usize = 1000;

/// How long to retry after errors that are neither temporary nor caused by an outcome: a changed password, a
/// revoked privilege, a missing partition. Somebody may be about to repair them, and the tasks are done
/// already.
const REFUSED_TIMEOUT: Duration = Duration::from_mins(1);

/// The database operation that the settler needs; its tests replace it.
pub(crate) trait SettlementStore: Send + Sync {
    fn settle(&self, batch: &[Settlement]) -> impl Future<Output = Result<Vec<Settled>, Error>> + Send;
}

pub(crate) struct Settler<S> {
    pub(crate) store: S,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) outage: Arc<OutageLog>,
    /// Outcomes whose lease was lost.
    pub(crate) late: LogThrottle,
    /// Once it is cancelled, nothing more is settled.
    pub(crate) fenced: CancellationToken,
}

impl<S: SettlementStore> Settler<S> {
    /// Ends when every sender is dropped and all outcomes are settled, or when the instance is fenced.
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

    /// Sends the batch until the database has answered for every outcome. Sending again after a lost answer
    /// is safe.
    async fn flush(&self, mut rest: &mut [Settlement]) -> Result<(), WorkerError> {
        let mut batch_size = rest.len();
        let mut backoff = Backoff::DATABASE;
        let mut refused_since = None;
        let mut replaced = Replaced::Nothing;
        // To tell an error of one row from an error of all: refusals in a row, and whether another outcome
        // was accepted since the first refusal.
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
                // Find the outcome that the database refuses, so that it does not hold up the others.
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
                // The error concerns only the remaining outcomes: replace the first one, or give it up.
                if let Some(more) = replace(&mut rest[0], &error, replaced) {
                    replaced = more;
                } else {
                    tracing::error!(
                        task = %rest[0].task, %error,
                        "the database refuses every outcome of this task; it stays leased to this instance"
                    );
                    rest = &mut rest[1..];
                    replaced = Replaced::Nothing;
                }
                continue;
            } else if REFUSED_TIMEOUT <= refused_since.get_or_insert_with(Instant::now).elapsed() {
                // Nothing is accepted: the instance ends with this error and hands back its leases.
                return Err(WorkerError::Queue(error));
            } else if now == 1 {
                // Perhaps the error concerns one row: try the next outcome, and this one last.
                in_a_row += 1;
                rest.rotate_left(1);
            } else {
                batch_size = 1;
            }
            if matches!(error, Error::Timeout) {
                // The same batch would take too long again.
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
                    tracing::debug!(task = %settlement.task, "the lease was lost; the outcome is discarded");
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
            tracing::warn!(tasks, "leases were lost; the outcomes of these tasks are discarded");
        }
    }
}

/// What was replaced in an outcome because the database refuses it.
#[derive(Clone, Copy)]
enum Replaced {
    Nothing,
    Text,
    Outcome,
}

/// Replaces an outcome that the database refuses. First only its text, which the database's encoding may not
/// hold: the work itself is done. If that is refused too, the task becomes dead. `None`: that was refused as
/// well.
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
        (Replaced::Nothing | Replaced::Text, outcome) => {
            let error = refusal.metric_label();
            tracing::error!(%task, error, "the database refused the outcome; the task is dead");
            *outcome = Outcome::Dead { error: format!("the outcome is not kept: {why}") };
            Some(Replaced::Outcome)
        }
        (Replaced::Outcome, _) => None,
    }
}

#[cfg(test)]
mod tests;
