//! Writes outcomes, coalesced: a flush starts when the previous one returned, with all that came meanwhile.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rowlock_queue::{Error, Outcome, SETTLE_MAX, Settled, Settlement};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::ended::WorkerError;
use crate::metrics::Metrics;
use crate::pause::Pause;

/// Outcomes that may wait for a flush; a worker whose outcome finds no room stays busy, which slows claims.
pub(crate) const SETTLE_QUEUE: usize = 1000;

const RESEND_PAUSE: Pause = Pause::new(Duration::from_millis(50), Duration::from_secs(2));

/// The one verb the settler needs; a seam for its tests.
pub(crate) trait Settles: Send + Sync {
    fn settle(&self, batch: &[Settlement]) -> impl Future<Output = Result<Vec<Settled>, Error>> + Send;
}

pub(crate) struct Settler<S> {
    pub(crate) store: S,
    pub(crate) metrics: Arc<Metrics>,
    /// Once tripped, nothing is settled any more.
    pub(crate) fenced: CancellationToken,
}

impl<S: Settles> Settler<S> {
    /// Ends when every sender is gone and all is settled, or when the instance is fenced.
    pub(crate) async fn work(self, mut outcomes: mpsc::Receiver<Settlement>) -> Result<(), WorkerError> {
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

    async fn flush(&self, batch: &mut [Settlement]) -> Result<(), WorkerError> {
        match self.send(batch).await {
            Ok(()) => Ok(()),
            // Something in the batch is refused whatever we do: find it, so that the others are not held up.
            Err(_) if 1 < batch.len() => {
                for one in batch.chunks_mut(1) {
                    self.flush_one(one).await?;
                }
                Ok(())
            }
            Err(error) => self.replace(batch, error).await,
        }
    }

    async fn flush_one(&self, one: &mut [Settlement]) -> Result<(), WorkerError> {
        match self.send(one).await {
            Ok(()) => Ok(()),
            Err(error) => self.replace(one, error).await,
        }
    }

    /// An outcome the database refuses becomes a dead task that says so. If even that is refused, the
    /// instance ends: its leases are handed back, and the reason is the operator's to see.
    async fn replace(&self, one: &mut [Settlement], error: Error) -> Result<(), WorkerError> {
        for settlement in one.iter_mut() {
            tracing::error!(task = %settlement.task, %error, "the outcome was refused; the task is settled as dead");
            let error = format!("the outcome could not be written ({})", error.metric_label());
            settlement.outcome = Outcome::Dead { error };
        }
        self.send(one).await.map_err(WorkerError::Queue)
    }

    /// Sends until the database answers. Sending again after a lost answer is safe.
    async fn send(&self, batch: &[Settlement]) -> Result<(), Error> {
        let mut pause = RESEND_PAUSE;
        loop {
            match self.store.settle(batch).await {
                Ok(settled) => {
                    self.count(batch, &settled);
                    return Ok(());
                }
                Err(error) if error.is_transient() => {
                    self.metrics.error(error.metric_label());
                    tracing::warn!(%error, tasks = batch.len(), "outcomes are not written yet; sending again");
                }
                Err(error) => return Err(error),
            }
            sleep(pause.step()).await;
        }
    }

    fn count(&self, batch: &[Settlement], settled: &[Settled]) {
        self.metrics.settle_batch(batch.len());
        for (settlement, settled) in batch.iter().zip(settled) {
            let label = match (settled, &settlement.outcome) {
                (Settled::LeaseLost, _) => {
                    self.metrics.lease_lost();
                    tracing::warn!(task = %settlement.task, "the lease was lost; the outcome does not count");
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
    }
}

#[cfg(test)]
mod tests;
