//! Why a worker ended, and why it failed.

use std::net::SocketAddr;

/// Why a worker ended without a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// It was asked to stop. Running tasks were finished or released.
    Drained,
    /// It lost its leases for good, for this reason. A new worker, which is a new instance, may continue.
    Fenced(&'static str),
}

/// Why a worker failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The database refused a call, and a retry would be refused too.
    #[error(transparent)]
    Queue(#[from] rowlock_queue::Error),
    /// The address for `/healthz`, `/readyz` and `/metrics` cannot be used.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// A part of the worker panicked or returned too early.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The metrics cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// One line that says what is wrong with the configuration and what to change.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);
