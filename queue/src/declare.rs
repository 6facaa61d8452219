//! Declaring a queue, as its `TaskQueue` says.

use std::time::Duration;

use rowlock_crds::Policy;
use sqlx::{postgres::types::PgInterval, types::Json};

use crate::{Db, QueueId, Result, db::query};

/// The SQLSTATE of the refusal to declare a queue that belongs to another owner.
pub const NOT_THE_OWNER: &str = "RL008";

/// The longest owner: a control plane, a namespace and a name.
pub const LONGEST_OWNER: usize = 200;

/// Whether `rowlock.declare_queue` accepts this owner, which becomes a part of commands for people.
#[must_use]
pub fn is_owner(owner: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-./ ".contains(&c);
    (1..=LONGEST_OWNER).contains(&owner.len()) && owner.bytes().all(allowed)
}

/// A queue as its `TaskQueue` declares it.
#[derive(Debug, Clone)]
pub struct Declaration {
    /// The queue's name.
    pub name: String,
    /// The owner: a control plane and a `TaskQueue` in it.
    pub owner: String,
    /// Grows with every change of the `TaskQueue`. Then instances read the policy again.
    pub generation: i64,
    /// The policy for instances, for example retries and the timeout.
    pub policy: Policy,
    /// The number of attempts of a task that was enqueued without one.
    pub max_attempts: u16,
    /// The most slots of all instances together.
    pub total_workers: u32,
    /// While true, no task is claimed.
    pub paused: bool,
    /// Enqueue refuses tasks above this backlog.
    pub backlog_limit: u64,
    /// Enqueue refuses larger payloads, in bytes.
    pub payload_limit: u64,
    /// How long completed tasks are kept.
    pub keep_completed: Duration,
    /// How long dead tasks are kept.
    pub keep_dead: Duration,
    /// How long cancelled tasks are kept.
    pub keep_cancelled: Duration,
    /// Enqueue refuses tasks with a longer delay.
    pub max_delay: Duration,
}

const DECLARE_QUEUE: &str =
    "select rowlock.declare_queue($1, $2, $3, $4::json, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";

/// Declares a queue. Writes nothing if nothing changed.
pub async fn declare(db: &Db, queue: &Declaration) -> Result<QueueId> {
    adopt(db, queue, None).await
}

/// The same, and takes over a queue that belongs to the owner `from`.
pub async fn adopt(db: &Db, queue: &Declaration, from: Option<&str>) -> Result<QueueId> {
    let statement = query(DECLARE_QUEUE)
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
        .bind(from);
    Ok(QueueId(db.scalar(statement).await?))
}

/// As a Postgres interval; saturating.
fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}
