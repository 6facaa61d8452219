//! Enqueues a task, for the command line, tests and benchmarks. Applications call the same SQL functions in
//! their own transactions.

use std::time::Duration;

use serde_json::{Map, Value, json};
use sqlx::types::Json;

use crate::{Db, Result, TaskId, db::query, partitions::extend_partitions};

/// Options of a task that differ from the queue's defaults.
#[derive(Debug, Clone, Default)]
pub struct EnqueueOptions {
    /// The priority, 0 to 3: 0 is claimed first. The default is 1.
    pub priority: Option<u8>,
    /// The delay before the task may run.
    pub delay: Option<Duration>,
    /// The number of attempts, instead of the queue's number.
    pub max_attempts: Option<u16>,
    /// The producer's trace: a `traceparent` of W3C Trace Context.
    pub traceparent: Option<String>,
    /// The `tracestate` that belongs to it.
    pub tracestate: Option<String>,
    /// `false` sends no NOTIFY. A transaction that will be prepared needs this.
    pub notify: Option<bool>,
}

impl EnqueueOptions {
    pub(crate) fn to_json(&self) -> Json<Value> {
        let mut options = Map::new();
        if let Some(priority) = self.priority {
            options.insert("priority".into(), json!(priority));
        }
        if let Some(delay) = self.delay {
            // Split in two, because PostgreSQL 14 reads at most 24 days from milliseconds alone.
            let (seconds, millis) = (delay.as_secs(), delay.subsec_millis());
            options.insert("delay".into(), json!(format!("{seconds} seconds {millis} milliseconds")));
        }
        if let Some(attempts) = self.max_attempts {
            options.insert("max_attempts".into(), json!(attempts));
        }
        if let Some(traceparent) = &self.traceparent {
            options.insert("traceparent".into(), json!(traceparent));
        }
        if let Some(tracestate) = &self.tracestate {
            options.insert("tracestate".into(), json!(tracestate));
        }
        if let Some(notify) = self.notify {
            options.insert("notify".into(), json!(notify));
        }
        Json(Value::Object(options))
    }
}

/// Enqueues a task. `payload` is JSON text, which is kept byte for byte.
pub async fn enqueue(
    db: &Db,
    queue: &str,
    kind: &str,
    payload: &str,
    options: &EnqueueOptions,
) -> Result<TaskId> {
    let statement = || {
        query("select rowlock.enqueue($1, $2, $3::text, $4::jsonb)")
            .bind(queue)
            .bind(kind)
            .bind(payload)
            .bind(options.to_json())
    };
    let id = match db.scalar(statement()).await {
        // The clock stepped to a time without partitions. A login that may only enqueue cannot make them.
        Err(error) if error.lacks_partition() => match extend_partitions(db).await {
            Ok(_) => db.scalar(statement()).await?,
            Err(_) => return Err(error),
        },
        id => id?,
    };
    Ok(TaskId(id))
}
