//! The life of an instance: join, drain, leave.

use rowlock_crds::Policy;
use sqlx::Row;

use crate::{
    Db, InstanceId, Lows, QueueId, Result,
    db::{bounded, query},
    declare::policy,
};

/// What an instance starts with.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Its identity; a new one each time it joins.
    pub instance: InstanceId,
    /// Its queue.
    pub queue: QueueId,
    /// What it follows.
    pub policy: Policy,
    /// Read the policy again when a beat says another.
    pub policy_generation: i64,
    /// Of tasks enqueued without a number of their own.
    pub max_attempts: u16,
    /// From where on to claim.
    pub lows: Lows,
}

/// Joins a queue with room for `capacity` workers. `name` is for people: the pod's.
pub async fn join(db: &Db, queue: &str, name: &str, capacity: u32) -> Result<Joined> {
    let row = bounded(
        query("select id, queue, rowlock.published_lows(queue) from rowlock.join($1, $2, $3)")
            .bind(queue)
            .bind(name)
            .bind(i32::try_from(capacity).unwrap_or(i32::MAX))
            .fetch_one(&db.pool),
    )
    .await?;
    let queue = QueueId(row.try_get(1)?);
    let (policy_generation, policy, max_attempts) = policy(db, queue).await?;
    Ok(Joined {
        instance: InstanceId(row.try_get(0)?),
        queue,
        policy,
        policy_generation,
        max_attempts,
        lows: Lows::starting_at(row.try_get(2)?),
    })
}

/// Claims nothing and is granted nothing from now on.
pub async fn drain(db: &Db, instance: InstanceId) -> Result<()> {
    bounded(query("select rowlock.drain($1)").bind(instance.0).execute(&db.pool)).await?;
    Ok(())
}

/// Hands back what is still leased, without using an attempt, and ends the instance. Returns how many tasks that were.
pub async fn leave(db: &Db, instance: InstanceId) -> Result<u64> {
    let back: i64 =
        bounded(query("select rowlock.leave($1)").bind(instance.0).fetch_one(&db.pool)).await?.try_get(0)?;
    Ok(back.unsigned_abs())
}
