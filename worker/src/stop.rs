//! How a worker is asked to end.

use tokio_util::sync::CancellationToken;

/// First politely, then at once. Clones speak for the same worker.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    drain: CancellationToken,
    abort: CancellationToken,
}

impl Stop {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Claim nothing more, finish what runs within the grace, hand back the rest.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Stop the runs now and hand them back, still without using up an attempt.
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

    /// The first SIGTERM or SIGINT drains, the second aborts. Never returns; meant for a `select!`.
    pub async fn on_signals(&self) -> std::io::Error {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut term, mut int) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(term), Ok(int)) => (term, int),
            (Err(error), _) | (_, Err(error)) => return error,
        };
        loop {
            tokio::select! { _ = term.recv() => (), _ = int.recv() => () }
            if self.drain.is_cancelled() {
                tracing::warn!("a second signal: stopping what runs and handing it back");
                self.abort();
            } else {
                tracing::info!("draining: nothing more is claimed, what runs may finish");
                self.drain();
            }
        }
    }
}
