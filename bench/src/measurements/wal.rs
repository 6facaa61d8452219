//! What a task costs the server in its whole life, from the enqueue to its outcome: WAL, compared with COPY
//! of the same payloads, and commits.

use std::time::Duration;

use anyhow::Result;
use sqlx::{Connection, Executor, PgConnection};
use tokio::time::sleep;

use crate::measurements::in_process::Instances;
use crate::measurements::load::{Load, load_with};
use crate::samples::median;
use crate::table::{Better, Row};
use crate::testbed::{Database, Testbed};

const TASKS: u32 = 100_000;
const SLOTS: u32 = 64;
const WORK: Duration = Duration::from_millis(1);
const PAYLOAD_BYTES: usize = 200;

/// Servers publish counts of an idle session within a second.
const UNTIL_COUNTED: Duration = Duration::from_secs(2);

const TABLE: &str = "create table bare (id bigserial primary key, at timestamptz not null default now(),
  type text not null, payload json not null)";
const COPY: &str = "copy bare (type, payload) from stdin";
const WRITTEN: &str = "select (pg_current_wal_insert_lsn() - '0/0')::float8";
const COMMITS: &str = "select xact_commit from pg_stat_database where datname = $1";

pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let tasks = testbed.scaled(TASKS);
    let (mut copies, mut singles, mut bulks, mut commits) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..testbed.repeats {
        copies.push(copy(testbed, tasks).await?);
        singles.push(life(testbed, tasks, Load::Single).await?.0);
        let (bytes, committed) = life(testbed, tasks, Load::Bulk).await?;
        bulks.push(bytes);
        commits.push(committed);
    }
    let copy = median(&copies);
    let wal = |name: &str, bytes: &[f64], goal| {
        Row::with_peer(name, median(bytes), "bytes/task", "COPY", copy, goal).better(Better::Lower)
    };
    let name = "commits of a life after the enqueue, 64 slots";
    Ok(vec![
        wal("WAL of a task's life, bulk-enqueued", &bulks, 1.35),
        wal("WAL of a task's life, one enqueue each", &singles, 2.1),
        Row::without_peer(name, median(&commits), "commits/task", Some(0.05)),
    ])
}

fn payload() -> String {
    format!("{{\"text\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES - 11))
}

/// Bytes of WAL per row.
async fn copy(testbed: &Testbed, rows: u32) -> Result<f64> {
    let database = testbed.database().await?;
    database.pool.execute(TABLE).await?;
    let line = format!("noop\t{}\n", payload());
    let mut connection = PgConnection::connect(&database.url).await?;
    let before = written(&database).await?;
    let mut copy = connection.copy_in_raw(COPY).await?;
    for _ in 0..rows {
        copy.send(line.as_bytes()).await?;
    }
    copy.finish().await?;
    let bytes = (written(&database).await? - before) / f64::from(rows);
    connection.close().await?;
    testbed.discard(database).await?;
    Ok(bytes)
}

/// Bytes of WAL per task, and commits per task after the enqueue.
async fn life(testbed: &Testbed, tasks: u32, how: Load) -> Result<(f64, f64)> {
    let database = testbed.queue(SLOTS).await?;
    let before = written(&database).await?;
    load_with(&database, tasks, how, &payload()).await?;
    sleep(UNTIL_COUNTED).await;
    let committed = commits(testbed, &database).await?;
    let mut instances = Instances::start(&database, 1, SLOTS, WORK)?;
    instances.work_off(&database, tasks).await?;
    instances.drain().await?;
    let bytes = (written(&database).await? - before) / f64::from(tasks);
    sleep(UNTIL_COUNTED).await;
    let committed = commits(testbed, &database).await? - committed;
    testbed.discard(database).await?;
    Ok((bytes, f64::from(u32::try_from(committed)?) / f64::from(tasks)))
}

async fn written(database: &Database) -> Result<f64> {
    Ok(sqlx::query_scalar(WRITTEN).fetch_one(&database.pool).await?)
}

async fn commits(testbed: &Testbed, database: &Database) -> Result<i64> {
    Ok(sqlx::query_scalar(COMMITS).bind(&database.name).fetch_one(&testbed.admin).await?)
}
