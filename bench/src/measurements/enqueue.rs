//! Enqueue by many clients, one task per transaction, compared with a plain insert of the same payload; and
//! by one client in bulk, compared with COPY.

use anyhow::Result;
use rowlock_queue::declare;
use sqlx::{Connection, Executor, PgConnection};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::samples::median;
use crate::table::Row;
use crate::testbed::{Database, Testbed, declaration};

const CLIENTS: u32 = 16;
const QUEUES: u32 = 100;
const WINDOW: Duration = Duration::from_secs(8);

/// The size of a typical small event.
const PAYLOAD_BYTES: usize = 200;

/// Tasks of one bulk statement, which is one transaction.
const BULK: u32 = 1000;

const INSERT: &str = "insert into bare (type, payload) values ('noop', $1::json) returning id";
const ENQUEUE: &str = "select rowlock.enqueue('bench', 'noop', $1::json)";
/// Each client takes another queue for each task.
const ENQUEUE_ANYWHERE: &str = "select rowlock.enqueue('bench-' || $2, 'noop', $1::json)";
const COPY: &str = "copy bare (type, payload) from stdin";
const ENQUEUE_MANY: &str = "select rowlock.enqueue_many('bench', 'noop', $1::json[])";

const TABLE: &str = "create table bare (id bigserial primary key, at timestamptz not null default now(),
  type text not null, payload json not null)";

pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let (mut singles, mut anywhere, mut bulks) = (Vec::new(), Vec::new(), Vec::new());
    let (mut inserts, mut copies) = (Vec::new(), Vec::new());
    for _ in 0..testbed.repeats {
        let database = testbed.database().await?;
        database.pool.execute(TABLE).await?;
        inserts.push(single_rate(testbed, &database, INSERT).await?);
        copies.push(bulk_rate(testbed, &database, COPY).await?);
        testbed.discard(database).await?;
        let database = testbed.queue(CLIENTS).await?;
        singles.push(single_rate(testbed, &database, ENQUEUE).await?);
        bulks.push(bulk_rate(testbed, &database, ENQUEUE_MANY).await?);
        testbed.discard(database).await?;
        let database = hundred_queues(testbed).await?;
        anywhere.push(single_rate(testbed, &database, ENQUEUE_ANYWHERE).await?);
        testbed.discard(database).await?;
    }
    let row = |name: &str, ours: &[f64], peer: &str, theirs: &[f64]| {
        Row::with_peer(name, median(ours), "tasks/s", peer, median(theirs), 0.75)
    };
    Ok(vec![
        row("enqueue, 16 clients", &singles, "bare insert", &inserts),
        row("enqueue, 16 clients, 100 queues", &anywhere, "bare insert", &inserts),
        row("enqueue, 1,000 tasks a statement", &bulks, "COPY", &copies),
    ])
}

async fn hundred_queues(testbed: &Testbed) -> Result<Database> {
    let database = testbed.queue(CLIENTS).await?;
    let db = database.connect(1).await?;
    for number in 0..QUEUES {
        declare(&db, &rowlock_queue::Declaration { name: format!("bench-{number}"), ..declaration(1) })
            .await?;
    }
    db.close().await;
    Ok(database)
}

fn payload() -> String {
    format!("{{\"text\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES - 11))
}

async fn single_rate(testbed: &Testbed, database: &Database, sql: &'static str) -> Result<f64> {
    let window = testbed.window(WINDOW);
    let mut connections = Vec::new();
    for _ in 0..CLIENTS {
        let mut connection = PgConnection::connect(&database.url).await?;
        // Prepares and plans the statement and warms caches before the measurement.
        for number in 0..10 {
            insert_one(&mut connection, sql, &payload(), number).await?;
        }
        connections.push(connection);
    }
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for (connection, number) in connections.into_iter().zip(0..) {
        clients.spawn(client(connection, sql, number, started + window));
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
    number: u32,
    end: Instant,
) -> Result<u32, sqlx::Error> {
    let (payload, mut done) = (payload(), 0);
    while Instant::now() < end {
        insert_one(&mut connection, sql, &payload, number * QUEUES / CLIENTS + done).await?;
        done += 1;
    }
    Ok(done)
}

async fn insert_one(
    connection: &mut PgConnection,
    sql: &'static str,
    payload: &str,
    number: u32,
) -> Result<(), sqlx::Error> {
    let statement = sqlx::query(sql).bind(payload);
    let with_queue = sql == ENQUEUE_ANYWHERE;
    let statement = if with_queue { statement.bind((number % QUEUES).to_string()) } else { statement };
    statement.execute(connection).await?;
    Ok(())
}

/// Tasks, or rows, per second of one client.
async fn bulk_rate(testbed: &Testbed, database: &Database, sql: &'static str) -> Result<f64> {
    let window = testbed.window(WINDOW);
    let mut connection = PgConnection::connect(&database.url).await?;
    let payloads = vec![payload(); BULK as usize];
    let lines = format!("noop\t{}\n", payload()).repeat(BULK as usize);
    let (started, mut done) = (Instant::now(), 0);
    while started.elapsed() < window {
        if sql == COPY {
            let mut copy = connection.copy_in_raw(sql).await?;
            copy.send(lines.as_bytes()).await?;
            copy.finish().await?;
        } else {
            sqlx::query(sql).bind(&payloads).execute(&mut connection).await?;
        }
        done += BULK;
    }
    let rate = f64::from(done) / started.elapsed().as_secs_f64();
    connection.close().await?;
    Ok(rate)
}
