//! The instance's turns at maintenance.

use std::sync::Arc;
use std::time::Duration;

use rowlock_queue::Maintainer;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::error::WorkerError;
use crate::instance::context::Context;

/// The mover wants about one turn a second over all instances; the sweeper one in two, over those of its queue. A little more than a
/// heartbeat: with both, and partition maintenance, an idle instance stays below two statements a second.
const MAINTENANCE_INTERVAL: Duration = Duration::from_millis(1200);

/// Orphaned leases are at least a minute old.
const ORPHANS_INTERVAL: Duration = Duration::from_mins(1);

/// Takes its turn at moving, sweeping, rescuing and pruning.
pub(crate) async fn run_maintenance(
    context: Arc<Context>,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let mut maintainer = Maintainer::of_instance(context.instance, context.queue_id);
    let mut ticks = interval(MAINTENANCE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut released_orphans_at = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => (),
        }
        // Not cut short by the stop: a turn is bounded by the statement's timeout.
        let watermarks = context.watermarks();
        if let Some(noted) = context.take_noted() {
            maintainer.note(&noted);
        }
        match maintainer
            .run_once(&context.db, context.fence.streak_since().map(Instant::into_std), Some(&watermarks))
            .await
        {
            Ok(report) => {
                context.database_answered("maintenance");
                context.metrics.record_maintenance(&report);
            }
            Err(error) => context.database_failed("maintenance", &error),
        }
        if ORPHANS_INTERVAL <= released_orphans_at.elapsed() {
            released_orphans_at = Instant::now();
            release_unknown_leases(&context).await;
        }
    }
}

/// A claim may run in the database after its asker has given it up: nobody would ever do its tasks.
async fn release_unknown_leases(context: &Context) {
    match rowlock_queue::release_unknown_leases(&context.db, context.instance, &context.leases.tokens()).await
    {
        Ok(0) => context.database_answered("release orphaned leases"),
        Ok(tasks) => {
            context.database_answered("release orphaned leases");
            tracing::warn!(tasks, "released tasks of a claim that succeeded after it was given up");
        }
        Err(error) => context.database_failed("release orphaned leases", &error),
    }
}
