//! How a worker is asked to end.

use rowlock_daemon::Signals;
use tokio_util::sync::CancellationToken;

/// First politely, then at once. Clones speak for the same worker.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    abort: CancellationToken,
}

impl Shutdown {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Claim nothing more, finish what runs within the grace, hand back the rest.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Stop the attempts now and hand them back, still without using up an attempt.
    pub fn abort(&self) {
        self.drain.cancel();
        self.abort.cancel();
    }

    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.drain
    }

    pub(crate) fn aborting(&self) -> &CancellationToken {
        &self.abort
    }

    /// The first of [`Signals`] drains, the second aborts. Returns only an error, that of a system that lets
    /// no handler be installed; meant for a `select!`.
    pub async fn on_signals(&self) -> std::io::Error {
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => return error,
        };
        loop {
            let signal = signals.next().await;
            if self.drain.is_cancelled() {
                tracing::warn!(signal, "a second signal: stopping what runs and handing it back");
                self.abort();
            } else {
                tracing::info!(signal, "draining: nothing more is claimed, what runs may finish");
                self.drain();
            }
        }
    }
}
