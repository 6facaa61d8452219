//! A steady load while connections of the instance are cut twice a second.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::measurements::in_process::Instances;
use crate::measurements::produce::steadily;
use crate::samples::median;
use crate::table::Row;
use crate::testbed::{Database, Testbed};

const SLOTS: u32 = 64;
const WORK: Duration = Duration::from_millis(1);
const PER_SECOND: f64 = 600.0;
const WINDOW: Duration = Duration::from_secs(30);
const KILL_EVERY: Duration = Duration::from_millis(500);
const GOAL: f64 = 0.98;

const KILL: &str = "select pg_terminate_backend(pid) from pg_stat_activity
  where datname = $1 and application_name like 'rowlock%' order by random() limit 1";

pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let mut shares = Vec::new();
    for _ in 0..testbed.repeats {
        shares.push(share(testbed).await?);
    }
    let name = "600 tasks/s, a connection cut twice a second";
    Ok(vec![Row::with_peer(name, median(&shares) * PER_SECOND, "tasks/s", "offered", PER_SECOND, GOAL)])
}

/// The share of the tasks that started before the window was over.
async fn share(testbed: &Testbed) -> Result<f64> {
    let database = testbed.queue(SLOTS).await?;
    let mut instances = Instances::start(&database, 1, SLOTS, WORK)?;
    steadily(&database, PER_SECOND, Duration::from_secs(2)).await?;
    instances.wait(Duration::from_secs(1)).await?;
    let before = instances.started.load(Ordering::Relaxed);
    let window = testbed.window(WINDOW);
    let (offered, ()) =
        tokio::try_join!(steadily(&database, PER_SECOND, window), cut(testbed, &database, window))?;
    let started = instances.started.load(Ordering::Relaxed) - before;
    instances.drain().await?;
    testbed.discard(database).await?;
    Ok(f64::from(started) / f64::from(offered))
}

async fn cut(testbed: &Testbed, database: &Database, window: Duration) -> Result<()> {
    let end = Instant::now() + window;
    while Instant::now() < end {
        sqlx::query(KILL).bind(&database.name).execute(&testbed.admin).await?;
        sleep(KILL_EVERY).await;
    }
    Ok(())
}
