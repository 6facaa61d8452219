//! How fast workers drain a backlog with a no-op handler, compared with other queues.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, timeout};

use crate::measurements::in_process::Instances;
use crate::measurements::load::{Load, load};
use crate::measurements::peers::Peer;
use crate::samples::median;
use crate::table::Row;
use crate::testbed::{Database, Testbed};

const TASKS: u32 = 300_000;

/// Instances in this process.
const INSTANCES: u32 = 2;
const SLOTS: u32 = 2000;

const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let tasks = testbed.scaled(TASKS);
    let peers = [&Peer::WITH_HISTORY[..], &[Peer::Graphile]].concat();
    let (mut singles, mut bulks, mut rates) = (Vec::new(), Vec::new(), vec![Vec::new(); peers.len()]);
    for _ in 0..testbed.repeats {
        singles.push(drain(testbed, tasks, Load::Single).await?);
        for (rates, peer) in rates.iter_mut().zip(&peers) {
            rates.extend(peer.drain(testbed, tasks).await?);
        }
        bulks.push(drain(testbed, tasks, Load::Bulk).await?);
    }
    let (singles, bulks) = (median(&singles), median(&bulks));
    let measured: Vec<_> = peers.into_iter().zip(&rates).map(|(peer, rates)| (peer, median(rates))).collect();
    let best = measured.iter().filter(|(peer, rate)| *peer != Peer::Graphile && !rate.is_nan());
    let (best, rate) = best.max_by(|a, b| a.1.total_cmp(&b.1)).context("no peer could be measured")?;
    let mut rows = vec![
        Row::with_peer("drain, one enqueue each", singles, "tasks/s", &best.title(), *rate, 3.0),
        Row::with_peer("drain, bulk-enqueued", bulks, "tasks/s", &best.title(), *rate, 6.0),
    ];
    // The other peers have no goal. Graphile Worker deletes what is done, so it has less to write.
    for (peer, rate) in measured.iter().filter(|(peer, rate)| peer != best && !rate.is_nan()) {
        let name = "drain, one enqueue each, beside another peer";
        rows.push(Row::with_peer(name, singles, "tasks/s", &peer.title(), *rate, 1.0).without_goal());
    }
    Ok(rows)
}

async fn drain(testbed: &Testbed, tasks: u32, how: Load) -> Result<f64> {
    drain_with(testbed, tasks, how, None).await
}

/// Tasks per second, from the start of the instances until every outcome is in the database. `collector`:
/// where they send their spans.
pub(crate) async fn drain_with(
    testbed: &Testbed,
    tasks: u32,
    how: Load,
    collector: Option<&str>,
) -> Result<f64> {
    let database = testbed.queue(INSTANCES * SLOTS).await?;
    load(&database, tasks, how).await?;
    database.settle_down().await?;
    let started = Instant::now();
    let mut instances = Instances::start_traced(&database, INSTANCES, SLOTS, Duration::ZERO, collector)?;
    let done = timeout(PATIENCE, instances.work_off(&database, tasks)).await;
    let took = started.elapsed();
    done.with_context(|| {
        let started = instances.started.load(Ordering::Relaxed);
        format!("timed out after {started} of {tasks} tasks")
    })??;
    instances.drain().await?;
    ensure_completed(&database, tasks).await?;
    testbed.discard(database).await?;
    Ok(f64::from(tasks) / took.as_secs_f64())
}

/// Fails unless every task is completed: only then does the number count.
async fn ensure_completed(database: &Database, tasks: u32) -> Result<()> {
    let db = database.connect(1).await?;
    let audit = rowlock_queue::audit(&db).await?;
    db.close().await;
    let completed: i64 = audit.iter().map(|queue| queue.completed).sum();
    ensure!(completed == i64::from(tasks), "{completed} of {tasks} tasks completed: {audit:?}");
    Ok(())
}
