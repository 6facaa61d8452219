//! What can go wrong with the bundled PostgreSQL.

use nix::errno::Errno;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a PostgreSQL server could not be installed, started or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a folder or a process could not be used.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A step failed; the text names the step, its source says why.
    #[error("{step}")]
    Step {
        /// What failed, for example `cannot create /data`.
        step: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// We are root, and there is no other user to run the server as.
    #[error("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`")]
    NoUser,
    /// No data directory could be created.
    #[error("initdb failed ({status}); see {}", log.display())]
    Initdb {
        /// How `initdb` ended.
        status: ExitStatus,
        /// Where its output is.
        log: PathBuf,
    },
    /// The server ends again and again before it answers.
    #[error("PostgreSQL does not start: {0}")]
    Start(String),
    /// The server runs but accepts no connections.
    #[error("PostgreSQL on port {port} did not answer within {} s", patience.as_secs())]
    NoAnswer {
        /// The port on which it was probed.
        port: u16,
        /// How long it was probed.
        patience: Duration,
    },
    /// The file `postmaster.pid` is empty.
    #[error("postmaster.pid is empty")]
    NoPid,
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Names the step that failed.
pub(crate) trait Context<T> {
    fn with_context(self, step: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: std::error::Error + Send + Sync + 'static> Context<T> for Result<T, E> {
    fn with_context(self, step: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::Step { step: step(), source: Box::new(error) })
    }
}
