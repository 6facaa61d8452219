//! The statistics by which the operator scales: all queues of a database in one statement.

use sqlx::{Row, postgres::PgRow};

use crate::{Db, QueueId, Result, Runs, db::query};

/// How many seconds back `rowlock.recent_arrivals` counts, with the current one.
pub const ARRIVAL_SECONDS: usize = 11;

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
    /// Retryable tasks, suspects included.
    pub retryable: i64,
    /// Suspects that wait to run alone.
    pub suspects: i64,
    /// For how long the oldest of them has waited, in seconds.
    pub oldest_suspect_seconds: Option<f64>,
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
    /// The tasks that came in each of the last seconds and could start at once: those of `arrivals_second`
    /// first, then those of the second before it, and so on. Zero where they are not known.
    pub arrivals: [u64; ARRIVAL_SECONDS],
    /// The current second, since 2024, by the database's clock.
    pub arrivals_second: i64,
    /// How many entries of `arrivals` are known, from the first. Fewer than all only after more than 100,000
    /// tasks came to the database within these seconds.
    pub arrivals_known: usize,
    /// All tasks that were enqueued in the same seconds, also those with a delay.
    #[serde(skip)]
    pub enqueued: [u64; ARRIVAL_SECONDS],
    /// Tasks that died within the last 15 minutes, up to 1,000; in a database with more than 100 queues, up
    /// to fewer.
    pub newly_dead: i64,
    /// Live instances.
    pub instances: i64,
    /// Slots that they may use.
    pub allocated: i64,
    /// Slots in use.
    pub busy: i64,
    /// The runs that ended lately in these instances.
    pub runs: Runs,
    /// For how long the running tasks have run on average, in seconds. `None` while none runs, and where that
    /// would read too many rows.
    pub mean_running_seconds: Option<f64>,
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
        let arrivals = by_second(row.try_get("arrivals")?);
        let enqueued = by_second(row.try_get::<Option<_>, _>("enqueued")?.unwrap_or_default());
        let arrivals_known = usize::try_from(row.try_get::<i32, _>("arrivals_known")?).unwrap_or_default();
        Ok(Self {
            queue: QueueId(row.try_get("queue")?),
            name: row.try_get("name")?,
            paused: row.try_get("paused")?,
            total_workers: row.try_get::<i32, _>("total_workers")?.unsigned_abs(),
            available: row.try_get("available")?,
            scheduled: row.try_get("scheduled")?,
            retryable: row.try_get("retryable")?,
            suspects: row.try_get("suspects")?,
            oldest_suspect_seconds: row.try_get("oldest_suspect_seconds")?,
            due_soon: row.try_get("due_soon")?,
            running: row.try_get("running")?,
            dead: row.try_get("dead")?,
            oldest_available_seconds: row.try_get("oldest_seconds")?,
            oldest_by_priority: oldest.try_into().unwrap_or_default(),
            completed_total: row.try_get("completed")?,
            arrivals,
            arrivals_second: row.try_get("arrivals_second")?,
            arrivals_known: arrivals_known.min(ARRIVAL_SECONDS),
            enqueued,
            newly_dead: row.try_get("newly_dead")?,
            instances: row.try_get("instances")?,
            allocated: row.try_get("allocated")?,
            busy: row.try_get("busy")?,
            runs: Runs {
                completed: count(row.try_get("runs")?),
                seconds: row.try_get("run_seconds")?,
                seconds_squared: row.try_get("run_seconds_squared")?,
                failed: count(row.try_get("failures")?),
            },
            mean_running_seconds: row.try_get("mean_running_seconds")?,
        })
    }

    /// Tasks that came per second and could start at once, over the seconds that are known: usually the last
    /// ten and what has passed of the current one. Zero where no second is known.
    #[must_use]
    pub fn arrivals_per_second(&self) -> f64 {
        let known = &self.arrivals[..self.arrivals_known.min(ARRIVAL_SECONDS)];
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let (tasks, seconds) = (
            known.iter().map(|count| *count as f64).sum::<f64>(),
            known.len().saturating_sub(1).max(1) as f64,
        );
        tasks / seconds
    }

    /// How long a run takes on average, in seconds, of those that completed lately.
    #[must_use]
    pub fn mean_service_seconds(&self) -> Option<f64> {
        self.runs.mean_seconds()
    }
}

fn by_second(numbers: Vec<i64>) -> [u64; ARRIVAL_SECONDS] {
    let mut seconds = [0; ARRIVAL_SECONDS];
    for (to, from) in seconds.iter_mut().zip(numbers) {
        *to = count(from);
    }
    seconds
}

/// A count that another program may have reported, so it may be below zero.
fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
