//! Follows the files of the database's URL and CA: Kubernetes changes them when somebody changes the Secret.

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

/// How often they are read: a lease lasts three times as long, so a password that is changed at once
/// interrupts nobody. (Kubernetes itself takes up to a minute to change a file.)
const READ_INTERVAL: Duration = Duration::from_secs(5);

/// Where the URL of the database and its CA were read, if they were.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectFiles {
    pub(crate) url: Option<PathBuf>,
    pub(crate) ca: Option<PathBuf>,
}

impl ConnectFiles {
    pub(crate) fn is_empty(&self) -> bool {
        self.url.is_none() && self.ca.is_none()
    }

    /// How to connect by what they say now. While one is replaced there may be none; then it is as before.
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

/// A new user, password or CA is for new connections; another database is for another process, so this one
/// drains.
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
                tracing::info!("the database's URL or CA has changed; new connections follow it");
                connect.send_replace(new);
            }
            // Heartbeats, too, stay where the leases are: in a copy of that database this instance would seem to
            // live.
            Ok(false) => {
                tracing::info!("the URL leads to another database now; draining for a new start");
                stop.drain();
            }
            Err(error) => {
                tracing::warn!(%error, "the database's URL or CA has changed and cannot be followed");
            }
        }
    }
}
