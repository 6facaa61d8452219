//! Follows changes of the files with the database's URL and CA: Kubernetes updates them with their Secret.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rowlock_queue::Connect;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::error::WorkerError;
use crate::instance::context::Context;
use crate::shutdown::Shutdown;

/// How often the files are read. A lease lasts three times as long, so a changed password interrupts no task.
/// (Kubernetes takes up to a minute to update a file.)
const READ_INTERVAL: Duration = Duration::from_secs(5);

/// The files that the database's URL and CA came from, if any.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectFiles {
    pub(crate) url: Option<PathBuf>,
    pub(crate) ca: Option<PathBuf>,
}

impl ConnectFiles {
    pub(crate) fn is_empty(&self) -> bool {
        self.url.is_none() && self.ca.is_none()
    }

    /// The connection settings with the current contents of the files. A missing or empty file changes
    /// nothing: it may be in the middle of a replacement.
    async fn read(&self, before: &Connect) -> Connect {
        let url = read(self.url.as_deref()).await.map(|text| text.trim().to_owned());
        let ca = read(self.ca.as_deref()).await.map(Arc::from);
        Connect {
            url: url.filter(|url| !url.is_empty()).unwrap_or_else(|| before.url.clone()),
            ca_pem: ca.or_else(|| before.ca_pem.clone()),
            ..before.clone()
        }
    }
}

async fn read(file: Option<&Path>) -> Option<String> {
    tokio::fs::read_to_string(file?).await.ok()
}

/// Uses a new user, password or CA for new connections. For another database it drains the worker, so that a
/// new process joins there.
pub(crate) async fn follow_files(
    context: Arc<Context>,
    files: ConnectFiles,
    connect: watch::Sender<Connect>,
    stop: Shutdown,
    background: CancellationToken,
) -> Result<(), WorkerError> {
    let mut current = connect.borrow().clone();
    let mut ticks = interval(READ_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = background.cancelled() => return Ok(()),
            _ = ticks.tick() => (),
        }
        let new = files.read(&current).await;
        if (&new.url, &new.ca_pem) == (&current.url, &current.ca_pem) {
            continue;
        }
        current = new.clone();
        match context.db.follow(&new) {
            Ok(true) => {
                tracing::info!("the database's URL or CA has changed; new connections use it");
                connect.send_replace(new);
            }
            // Heartbeats stay with the database that has the leases. In a copy of that database this instance
            // would seem alive.
            Ok(false) => {
                tracing::info!(
                    "the URL names another database now; draining, so that a new process joins there"
                );
                stop.drain();
            }
            Err(error) => {
                tracing::warn!(%error, "the database's URL or CA has changed, but cannot be used");
            }
        }
    }
}
