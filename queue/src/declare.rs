//! What a `TaskQueue` declares, written to and read from the database.

use std::time::Duration;

use rowlock_crds::Policy;
use sqlx::{Row, postgres::types::PgInterval, types::Json};

use crate::{Db, QueueId, Result, db::query};

/// The SQLSTATE that refuses to declare a queue which belongs to another owner.
pub const NOT_THE_OWNER: &str = "RL008";

/// A queue as its `TaskQueue` wants it.
#[derive(Debug, Clone)]
pub struct Declaration {
    /// The queue's name.
    pub name: String,
    /// The control plane and the `TaskQueue` that it belongs to.
    pub owner: String,
    /// Grows with every change of the `TaskQueue`; instances read the policy again when it does.
    pub generation: i64,
    /// What instances follow.
    pub policy: Policy,
    /// How many attempts a task has, unless it was enqueued with a number of its own.
    pub max_attempts: u16,
    /// At most this many workers run, over all instances.
    pub total_workers: u32,
    /// Nothing is claimed while true.
    pub paused: bool,
    /// Enqueue refuses beyond this backlog.
    pub backlog_limit: u64,
    /// Enqueue refuses larger payloads, in bytes.
    pub payload_limit: u64,
    /// How long completed tasks are kept.
    pub keep_completed: Duration,
    /// How long dead tasks are kept.
    pub keep_dead: Duration,
    /// How long cancelled tasks are kept.
    pub keep_cancelled: Duration,
    /// Enqueue refuses tasks that are due later than so long from then.
    pub max_delay: Duration,
}

/// Writes a declaration. Writes nothing when nothing changed.
pub async fn declare(db: &Db, queue: &Declaration) -> Result<QueueId> {
    adopt(db, queue, None).await
}

/// The same, and takes the queue over where it belongs to that other owner.
pub async fn adopt(db: &Db, queue: &Declaration, from: Option<&str>) -> Result<QueueId> {
    let row = db
        .one(
            query(
                "select rowlock.declare_queue($1, $2, $3, $4::json, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            )
            .bind(&queue.name)
            .bind(&queue.owner)
            .bind(queue.generation)
            .bind(Json(&queue.policy))
            .bind(i32::from(queue.max_attempts))
            .bind(i32::try_from(queue.total_workers).unwrap_or(i32::MAX))
            .bind(queue.paused)
            .bind(i64::try_from(queue.backlog_limit).unwrap_or(i64::MAX))
            .bind(i32::try_from(queue.payload_limit).unwrap_or(i32::MAX))
            .bind(interval(queue.keep_completed))
            .bind(interval(queue.keep_dead))
            .bind(interval(queue.keep_cancelled))
            .bind(interval(queue.max_delay))
            .bind(from),
        )
        .await?;
    Ok(QueueId(row.try_get(0)?))
}

/// The policy of a queue, with its generation and the attempts of its tasks.
pub async fn policy(db: &Db, queue: QueueId) -> Result<(i64, Policy, u16)> {
    let row = db
        .one(query("select generation, policy, max_attempts from rowlock.policy($1)").bind(queue.0))
        .await?;
    let Json(policy) = row.try_get::<Json<Policy>, _>(1)?;
    Ok((row.try_get(0)?, policy, unsigned(row.try_get(2)?)))
}

/// A count that the database keeps non-negative.
pub(crate) fn unsigned(count: i16) -> u16 {
    u16::try_from(count).unwrap_or_default()
}

fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}
