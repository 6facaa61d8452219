//! Renews the instance's right to its leases and brings back what it may do.

use std::sync::Arc;
use std::time::Duration;

use rowlock_queue::{BEAT, Beat, BeatIn, Duty, LockHolder};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::ended::WorkerError;
use crate::line::{Line, News};
use crate::shared::{InForce, Shared};
use crate::workers::Snapshot;

/// A beat out of turn is cheap but not free: no more than one in this time.
const NUDGE_GAP: Duration = Duration::from_millis(100);

/// Beats until `stop`, or until the queue says that this instance is gone.
pub(crate) async fn beat_on(
    shared: Arc<Shared>,
    mut line: Line,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let mut slept = false;
    while !shared.fence.tripped().is_cancelled() {
        // From before the beat is sent: what the database counts can only be later.
        let sent = Instant::now();
        let mut snapshot = shared.workers.snapshot();
        snapshot.sleeps &= line.hears();
        beat_once(&shared, &mut line, snapshot, sent).await;
        if snapshot.sleeps && !slept {
            // Only now will somebody ring for us: look once more for what came before that.
            shared.workers.wake.notify_one();
        }
        slept = snapshot.sleeps;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            // A beat and leaving exclude each other.
            () = shared.leaving.cancelled() => return Ok(()),
            () = next_beat(&shared, &mut line, sent) => (),
        }
    }
    Ok(())
}

/// Waits until it is time to beat again, and wakes the claimer meanwhile whenever the bell rings.
async fn next_beat(shared: &Shared, line: &mut Line, sent: Instant) {
    let mut at = sent + BEAT;
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
                    tracing::debug!(%error, "not listening for the bell; polling until it is back");
                }
            },
        }
    }
}

async fn beat_once(shared: &Shared, line: &mut Line, snapshot: Snapshot, sent: Instant) {
    let lows = shared.lows();
    let beat = BeatIn {
        instance: shared.instance,
        held: snapshot.held,
        wants: snapshot.wants,
        allocated: snapshot.allowed,
        acknowledged: snapshot.acknowledged,
        lows: &lows,
        sleeps: snapshot.sleeps,
        service_millis: shared.service_millis(),
    };
    match line.beat(&shared.db, &beat).await {
        Ok(beat) if beat.gone => shared.fence.trip("the queue declared this instance gone"),
        Ok(beat) => {
            shared.fence.renew(sent);
            shared.database_answered("beat");
            take_in(shared, &beat, snapshot).await;
        }
        Err(error) => {
            if !shared.leaving.is_cancelled() {
                shared.metrics.beat_failed();
            }
            shared.fence.break_chain();
            shared.database_failed("beat", &error);
        }
    }
}

async fn tell_who_starves_us(shared: &Shared) {
    let holders = rowlock_queue::lock_holders(&shared.db).await.unwrap_or_default();
    let grants = |holder: &LockHolder| holder.duty == Duty::Allocate && holder.queue == shared.queue_id;
    let holder = holders.into_iter().find(grants);
    let (holder, cure) =
        holder.map_or_else(|| ("unknown".into(), String::new()), |found| (found.who, found.cure));
    tracing::warn!(%holder, "tasks wait, and no workers are granted: a session holds the lock for that; {cure}");
}

/// Puts in force what the beat brought. Failures here only wait for the next beat.
async fn take_in(shared: &Shared, beat: &Beat, snapshot: Snapshot) {
    if shared.fence.tripped().is_cancelled() {
        return;
    }
    shared.workers.allocate(beat.allocation, beat.workers, beat.paused);
    let waits = beat.workers == 0 && snapshot.wants > 0 && beat.available && !beat.paused;
    if shared.starved.see(waits, beat.allocation_missed) {
        tell_who_starves_us(shared).await;
    }
    shared.advance_lows(&beat.lows_seen);
    shared.note(beat.noted);
    for &task in &beat.cancelled {
        if shared.workers.stop(task) {
            tracing::info!(%task, "the task was cancelled; its run is stopped");
        }
    }
    if beat.allocation != snapshot.acknowledged {
        // Acknowledged soon, so that what we gave back can be granted to others.
        shared.nudge.notify_one();
    }
    if beat.available {
        shared.workers.wake.notify_one();
    }
    if beat.policy_generation != shared.policy().generation {
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
