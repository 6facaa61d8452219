//! The life of an instance: join, drain, leave.

use rowlock_crds::Policy;
use sqlx::Row;

use crate::{
    Db, InstanceId, QueueId, Result, Token, Watermarks, db::query, declare::policy, extend_partitions,
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
    /// Read the policy again when a heartbeat names another.
    pub policy_generation: i64,
    /// Of tasks enqueued without a number of their own.
    pub max_attempts: u16,
    /// From where on to claim.
    pub watermarks: Watermarks,
}

/// Joins a queue with room for `capacity` workers. `name` is for people: the pod's.
pub async fn join(db: &Db, queue: &str, name: &str, capacity: u32) -> Result<Joined> {
    let asked = || {
        query("select id, queue, rowlock.published_watermarks(queue) from rowlock.join($1, $2, $3)")
            .bind(queue.to_owned())
            .bind(name.to_owned())
            .bind(i32::try_from(capacity).unwrap_or(i32::MAX))
    };
    let row = match db.one(asked()).await {
        // Everybody was away for longer than partitions had been made ahead.
        Err(error) if error.lacks_partition() => {
            extend_partitions(db).await?;
            db.one(asked()).await?
        }
        row => row?,
    };
    let queue = QueueId(row.try_get(1)?);
    let (policy_generation, policy, max_attempts) = policy(db, queue).await?;
    Ok(Joined {
        instance: InstanceId(row.try_get(0)?),
        queue,
        policy,
        policy_generation,
        max_attempts,
        watermarks: Watermarks::starting_at(row.try_get(2)?),
    })
}

/// Claims nothing and is granted nothing from now on.
pub async fn drain(db: &Db, instance: InstanceId) -> Result<()> {
    db.all(query("select rowlock.drain($1)").bind(instance.0)).await?;
    Ok(())
}

/// Hands back what is still leased, without using an attempt, and ends the instance. Returns how many tasks that were.
pub async fn leave(db: &Db, instance: InstanceId) -> Result<u64> {
    let back: i64 = db.one(query("select rowlock.leave($1)").bind(instance.0)).await?.try_get(0)?;
    Ok(back.unsigned_abs())
}

/// Hands back leases over a minute old that the instance does not know of: a claim may run after its asker gave it up. Returns how
/// many tasks that were. Call it about once a minute.
pub async fn release_unknown_leases(db: &Db, instance: InstanceId, known: &[Token]) -> Result<u64> {
    let known: Vec<i64> = known.iter().map(|token| token.0).collect();
    let row =
        db.one(query("select rowlock.release_unknown_leases($1, $2)").bind(instance.0).bind(known)).await?;
    Ok(u64::from(row.try_get::<i32, _>(0)?.unsigned_abs()))
}
