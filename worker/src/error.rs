//! How an instance ends, and why one never starts.

use std::net::SocketAddr;

/// How a worker ended without failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// Asked to stop: what ran was finished or handed back.
    Drained,
    /// Lost its leases for good. A new process, with a new identity, may start over.
    Fenced(&'static str),
}

/// Why a worker failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    #[error(transparent)]
    Queue(#[from] rowlock_queue::Error),
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What is wrong with the configuration and what to change, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);
