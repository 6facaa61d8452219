//! How fast workers drain a backlog with a no-op handler, compared with River's own client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rowlock_worker::{ExitReason, Fail, Shutdown, Task, Worker, WorkerError};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::measurements::load::{Load, load};
use crate::measurements::river;
use crate::samples::median;
use crate::table::Row;
use crate::testbed::{Database, QUEUE, Testbed};

const TASKS: u32 = 300_000;

/// The best settings for River that we measured. The faster one of a run is the peer.
const RIVER_MAX_WORKERS: [u32; 2] = [500, 2000];

/// Instances in this process, each with the usual two connections.
const INSTANCES: u32 = 2;
const SLOTS: u32 = 2000;
const CONNECTIONS: u32 = 2;

const PATIENCE: Duration = Duration::from_mins(2);

/// How often to check whether the last outcomes are written.
const SETTLED_POLL: Duration = Duration::from_millis(5);

pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let tasks = testbed.scaled(TASKS);
    let (mut singles, mut bulks, mut rivers) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..testbed.repeats {
        singles.push(drain(testbed, tasks, Load::Single).await?);
        for (rates, max_workers) in rivers.iter_mut().zip(RIVER_MAX_WORKERS) {
            rates.push(river::drain(testbed, tasks, max_workers).await?);
        }
        bulks.push(drain(testbed, tasks, Load::Bulk).await?);
    }
    let rates = rivers.each_ref().map(|rates| median(rates));
    let (peer, best) =
        RIVER_MAX_WORKERS.into_iter().zip(rates).fold((String::new(), 0.0), |best, (n, rate)| {
            if rate > best.1 { (format!("River 0.51, MaxWorkers {n}"), rate) } else { best }
        });
    Ok(vec![
        Row::with_peer("drain, one enqueue each", median(&singles), "tasks/s", &peer, best, 2.0),
        Row::with_peer("drain, bulk-enqueued", median(&bulks), "tasks/s", &peer, best, 4.0),
    ])
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
    let (count, last) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let stop = Shutdown::new();
    let mut instances = JoinSet::new();
    let started = Instant::now();
    for number in 0..INSTANCES {
        let worker = build_worker(&database, number, tasks, collector, (&count, &last))?;
        instances.spawn(worker.run(stop.clone()));
    }
    let done = async {
        last.notified().await;
        while leases(&database).await? {
            sleep(SETTLED_POLL).await;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        done = timeout(PATIENCE, done) => {
            let count = || count.load(Ordering::Relaxed);
            done.with_context(|| format!("timed out after {} of {tasks} tasks", count()))??;
        }
        Some(ended) = instances.join_next() => bail!("an instance ended: {:?}", ended?),
    }
    let took = started.elapsed();
    stop.drain();
    end(instances).await?;
    ensure_completed(&database, tasks).await?;
    testbed.discard(database).await?;
    Ok(f64::from(tasks) / took.as_secs_f64())
}

fn build_worker(
    database: &Database,
    number: u32,
    tasks: u32,
    collector: Option<&str>,
    (count, last): (&Arc<AtomicU32>, &Arc<Notify>),
) -> Result<Worker> {
    let (count, last) = (Arc::clone(count), Arc::clone(last));
    let builder = Worker::builder(database.as_connect(CONNECTIONS), QUEUE)
        .name(&format!("bench-{number}"))
        .slots(SLOTS)
        .handler("noop", move |_: Task| {
            if count.fetch_add(1, Ordering::Relaxed) + 1 == tasks {
                last.notify_one();
            }
            async { Ok::<(), Fail>(()) }
        });
    let builder = match collector {
        Some(url) => builder.otlp_endpoint(url)?,
        None => builder,
    };
    Ok(builder.build()?)
}

async fn leases(database: &Database) -> Result<bool> {
    let left = sqlx::query_scalar("select exists (select from rowlock.lease)");
    Ok(left.fetch_one(&database.pool).await?)
}

async fn end(mut instances: JoinSet<Result<ExitReason, WorkerError>>) -> Result<()> {
    while let Some(ended) = instances.join_next().await {
        let ended = ended??;
        ensure!(ended == ExitReason::Drained, "an instance ended {ended:?}");
    }
    Ok(())
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
