//! The instance's turns at maintenance.

use std::sync::Arc;
use std::time::Duration;

use rowlock_queue::Maintainer;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::ended::WorkerError;
use crate::shared::Shared;

/// The mover wants about one turn a second over all instances; the sweeper one in two, over those of its queue. A little more than a
/// heartbeat: with it and the housekeeping an idle instance stays below two statements a second.
const CARE_INTERVAL: Duration = Duration::from_millis(1200);

/// Stray leases are a minute old at least.
const STRAYS_EVERY: Duration = Duration::from_mins(1);

/// Takes its turn at moving, sweeping, rescuing and pruning.
pub(crate) async fn care_on(shared: Arc<Shared>, stop: CancellationToken) -> Result<(), WorkerError> {
    let mut maintainer = Maintainer::of_instance(shared.instance, shared.queue_id);
    let mut turn = interval(CARE_INTERVAL);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked_for_strays = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = turn.tick() => (),
        }
        // Not cut short by the stop: a turn is bounded by the statement's timeout.
        let watermarks = shared.watermarks();
        if let Some(noted) = shared.take_note() {
            maintainer.note(&noted);
        }
        match maintainer
            .run_once(&shared.db, shared.fence.chain_since().map(Instant::into_std), Some(&watermarks))
            .await
        {
            Ok(report) => {
                shared.database_answered("maintenance");
                shared.metrics.cared(&report);
            }
            Err(error) => shared.database_failed("maintenance", &error),
        }
        if STRAYS_EVERY <= looked_for_strays.elapsed() {
            looked_for_strays = Instant::now();
            release_unknown_leases(&shared).await;
        }
    }
}

/// A claim may run in the database after its asker has given it up: nobody would ever do its tasks.
async fn release_unknown_leases(shared: &Shared) {
    match rowlock_queue::release_unknown_leases(&shared.db, shared.instance, &shared.leases.known()).await {
        Ok(0) => shared.database_answered("handing back"),
        Ok(tasks) => {
            shared.database_answered("handing back");
            tracing::warn!(tasks, "handed back tasks of a claim that came through after it was given up");
        }
        Err(error) => shared.database_failed("handing back", &error),
    }
}
