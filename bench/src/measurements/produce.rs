//! Producers beside an instance: one that keeps a backlog, and one with a steady rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::testbed::Database;

/// Tasks per statement. The peers' producers do the same.
const BATCH: u32 = 128;
/// About how many tasks the producer keeps waiting.
const BACKLOG: u32 = 20_000;
/// A producer that has to wait does so for this long.
const PAUSE: Duration = Duration::from_millis(1);
const PAYLOAD_BYTES: usize = 256;

const ENQUEUE_MANY: &str = "select rowlock.enqueue_many('bench', 'noop', array_fill($1::json, array[$2]))";

/// Adds tasks while it exists, so that about `BACKLOG` wait. `done` counts those that have started.
pub(crate) struct Backlog(JoinHandle<Result<()>>);

impl Backlog {
    pub(crate) async fn keep(database: &Database, done: Arc<AtomicU32>) -> Result<Self> {
        let mut connection = PgConnection::connect(&database.url).await?;
        let payload = payload(None);
        let mut added = 0;
        while added < BACKLOG {
            added += enqueue(&mut connection, &payload, BATCH).await?;
        }
        Ok(Self(tokio::spawn(async move {
            loop {
                if BACKLOG < added.saturating_sub(done.load(Ordering::Relaxed)) {
                    sleep(PAUSE).await;
                } else {
                    added += enqueue(&mut connection, &payload, BATCH).await?;
                }
            }
        })))
    }

    /// Fails if the producer has failed, since the measurement is void then.
    pub(crate) async fn end(mut self) -> Result<()> {
        if self.0.is_finished() {
            return (&mut self.0).await?;
        }
        self.0.abort();
        Ok(())
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Enqueues at a steady rate. Returns how many tasks it enqueued. The payloads say when each was sent; see
/// [`waited`].
pub(crate) async fn steadily(database: &Database, per_second: f64, length: Duration) -> Result<u32> {
    let mut connection = PgConnection::connect(&database.url).await?;
    let (started, mut added) = (Instant::now(), 0);
    while started.elapsed() < length {
        let due = due(per_second, started.elapsed()).saturating_sub(added);
        if due == 0 {
            sleep(PAUSE).await;
        } else {
            let payload = payload(Some(now_micros()));
            added += enqueue(&mut connection, &payload, due.min(BATCH)).await?;
        }
    }
    connection.close().await?;
    Ok(added)
}

/// How long a task of [`steadily`] has waited, in milliseconds.
pub(crate) fn waited(payload: &str) -> Option<f64> {
    let sent = payload.split_once("\"at\":")?.1.split(',').next()?.parse::<f64>().ok()?;
    Some((now_micros() - sent) / 1000.0)
}

async fn enqueue(connection: &mut PgConnection, payload: &str, tasks: u32) -> Result<u32> {
    let statement = sqlx::query(ENQUEUE_MANY).bind(payload).bind(i32::try_from(tasks)?);
    statement.execute(connection).await?;
    Ok(tasks)
}

fn payload(sent_micros: Option<f64>) -> String {
    let at = sent_micros.map(|sent| format!("\"at\":{sent},")).unwrap_or_default();
    format!("{{{at}\"text\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES - at.len() - 11))
}

fn now_micros() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (since.as_secs_f64() * 1e6).round()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of tasks are small and positive"
)]
fn due(per_second: f64, elapsed: Duration) -> u32 {
    (per_second * elapsed.as_secs_f64()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_size_and_says_when_it_was_sent() {
        let sent = payload(Some(now_micros() - 5000.0));
        assert_eq!((sent.len(), payload(None).len()), (PAYLOAD_BYTES, PAYLOAD_BYTES));
        assert!((5.0..1000.0).contains(&waited(&sent).unwrap()), "{sent}");
        assert_eq!(waited(&payload(None)), None);
    }
}
