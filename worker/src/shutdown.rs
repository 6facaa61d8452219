//! How a worker is asked to stop.

use rowlock_daemon::Signals;
use tokio_util::sync::CancellationToken;

/// Stops workers: [`drain`](Self::drain) lets running tasks finish, [`abort`](Self::abort) does not. Clones
/// stop the same workers. A worker that ends by itself, for example because it was fenced, stops no other.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    abort: CancellationToken,
}

impl Shutdown {
    /// A handle to pass to [`Worker::run`](crate::Worker::run).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops claiming, lets running tasks finish within the drain grace, then releases the rest.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Stops running tasks now and releases them. They use up no attempt.
    pub fn abort(&self) {
        self.drain.cancel();
        self.abort.cancel();
    }

    /// A handle for one worker: it stops with this one, and stopping it leaves this one as it is.
    pub(crate) fn child(&self) -> Self {
        Self { drain: self.drain.child_token(), abort: self.abort.child_token() }
    }

    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.drain
    }

    pub(crate) fn aborting(&self) -> &CancellationToken {
        &self.abort
    }

    /// Drains at the first of [`Signals`] and aborts at the second. Returns only when signal handlers cannot
    /// be installed, with the error. Use it in a `select!` with [`Worker::run`](crate::Worker::run).
    pub async fn on_signals(&self) -> std::io::Error {
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => return error,
        };
        loop {
            let signal = signals.next().await;
            if self.drain.is_cancelled() {
                tracing::warn!(signal, "second signal: stopping running tasks and releasing them");
                self.abort();
            } else {
                tracing::info!(signal, "draining: no new tasks are claimed, running tasks may finish");
                self.drain();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stops_by_itself_leaves_the_handle_of_its_caller() {
        let caller = Shutdown::new();
        let worker = caller.child();
        worker.abort();
        assert!(!caller.draining().is_cancelled() && !caller.aborting().is_cancelled());
        let next = caller.child();
        assert!(!next.draining().is_cancelled());
        caller.drain();
        assert!(next.draining().is_cancelled() && !next.aborting().is_cancelled());
        caller.abort();
        assert!(next.aborting().is_cancelled());
    }
}
