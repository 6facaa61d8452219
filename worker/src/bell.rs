//! Helpers of the claimer that only save time or share work: the doorbell and the caretakers.

use std::sync::{Arc, atomic::Ordering};
use std::time::Duration;

use rowlock_queue::{BEAT, Caretaker, Connect, Error};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::ended::WorkerError;
use crate::pause::Pause;
use crate::shared::Shared;

/// Without a bell the poll carries on, so there is no hurry to listen again.
const LISTEN_PAUSE: Pause = Pause::new(Duration::from_millis(200), Duration::from_secs(10));

/// The mover and the sweeper want about one turn a second over all instances; each takes its own try-lock. A little more than a
/// beat: with it and the housekeeping an idle instance stays below two statements a second.
const CARE_INTERVAL: Duration = Duration::from_millis(1200);

/// Stray leases are a minute old at least.
const STRAYS_EVERY: Duration = Duration::from_mins(1);

/// Wakes the claimer when the bell rings. A hint: whatever goes wrong here costs at most a poll.
pub(crate) async fn listen_on(
    shared: Arc<Shared>,
    connect: watch::Receiver<Connect>,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let mut pause = LISTEN_PAUSE;
    loop {
        let connect = connect.borrow().clone();
        let error = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            error = listen_once(&shared, &connect, &mut pause) => error,
        };
        shared.hears.store(false, Ordering::Relaxed);
        if matches!(error, Error::NoBell) {
            tracing::info!("{error} every {BEAT:?}");
            stop.cancelled().await;
            return Ok(());
        }
        shared.metrics.error(error.metric_label());
        tracing::debug!(%error, "not listening for the bell; polling until it is back");
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(pause.step()) => (),
        }
    }
}

async fn listen_once(shared: &Shared, connect: &Connect, pause: &mut Pause) -> Error {
    let mut bell = match rowlock_queue::listen(connect).await {
        Ok(bell) => bell,
        Err(error) => return error,
    };
    // What came while nobody listened is looked for at once; from the next beat on producers ring.
    shared.hears.store(true, Ordering::Relaxed);
    shared.workers.wake.notify_one();
    shared.nudge.notify_one();
    loop {
        match bell.wait().await {
            Ok(queue) => {
                pause.reset();
                if queue == shared.queue_id {
                    shared.workers.wake.notify_one();
                }
            }
            Err(error) => return error,
        }
    }
}

/// Takes its turn at moving, sweeping, rescuing and pruning.
pub(crate) async fn care_on(shared: Arc<Shared>, stop: CancellationToken) -> Result<(), WorkerError> {
    let mut caretaker = Caretaker::of_queue(shared.queue_id);
    let mut turn = interval(CARE_INTERVAL);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked_for_strays = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = turn.tick() => (),
        }
        // Not cut short by the stop: a turn is bounded by the statement's timeout.
        let lows = shared.lows();
        match caretaker
            .run_once(&shared.db, shared.fence.chain_since().map(Instant::into_std), Some(&lows))
            .await
        {
            Ok(report) => shared.metrics.cared(&report),
            Err(error) => shared.database_failed("caretaking", &error),
        }
        if STRAYS_EVERY <= looked_for_strays.elapsed() {
            looked_for_strays = Instant::now();
            hand_back_strays(&shared).await;
        }
    }
}

/// A claim may run in the database after its asker has given it up: nobody would ever do its tasks.
async fn hand_back_strays(shared: &Shared) {
    match rowlock_queue::hand_back_strays(&shared.db, shared.instance, &shared.leases.known()).await {
        Ok(0) => (),
        Ok(tasks) => {
            tracing::warn!(tasks, "handed back tasks of a claim that came through after it was given up");
        }
        Err(error) => shared.database_failed("handing back", &error),
    }
}
