//! Renews the instance's right to its leases and brings back what it may do.

use std::sync::Arc;
use std::time::Duration;

use rowlock_queue::{ExclusiveOperation, HEARTBEAT_INTERVAL, Heartbeat, HeartbeatReply, LockHolder};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::ended::WorkerError;
use crate::line::{Line, News};
use crate::shared::{InForce, Shared};
use crate::workers::Snapshot;

/// A heartbeat out of turn is cheap but not free: no more than one in this time.
const NUDGE_GAP: Duration = Duration::from_millis(100);

/// Sends heartbeats until `stop`, or until the queue says that this instance is gone.
pub(crate) async fn beat_on(
    shared: Arc<Shared>,
    mut line: Line,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let mut slept = false;
    while !shared.fence.tripped().is_cancelled() {
        // From before the heartbeat is sent: what the database counts can only be later.
        let sent = Instant::now();
        let mut snapshot = shared.workers.snapshot();
        snapshot.sleeps &= line.hears();
        beat_once(&shared, &mut line, snapshot, sent).await;
        if snapshot.sleeps && !slept {
            // Only now will somebody send NOTIFY for us: look once more for what came before that.
            shared.workers.wake.notify_one();
        }
        slept = snapshot.sleeps;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            // A heartbeat and leaving exclude each other.
            () = shared.leaving.cancelled() => return Ok(()),
            () = next_beat(&shared, &mut line, sent) => (),
        }
    }
    Ok(())
}

/// Waits until it is time for the next heartbeat, and wakes the claimer meanwhile whenever a NOTIFY arrives.
async fn next_beat(shared: &Shared, line: &mut Line, sent: Instant) {
    let mut at = sent + HEARTBEAT_INTERVAL;
    loop {
        tokio::select! {
            () = sleep_until(at) => return,
            () = shared.nudge.notified() => at = at.min(sent + NUDGE_GAP),
            news = line.news() => match news {
                News::Rang(queue) if queue == shared.queue_id => shared.workers.wake.notify_one(),
                News::Rang(_) => (),
                News::Opened => {
                    shared.workers.wake.notify_one();
                    shared.nudge.notify_one();
                }
                News::Lost(error) => {
                    shared.metrics.error(error.metric_label());
                    tracing::debug!(%error, "not listening for NOTIFY; polling until it is back");
                }
            },
        }
    }
}

async fn beat_once(shared: &Shared, line: &mut Line, snapshot: Snapshot, sent: Instant) {
    let watermarks = shared.watermarks();
    let heartbeat = Heartbeat {
        instance: shared.instance,
        held: snapshot.held,
        wants: snapshot.wants,
        allocated: snapshot.allowed,
        acknowledged: snapshot.acknowledged,
        watermarks: &watermarks,
        idle: snapshot.sleeps,
        service_millis: shared.service_millis(),
    };
    match line.heartbeat(&shared.db, &heartbeat).await {
        Ok(heartbeat) if heartbeat.gone => shared.fence.trip("the queue declared this instance gone"),
        Ok(heartbeat) => {
            shared.fence.renew(sent);
            shared.database_answered("heartbeat");
            take_in(shared, &heartbeat, snapshot).await;
        }
        Err(error) => {
            if !shared.leaving.is_cancelled() {
                shared.metrics.beat_failed();
            }
            shared.fence.break_chain();
            shared.database_failed("heartbeat", &error);
        }
    }
}

async fn tell_who_starves_us(shared: &Shared) {
    let holders = rowlock_queue::lock_holders(&shared.db).await.unwrap_or_default();
    let grants =
        |holder: &LockHolder| holder.duty == ExclusiveOperation::Allocate && holder.queue == shared.queue_id;
    let holder = holders.into_iter().find(grants);
    let (holder, cure) =
        holder.map_or_else(|| ("unknown".into(), String::new()), |found| (found.who, found.cure));
    tracing::warn!(%holder, "tasks wait, and no workers are granted: a session holds the lock for that; {cure}");
}

/// Puts in force what the heartbeat brought. Failures here only wait for the next heartbeat.
async fn take_in(shared: &Shared, heartbeat: &HeartbeatReply, snapshot: Snapshot) {
    if shared.fence.tripped().is_cancelled() {
        return;
    }
    shared.workers.allocate(heartbeat.allocation, heartbeat.slots, heartbeat.paused);
    let waits = heartbeat.slots == 0 && snapshot.wants > 0 && heartbeat.available && !heartbeat.paused;
    if shared.starved.see(waits, heartbeat.allocation_missed) {
        tell_who_starves_us(shared).await;
    }
    shared.advance_watermarks(&heartbeat.watermark_observation);
    shared.note(heartbeat.noted);
    for &task in &heartbeat.cancelled {
        if shared.workers.stop(task) {
            tracing::info!(%task, "the task was cancelled; its run is stopped");
        }
    }
    if heartbeat.allocation != snapshot.acknowledged {
        // Acknowledged soon, so that what we gave back can be granted to others.
        shared.nudge.notify_one();
    }
    if heartbeat.available {
        shared.workers.wake.notify_one();
    }
    if heartbeat.policy_generation != shared.policy().generation {
        match rowlock_queue::policy(&shared.db, shared.queue_id).await {
            Ok((generation, policy, max_attempts)) => {
                shared.database_answered("policy");
                tracing::info!(generation, "the queue's policy changed");
                shared.set_policy(InForce { generation, policy, max_attempts });
            }
            Err(error) => shared.database_failed("policy", &error),
        }
    }
}
