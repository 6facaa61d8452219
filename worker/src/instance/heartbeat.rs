//! Sends heartbeats, which renew the instance's leases, and applies the replies: slots, cancels, policy.

use std::sync::Arc;
use std::time::Duration;

use rowlock_queue::{ExclusiveOperation, HEARTBEAT_INTERVAL, Heartbeat, HeartbeatReply, LockHolder};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backoff::with_jitter;
use crate::error::WorkerError;
use crate::instance::context::{ActivePolicy, Context};
use crate::instance::heartbeat_connection::{Event, HeartbeatConnection};
use crate::task::slots::Snapshot;

/// Least time between two heartbeats, since events may ask for one before the next second.
const MIN_HEARTBEAT_GAP: Duration = Duration::from_millis(100);

/// Sends heartbeats until `stop`, or until the queue says that this instance is gone.
pub(crate) async fn run_heartbeats(
    context: Arc<Context>,
    mut connection: HeartbeatConnection,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let mut was_idle = false;
    while !context.fence.tripped().is_cancelled() {
        // Taken before the heartbeat is sent, so that the lease ends here before it ends in the database.
        let sent = Instant::now();
        let mut snapshot = context.slots.snapshot();
        snapshot.idle &= connection.is_listening();
        send_heartbeat(&context, &mut connection, snapshot, sent).await;
        if snapshot.idle && !was_idle {
            // Producers send a NOTIFY only from now on: look once more for tasks that were enqueued before.
            context.slots.wake.notify_one();
        }
        was_idle = snapshot.idle;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            // No heartbeat may be sent while the instance leaves.
            () = context.leaving.cancelled() => return Ok(()),
            () = wait_for_next(&context, &mut connection, sent) => (),
        }
    }
    Ok(())
}

/// Waits until the next heartbeat is due, and wakes the claimer when a NOTIFY arrives.
async fn wait_for_next(context: &Context, connection: &mut HeartbeatConnection, sent: Instant) {
    let mut at = sent + with_jitter(HEARTBEAT_INTERVAL);
    loop {
        tokio::select! {
            () = sleep_until(at) => return,
            () = context.heartbeat_now.notified() => at = at.min(sent + MIN_HEARTBEAT_GAP),
            event = connection.next_event() => match event {
                Event::Notified(queue) if queue == context.queue_id => context.slots.wake.notify_one(),
                Event::Notified(_) => (),
                Event::Opened => {
                    context.slots.wake.notify_one();
                    context.heartbeat_now.notify_one();
                }
                Event::Lost(error) => {
                    context.metrics.error(error.metric_label());
                    tracing::debug!(%error, "not listening for NOTIFY; polling until it is back");
                }
            },
        }
    }
}

async fn send_heartbeat(
    context: &Context,
    connection: &mut HeartbeatConnection,
    snapshot: Snapshot,
    sent: Instant,
) {
    let watermarks = context.watermarks();
    let heartbeat = Heartbeat {
        instance: context.instance,
        held: snapshot.held,
        wants: snapshot.wants,
        allocated: snapshot.allocated,
        acknowledged: snapshot.acknowledged,
        watermarks: &watermarks,
        idle: snapshot.idle,
        runs: context.runs.sums(),
    };
    match connection.send(&context.db, &heartbeat).await {
        Ok(heartbeat) if heartbeat.gone => context.fence.trip("the queue declared this instance gone"),
        Ok(heartbeat) => {
            context.fence.renew(sent);
            context.metrics.heartbeat_answered();
            context.database_answered("heartbeat");
            apply_answer(context, &heartbeat, snapshot).await;
        }
        Err(error) => {
            if !context.leaving.is_cancelled() {
                context.metrics.heartbeat_failed();
            }
            context.fence.break_streak();
            context.database_failed("heartbeat", &error);
        }
    }
}

async fn warn_who_blocks_allocation(context: &Context) {
    let holders = rowlock_queue::lock_holders(&context.db).await.unwrap_or_default();
    let grants = |holder: &LockHolder| {
        holder.operation == ExclusiveOperation::Allocate && holder.queue == context.queue_id
    };
    let holder = holders.into_iter().find(grants);
    let (holder, cure) =
        holder.map_or_else(|| ("unknown".into(), String::new()), |found| (found.who, found.remedy));
    tracing::warn!(%holder, "tasks wait, but no slots can be allocated: a session holds the lock; {cure}");
}

/// Applies the reply to a heartbeat. What fails here is repeated with the next heartbeat.
async fn apply_answer(context: &Context, heartbeat: &HeartbeatReply, snapshot: Snapshot) {
    if context.fence.tripped().is_cancelled() {
        return;
    }
    context.slots.allocate(heartbeat.allocation, heartbeat.slots, heartbeat.paused);
    let waits = heartbeat.slots == 0 && snapshot.wants > 0 && heartbeat.available && !heartbeat.paused;
    if context.allocation_stall.update(waits, heartbeat.allocation_missed) {
        warn_who_blocks_allocation(context).await;
    }
    context.advance_watermarks(&heartbeat.watermark_observation);
    context.set_noted(heartbeat.noted);
    for &task in &heartbeat.cancelled {
        if context.slots.stop(task) {
            tracing::info!(%task, "the task was cancelled; stopping its attempt");
        }
    }
    if heartbeat.allocation != snapshot.acknowledged {
        // Acknowledge it soon, so that slots that we gave up can be granted to other instances.
        context.heartbeat_now.notify_one();
    }
    context.suspects.set_due(heartbeat.suspect_due);
    if heartbeat.available || heartbeat.suspect_due {
        context.slots.wake.notify_one();
    }
    if heartbeat.policy_generation != context.policy().generation {
        match rowlock_queue::policy(&context.db, context.queue_id).await {
            Ok((generation, policy, max_attempts)) => {
                context.database_answered("policy");
                tracing::info!(generation, "applied the queue's changed policy");
                context.set_policy(ActivePolicy { generation, policy, max_attempts });
            }
            Err(error) => context.database_failed("policy", &error),
        }
    }
}
