//! Statements per second of an idle instance.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::processes::{Handler, Instance};
use crate::samples::median;
use crate::table::Row;
use crate::testbed::{Database, Testbed};

const SLOTS: u32 = 10;
const WINDOW: Duration = Duration::from_secs(20);
const GOAL_PER_SECOND: f64 = 2.0;

/// After this time the instance has joined, listens, and has claimed for the first time.
const UNTIL_IDLE: Duration = Duration::from_secs(5);

const STATEMENTS: &str = "select coalesce(sum(s.calls), 0)::int8
  from pg_stat_statements s join pg_database d on d.oid = s.dbid where d.datname = $1";

/// For servers that cannot count statements: each statement of an idle instance is a transaction. Autovacuum
/// adds a few.
const TRANSACTIONS: &str = "select xact_commit + xact_rollback from pg_stat_database where datname = $1";

const FREQUENT: &str =
    "select format('%s × %s', s.calls, left(regexp_replace(s.query, '\\s+', ' ', 'g'), 90))
  from pg_stat_statements s join pg_database d on d.oid = s.dbid where d.datname = $1
  order by s.calls desc limit 8";

pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let mut rates = Vec::new();
    for repeat in 0..testbed.repeats {
        rates.push(rate(testbed, repeat == 0).await?);
    }
    let name = "idle instance, statements";
    Ok(vec![Row::without_peer(name, median(&rates), "statements/s", Some(GOAL_PER_SECOND))])
}

async fn rate(testbed: &Testbed, tell: bool) -> Result<f64> {
    let database = testbed.queue(SLOTS).await?;
    let counted = testbed.count_statements(&database).await;
    let handler = Handler::start(testbed, "sleep", "1ms").await?;
    let instance = Instance::start(testbed, &database, &handler, SLOTS)?;
    sleep(UNTIL_IDLE).await;
    // Counted from the maintenance database, so that the query itself does not count.
    let sql = if counted { STATEMENTS } else { TRANSACTIONS };
    let (from, started) = (count(testbed, &database, sql).await?, Instant::now());
    sleep(testbed.window(WINDOW)).await;
    let (to, took) = (count(testbed, &database, sql).await?, started.elapsed());
    if tell && counted {
        for line in frequent(testbed, &database).await? {
            eprintln!("  idle, since the start: {line}");
        }
    }
    instance.kill().await?;
    testbed.discard(database).await?;
    Ok(f64::from(u32::try_from(to - from)?) / took.as_secs_f64())
}

async fn count(testbed: &Testbed, database: &Database, sql: &'static str) -> Result<i64> {
    Ok(sqlx::query_scalar(sql).bind(&database.name).fetch_one(&testbed.admin).await?)
}

/// The most frequent statements, to find what to save.
async fn frequent(testbed: &Testbed, database: &Database) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(FREQUENT).bind(&database.name).fetch_all(&testbed.admin).await?)
}
