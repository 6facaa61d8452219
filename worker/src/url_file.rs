//! Follows the file of the database's URL: Kubernetes changes it when somebody changes the Secret.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rowlock_queue::Connect;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::ended::WorkerError;
use crate::shared::Shared;
use crate::stop::Stop;

/// How often it is read: a lease lasts three times as long, so a password that is changed at once interrupts nobody. (Kubernetes
/// itself takes up to a minute to change the file.)
const LOOK: Duration = Duration::from_secs(5);

/// A new user or password is for new connections; another database is for another process, so this one drains.
pub(crate) async fn follow_url(
    shared: Arc<Shared>,
    file: PathBuf,
    connect: watch::Sender<Connect>,
    stop: Stop,
    background: CancellationToken,
) -> Result<(), WorkerError> {
    let mut known = connect.borrow().url.clone();
    let mut turn = interval(LOOK);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = background.cancelled() => return Ok(()),
            _ = turn.tick() => (),
        }
        // While it is replaced there may be none.
        let Ok(text) = tokio::fs::read_to_string(&file).await else { continue };
        let url = text.trim();
        if url.is_empty() || url == known {
            continue;
        }
        url.clone_into(&mut known);
        let new = Connect { url: known.clone(), ..connect.borrow().clone() };
        match shared.db.follow(&new) {
            Ok(true) => {
                tracing::info!("the database's URL has changed; new connections follow it");
                connect.send_replace(new);
            }
            // Beats, too, stay where the leases are: in a copy of that database this instance would seem to live.
            Ok(false) => {
                tracing::info!("the URL leads to another database now; draining for a new start");
                stop.drain();
            }
            Err(error) => tracing::warn!(%error, "the database's URL has changed and cannot be followed"),
        }
    }
}
