//! Enqueue, for our own command line, tests and benchmarks. Applications call the same SQL functions in their own transaction.

use std::time::Duration;

use serde_json::{Map, Value, json};
use sqlx::{Row, types::Json};

use crate::{Db, Result, TaskId, db::query, partitions::extend_partitions};

/// What may differ from the queue's defaults.
#[derive(Debug, Clone, Default)]
pub struct EnqueueOptions {
    /// 0 to 3; 0 is claimed first. The default is 1.
    pub priority: Option<u8>,
    /// Not before this much later.
    pub delay: Option<Duration>,
    /// Instead of the queue's.
    pub max_attempts: Option<u16>,
    /// `false`: without a NOTIFY, as a transaction needs that is to be prepared.
    pub notify: Option<bool>,
}

impl EnqueueOptions {
    fn to_json(&self) -> Json<Value> {
        let mut options = Map::new();
        if let Some(priority) = self.priority {
            options.insert("priority".into(), json!(priority));
        }
        if let Some(delay) = self.delay {
            // Not as milliseconds alone, of which PostgreSQL 14 reads no more than 24 days.
            let (seconds, millis) = (delay.as_secs(), delay.subsec_millis());
            options.insert("delay".into(), json!(format!("{seconds} seconds {millis} milliseconds")));
        }
        if let Some(attempts) = self.max_attempts {
            options.insert("max_attempts".into(), json!(attempts));
        }
        if let Some(notify) = self.notify {
            options.insert("notify".into(), json!(notify));
        }
        Json(Value::Object(options))
    }
}

/// Enqueues one task; `payload` is JSON text and is kept verbatim.
pub async fn enqueue(
    db: &Db,
    queue: &str,
    kind: &str,
    payload: &str,
    options: &EnqueueOptions,
) -> Result<TaskId> {
    let asked = || {
        query("select rowlock.enqueue($1, $2, $3::text, $4::jsonb)")
            .bind(queue)
            .bind(kind)
            .bind(payload)
            .bind(options.to_json())
    };
    let row = match db.one(asked()).await {
        // The clock made a step to where there is none. Who may only enqueue leaves it to the instances.
        Err(error) if error.lacks_partition() => match extend_partitions(db).await {
            Ok(_) => db.one(asked()).await?,
            Err(_) => return Err(error),
        },
        row => row?,
    };
    Ok(TaskId(row.try_get(0)?))
}

/// Enqueues many in one statement; the ids come in the order of the payloads.
pub async fn enqueue_many(
    db: &Db,
    queue: &str,
    kind: &str,
    payloads: &[String],
    options: &EnqueueOptions,
) -> Result<Vec<TaskId>> {
    let rows = db
        .all(
            query("select rowlock.enqueue_many($1, $2, $3::text[], $4::jsonb)")
                .bind(queue)
                .bind(kind)
                .bind(payloads)
                .bind(options.to_json()),
        )
        .await?;
    rows.iter().map(|row| Ok(TaskId(row.try_get(0)?))).collect()
}
