//! The life of an instance: join, drain, leave.

use rowlock_crds::Policy;
use sqlx::{Row, types::Json};

use crate::{Db, InstanceId, QueueId, Result, Watermarks, db::query, partitions::extend_partitions};

/// What an instance starts with.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Its id; a new one each time it joins.
    pub instance: InstanceId,
    /// Its queue.
    pub queue: QueueId,
    /// The policy of its queue.
    pub policy: Policy,
    /// The generation of the policy. Read the policy again when a heartbeat names another one.
    pub policy_generation: i64,
    /// The attempts of tasks that were enqueued without a number of their own.
    pub max_attempts: u16,
    /// Where its claims start.
    pub watermarks: Watermarks,
}

/// Joins a queue with `capacity` slots. `name`, such as that of the pod, is shown to people.
pub async fn join(db: &Db, queue: &str, name: &str, capacity: u32) -> Result<Joined> {
    let statement = || {
        query(
            "select id, queue, rowlock.published_watermarks(queue) as watermarks
             from rowlock.join($1, $2, $3)",
        )
        .bind(queue.to_owned())
        .bind(name.to_owned())
        .bind(i32::try_from(capacity).unwrap_or(i32::MAX))
    };
    let row = match db.one(statement()).await {
        // No instance ran for so long that the partitions made in advance are used up.
        Err(error) if error.lacks_partition() => {
            extend_partitions(db).await?;
            db.one(statement()).await?
        }
        row => row?,
    };
    let queue = QueueId(row.try_get("queue")?);
    let (policy_generation, policy, max_attempts) = policy(db, queue).await?;
    Ok(Joined {
        instance: InstanceId(row.try_get("id")?),
        queue,
        policy,
        policy_generation,
        max_attempts,
        watermarks: Watermarks::starting_at(row.try_get("watermarks")?),
    })
}

/// The generation and the policy of a queue, and the attempts of its tasks.
pub async fn policy(db: &Db, queue: QueueId) -> Result<(i64, Policy, u16)> {
    let statement = query("select generation, policy, max_attempts from rowlock.policy($1)");
    let row = db.one(statement.bind(queue.0)).await?;
    let Json(policy) = row.try_get("policy")?;
    let max_attempts = u16::try_from(row.try_get::<i16, _>("max_attempts")?).unwrap_or_default();
    Ok((row.try_get("generation")?, policy, max_attempts))
}

/// Stops an instance from claiming and from being granted slots.
pub async fn drain(db: &Db, instance: InstanceId) -> Result<()> {
    db.all(query("select rowlock.drain($1)").bind(instance.0)).await?;
    Ok(())
}

/// Ends an instance and releases what it still has leased, without using an attempt. Returns the number of
/// released tasks.
pub async fn leave(db: &Db, instance: InstanceId) -> Result<u64> {
    let released: i64 = db.scalar(query("select rowlock.leave($1)").bind(instance.0)).await?;
    Ok(released.unsigned_abs())
}
