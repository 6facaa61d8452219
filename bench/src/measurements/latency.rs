//! The time from the commit of an enqueue to the start of the handler, on an idle queue.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rowlock_queue::EnqueueOptions;
use rowlock_worker::{Fail, Shutdown, Task, Worker};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::samples::{median, millis, percentile};
use crate::table::Row;
use crate::testbed::{Database, QUEUE, Testbed};

const SAMPLES: u32 = 100;
const GOAL_P50_MS: f64 = 1.2;
const GOAL_P99_MS: f64 = 6.0;
const SLOTS: u32 = 10;

/// Time for the first heartbeat and the connection that listens.
const UNTIL_IDLE: Duration = Duration::from_secs(2);

/// Between samples, so that the instance is idle again. Its length varies, so that samples do not coincide
/// with heartbeats.
const GAP_LEAST_MILLIS: u32 = 200;
const GAP_SPREAD_MILLIS: u32 = 100;

/// Long enough for a poll, so that a missed NOTIFY shows as a slow sample and not as an error.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let (mut middles, mut lasts) = (Vec::new(), Vec::new());
    for _ in 0..testbed.repeats {
        let database = testbed.queue(SLOTS).await?;
        let samples = sample(&database, testbed.scaled(SAMPLES)).await?;
        middles.push(median(&samples));
        lasts.push(percentile(&samples, 99));
        testbed.discard(database).await?;
    }
    let row = |name: &str, samples: &[f64], goal| Row::without_peer(name, median(samples), "ms", Some(goal));
    Ok(vec![
        row("enqueue committed to handler started, p50", &middles, GOAL_P50_MS),
        row("enqueue committed to handler started, p99", &lasts, GOAL_P99_MS),
    ])
}

async fn sample(database: &Database, samples: u32) -> Result<Vec<f64>> {
    let (started, mut starts) = mpsc::unbounded_channel();
    let worker = Worker::builder(database.as_connect(2), QUEUE)
        .slots(SLOTS)
        .handler("noop", move |_: Task| {
            let _ = started.send(Instant::now());
            async { Ok::<(), Fail>(()) }
        })
        .build()?;
    let stop = Shutdown::new();
    let mut running = std::pin::pin!(worker.run(stop.clone()));
    let sampling = async {
        let db = database.connect(1).await?;
        sleep(UNTIL_IDLE).await;
        let mut latencies = Vec::new();
        for number in 0..samples {
            let gap = GAP_LEAST_MILLIS + number * 37 % GAP_SPREAD_MILLIS;
            sleep(Duration::from_millis(gap.into())).await;
            rowlock_queue::enqueue(&db, QUEUE, "noop", "{}", &EnqueueOptions::default()).await?;
            let committed = Instant::now();
            let start: Instant = timeout(PATIENCE, starts.recv()).await?.context("the instance ended")?;
            latencies.push(millis(start.saturating_duration_since(committed)));
        }
        stop.drain();
        db.close().await;
        anyhow::Ok(latencies)
    };
    let latencies = tokio::select! {
        latencies = sampling => latencies?,
        ended = &mut running => bail!("the instance ended: {ended:?}"),
    };
    running.await?;
    Ok(latencies)
}
