//! An application with its own connection, short and long transactions, commits and rollbacks. It records the
//! answers.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use fastrand::Rng;
use rowlock_tests::history::Event;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row, types::Json};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    fleet::{Journal, now},
    harness::{Harness, QUEUE},
};

/// A stalled server must not delay the end of the test.
const ANSWER: Duration = Duration::from_secs(20);
const RECONNECT_PAUSE: Duration = Duration::from_millis(300);

/// How a producer behaves.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    rng: Rng,
    seed: u64,
    /// The delay between two transactions, in milliseconds.
    pause: std::ops::Range<u64>,
    /// Of this many transactions one is rolled back and one cancels a task it enqueued; 0: none.
    rolls_back: u32,
    cancels: u32,
    delays: bool,
    bulk: std::ops::Range<usize>,
}

impl Profile {
    pub(crate) fn chaotic(seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        Self { rng, seed, pause: 50..250, rolls_back: 8, cancels: 25, delays: true, bulk: 2..30 }
    }

    pub(crate) fn steady(seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        Self { rng, seed, pause: 50..150, rolls_back: 0, cancels: 0, delays: false, bulk: 2..20 }
    }

    fn one_of(&mut self, many: u32) -> bool {
        many != 0 && self.rng.u32(..many) == 0
    }
}

pub(crate) struct Producer {
    stop: CancellationToken,
    handle: JoinHandle<Result<()>>,
}

impl Producer {
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.handle.await?
    }
}

pub(crate) fn start(harness: &Harness, manner: Profile) -> Producer {
    let stop = CancellationToken::new();
    let path = harness.folder.join(format!("producer-{}.jsonl", manner.seed));
    let handle = tokio::spawn(produce(harness.proxied.clone(), path, manner, stop.clone()));
    Producer { stop, handle }
}

async fn produce(
    url: String,
    path: std::path::PathBuf,
    mut manner: Profile,
    stop: CancellationToken,
) -> Result<()> {
    let journal = Arc::new(Journal::open(&path)?);
    while !stop.is_cancelled() {
        let session = async {
            let mut connection = PgConnection::connect(&url).await?;
            while !stop.is_cancelled() {
                transaction(&mut connection, &journal, &mut manner).await?;
                sleep(Duration::from_millis(manner.rng.u64(manner.pause.clone()))).await;
            }
            Ok::<_, anyhow::Error>(())
        };
        if session.await.is_err() {
            // A commit without an answer is neither committed nor rolled back in the journal: unknown.
            sleep(RECONNECT_PAUSE).await;
        }
    }
    Ok(())
}

/// One transaction with one or two enqueuing statements.
async fn transaction(connection: &mut PgConnection, journal: &Journal, manner: &mut Profile) -> Result<()> {
    let rolls_back = manner.one_of(manner.rolls_back);
    let mut ids = Vec::new();
    let mut transaction = timeout(ANSWER, connection.begin()).await??;
    for _ in 0..=u32::from(manner.one_of(4)) {
        let delay_ms = if manner.delays && manner.one_of(20) { manner.rng.u64(200..6000) } else { 0 };
        let mut options = json!({"priority": manner.rng.u8(0..4)});
        if delay_ms != 0 {
            options["delay"] = Value::from(format!("{delay_ms} milliseconds"));
        }
        if manner.delays && manner.one_of(40) {
            options["max_attempts"] = Value::from(manner.rng.u8(1..4));
        }
        // Measured before the statement, so its due time can only be later.
        let at = now();
        let new = timeout(ANSWER, enqueue(&mut transaction, manner, &options)).await??;
        journal.note(&Event::Enqueued { ids: new.clone(), at, delay_ms })?;
        ids.extend(new);
    }
    if manner.one_of(2) {
        sleep(Duration::from_millis(manner.rng.u64(0..50))).await;
    }
    if rolls_back {
        timeout(ANSWER, transaction.rollback()).await??;
        return journal.note(&Event::RolledBack { ids });
    }
    timeout(ANSWER, transaction.commit()).await??;
    journal.note(&Event::Committed { ids: ids.clone() })?;
    if manner.one_of(manner.cancels) {
        let id = ids[manner.rng.usize(..ids.len())];
        timeout(ANSWER, sqlx::query("select rowlock.cancel($1)").bind(id).execute(connection)).await??;
    }
    Ok(())
}

async fn enqueue(
    connection: &mut PgConnection,
    manner: &mut Profile,
    options: &Value,
) -> Result<Vec<i64>, sqlx::Error> {
    if manner.one_of(10) {
        let payloads: Vec<String> =
            (0..manner.rng.usize(manner.bulk.clone())).map(|n| json!({"n": n}).to_string()).collect();
        let rows = sqlx::query("select rowlock.enqueue_many($1, 'chaos', $2::text[]::json[], $3)")
            .bind(QUEUE)
            .bind(payloads)
            .bind(Json(options))
            .fetch_all(connection)
            .await?;
        return rows.iter().map(|row| row.try_get(0)).collect();
    }
    let row = sqlx::query("select rowlock.enqueue($1, 'chaos', '{\"n\":1}', $2)")
        .bind(QUEUE)
        .bind(Json(options))
        .fetch_one(connection)
        .await?;
    Ok(vec![row.try_get(0)?])
}
