//! How long the operator's look at a busy database takes, with a long backlog and a long history.

use std::time::{Duration, Instant};

use anyhow::Result;
use rowlock_queue::queue_stats;

use crate::measurements::in_process::Instances;
use crate::measurements::load::{Load, load};
use crate::measurements::produce::steadily;
use crate::samples::{median, millis};
use crate::table::Row;
use crate::testbed::{Database, Testbed};

const DONE: u32 = 10_000_000;
const BACKLOG: u32 = 5_000_000;
const PER_SECOND: f64 = 10_000.0;
/// The instances that make the history: as quick as they can be.
const FAST: (u32, u32) = (2, 2000);
/// An instance that completes about as many tasks as are enqueued.
const SLOTS: u32 = 16;
const WORK: Duration = Duration::from_millis(1);
const WINDOW: Duration = Duration::from_secs(20);
const LOOKS: u32 = 40;
const GOAL_MS: f64 = 3.0;

/// Measured once, however many repeats there are, since the history takes minutes.
pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let database = testbed.queue(FAST.0 * FAST.1).await?;
    make_history(testbed, &database).await?;
    load(&database, testbed.scaled(BACKLOG), Load::Bulk).await?;
    database.settle_down().await?;
    let mut instances = Instances::start(&database, 1, SLOTS, WORK)?;
    let window = testbed.window(WINDOW);
    let (_, samples) = tokio::try_join!(steadily(&database, PER_SECOND, window), look(&database, window))?;
    let rate = instances.rate(Duration::from_secs(1)).await?;
    eprintln!("  statistics, while {rate:.0} tasks/s were completed");
    instances.drain().await?;
    testbed.discard(database).await?;
    let name = "statistics, 10,000/s, 5M waiting, 10M done";
    Ok(vec![Row::without_peer(name, median(&samples), "ms", Some(GOAL_MS))])
}

async fn make_history(testbed: &Testbed, database: &Database) -> Result<()> {
    let done = testbed.scaled(DONE);
    load(database, done, Load::Bulk).await?;
    let mut instances = Instances::start(database, FAST.0, FAST.1, Duration::ZERO)?;
    instances.work_off(database, done).await?;
    instances.drain().await
}

/// Milliseconds of each look.
async fn look(database: &Database, window: Duration) -> Result<Vec<f64>> {
    let db = database.connect(1).await?;
    let mut samples = Vec::new();
    for _ in 0..LOOKS {
        tokio::time::sleep(window / LOOKS).await;
        let started = Instant::now();
        queue_stats(&db).await?;
        samples.push(millis(started.elapsed()));
    }
    db.close().await;
    Ok(samples)
}
