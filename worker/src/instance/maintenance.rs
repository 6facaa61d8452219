//! The instance's share of maintenance.

use std::sync::Arc;
use std::time::Duration;

use rowlock_queue::Maintainer;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::error::WorkerError;
use crate::instance::context::Context;

/// How often an instance tries to do maintenance. All instances together should do a pass for due tasks about
/// once a second, and a watermark sweep every two seconds per queue. The interval is a little longer than the
/// heartbeat interval, so that an idle instance stays below two statements a second.
const MAINTENANCE_INTERVAL: Duration = Duration::from_millis(1200);

/// How often unknown leases are released. The database releases only leases that are over a minute old.
const ORPHANS_INTERVAL: Duration = Duration::from_mins(1);

/// Moves due tasks, sweeps watermarks, rescues tasks and maintains partitions, unless another instance is
/// doing it.
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
        // A stop does not interrupt a pass; the statement timeout bounds it.
        let watermarks = context.watermarks();
        if let Some(noted) = context.take_noted() {
            maintainer.note(&noted);
        }
        let chain_since = context.fence.streak_since().map(Instant::into_std);
        let pass = maintainer.run_steps(&context.db, chain_since, Some(&watermarks)).await;
        context.metrics.record_maintenance(&pass.report);
        // Each step by itself: steps that work every second must not end an outage of one that fails.
        for (step, done) in &pass.steps {
            match done {
                Ok(()) => context.database_answered(step),
                Err(error) => context.database_failed(step, error),
            }
        }
        if ORPHANS_INTERVAL <= released_orphans_at.elapsed() {
            released_orphans_at = Instant::now();
            release_unknown_leases(&context).await;
        }
    }
}

/// Releases leases that this instance does not know. The database may execute a claim after the client has
/// given up on it. Without this, nothing would run its tasks.
async fn release_unknown_leases(context: &Context) {
    match rowlock_queue::release_unknown_leases(&context.db, context.instance, &context.leases.tokens()).await
    {
        Ok(0) => context.database_answered("release orphaned leases"),
        Ok(tasks) => {
            context.database_answered("release orphaned leases");
            tracing::warn!(
                tasks,
                "released tasks of a claim that succeeded after the worker had given up on it"
            );
        }
        Err(error) => context.database_failed("release orphaned leases", &error),
    }
}
