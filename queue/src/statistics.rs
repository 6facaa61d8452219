//! The statistics by which the operator scales: all queues of a database in one statement.

use sqlx::{Row, postgres::PgRow};

use crate::{Db, QueueId, Result, db::query};

/// The statistics of a queue.
#[derive(Debug, Clone, serde::Serialize)]
pub struct QueueStats {
    /// The id.
    pub queue: QueueId,
    /// Its name.
    pub name: String,
    /// Whether it is paused: no task is claimed.
    pub paused: bool,
    /// The most slots of all instances together.
    pub total_workers: u32,
    /// Available tasks.
    pub available: i64,
    /// Scheduled tasks.
    pub scheduled: i64,
    /// Retryable tasks.
    pub retryable: i64,
    /// Scheduled or retryable tasks due within 5 s.
    pub due_soon: i64,
    /// Running tasks.
    pub running: i64,
    /// Dead tasks.
    pub dead: i64,
    /// Age of the oldest available task, in seconds.
    pub oldest_available_seconds: Option<f64>,
    /// The same for each priority, 0 to 3. A lower priority waits until no task of a higher one is available.
    pub oldest_by_priority: [Option<f64>; 4],
    /// Tasks completed within the last 60 s.
    pub completed_total: i64,
    /// Tasks enqueued per second, over the last 10 s.
    pub arrivals_per_second: f64,
    /// Live instances.
    pub instances: i64,
    /// Slots that they may use.
    pub allocated: i64,
    /// Slots in use.
    pub busy: i64,
    /// The recent mean duration of a task, in seconds.
    pub mean_service_seconds: Option<f64>,
}

/// The statistics of every queue, ordered by name.
pub async fn queue_stats(db: &Db) -> Result<Vec<QueueStats>> {
    let rows = db.all(query("select * from rowlock.statistics()")).await?;
    rows.iter().map(QueueStats::read).collect()
}

impl QueueStats {
    /// A row of `rowlock.statistics()`.
    pub(crate) fn read(row: &PgRow) -> Result<Self> {
        let oldest = row.try_get::<Option<Vec<Option<f64>>>, _>("oldest_by_priority")?.unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let arrivals_per_second = row.try_get::<i64, _>("arrivals")? as f64 / 10.0;
        Ok(Self {
            queue: QueueId(row.try_get("queue")?),
            name: row.try_get("name")?,
            paused: row.try_get("paused")?,
            total_workers: row.try_get::<i32, _>("total_workers")?.unsigned_abs(),
            available: row.try_get("available")?,
            scheduled: row.try_get("scheduled")?,
            retryable: row.try_get("retryable")?,
            due_soon: row.try_get("due_soon")?,
            running: row.try_get("running")?,
            dead: row.try_get("dead")?,
            oldest_available_seconds: row.try_get("oldest_seconds")?,
            oldest_by_priority: oldest.try_into().unwrap_or_default(),
            completed_total: row.try_get("completed")?,
            arrivals_per_second,
            instances: row.try_get("instances")?,
            allocated: row.try_get("allocated")?,
            busy: row.try_get("busy")?,
            mean_service_seconds: row.try_get::<Option<f64>, _>("service_ms")?.map(|millis| millis / 1000.0),
        })
    }
}
