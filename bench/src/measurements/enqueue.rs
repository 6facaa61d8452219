//! Enqueue by many clients, one task per transaction, compared with a plain insert of the same payload.

use std::time::Duration;

use anyhow::Result;
use sqlx::{Connection, Executor, PgConnection};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::samples::median;
use crate::table::Row;
use crate::testbed::{Database, Testbed};

const CLIENTS: u32 = 16;
const WINDOW: Duration = Duration::from_secs(8);

/// The size of a typical small event.
const PAYLOAD_BYTES: usize = 200;

const ENQUEUE: &str = "select rowlock.enqueue('bench', 'noop', $1::json)";
const INSERT: &str = "insert into bare (type, payload) values ('noop', $1::json) returning id";
const TABLE: &str = "create table bare (id bigserial primary key, at timestamptz not null default now(),
  type text not null, payload json not null)";

pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..testbed.repeats {
        let database = testbed.database().await?;
        database.pool.execute(TABLE).await?;
        bare.push(rate(testbed, &database, INSERT).await?);
        testbed.discard(database).await?;
        let database = testbed.queue(CLIENTS).await?;
        ours.push(rate(testbed, &database, ENQUEUE).await?);
        testbed.discard(database).await?;
    }
    Ok(vec![Row::with_peer(
        "enqueue, 16 clients",
        median(&ours),
        "tasks/s",
        "bare insert",
        median(&bare),
        0.7,
    )])
}

async fn rate(testbed: &Testbed, database: &Database, sql: &'static str) -> Result<f64> {
    let window = testbed.window(WINDOW);
    let payload = format!("{{\"text\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES - 11));
    let mut connections = Vec::new();
    for _ in 0..CLIENTS {
        let mut connection = PgConnection::connect(&database.url).await?;
        // Prepares and plans the statement and warms caches before the measurement.
        for _ in 0..10 {
            sqlx::query(sql).bind(&payload).execute(&mut connection).await?;
        }
        connections.push(connection);
    }
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for connection in connections {
        clients.spawn(client(connection, sql, payload.clone(), started + window));
    }
    let mut done = 0;
    while let Some(client) = clients.join_next().await {
        done += client??;
    }
    Ok(f64::from(done) / started.elapsed().as_secs_f64())
}

async fn client(
    mut connection: PgConnection,
    sql: &'static str,
    payload: String,
    end: Instant,
) -> Result<u32, sqlx::Error> {
    let mut done = 0;
    while Instant::now() < end {
        sqlx::query(sql).bind(&payload).execute(&mut connection).await?;
        done += 1;
    }
    Ok(done)
}
