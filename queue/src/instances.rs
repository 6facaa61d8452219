//! The life of an instance: join, drain, leave.

use rowlock_crds::Policy;
use sqlx::{Row, types::Json};

use crate::{Db, InstanceId, QueueId, Result, Watermarks, db::query, partitions::extend_partitions};

/// The values with which an instance starts.
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
    /// The number of attempts of tasks that were enqueued without one.
    pub max_attempts: u16,
    /// Where its claims start.
    pub watermarks: Watermarks,
}

/// Joins a queue with `capacity` slots. `name`, such as the name of the pod, is shown to people.
pub async fn join(db: &Db, queue: &str, name: &str, capacity: u32) -> Result<Joined> {
    join_in_pod(db, queue, name, capacity, None).await
}

/// The same, for an instance in the pod with this UID. [`rescue_pod`](crate::rescue_pod) ends it with its
/// pod.
pub async fn join_in_pod(
    db: &Db,
    queue: &str,
    name: &str,
    capacity: u32,
    pod: Option<&str>,
) -> Result<Joined> {
    let statement = || {
        query(
            "select id, queue, rowlock.published_watermarks(queue) as watermarks
             from rowlock.join($1, $2, $3, $4::text::uuid)",
        )
        .bind(queue.to_owned())
        .bind(name.to_owned())
        .bind(i32::try_from(capacity).unwrap_or(i32::MAX))
        .bind(pod.map(str::to_owned))
    };
    let row = match db.one(statement()).await {
        // No instance ran until the partitions that were made in advance were used up.
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

/// The generation and the policy of a queue, and the number of attempts of its tasks.
pub async fn policy(db: &Db, queue: QueueId) -> Result<(i64, Policy, u16)> {
    let statement = query("select generation, policy, max_attempts from rowlock.policy($1)");
    let row = db.one(statement.bind(queue.0)).await?;
    let Json(policy) = row.try_get("policy")?;
    let max_attempts = u16::try_from(row.try_get::<i16, _>("max_attempts")?).unwrap_or_default();
    Ok((row.try_get("generation")?, policy, max_attempts))
}

/// Makes an instance claim no more tasks and get no more slots.
pub async fn drain(db: &Db, instance: InstanceId) -> Result<()> {
    db.all(query("select rowlock.drain($1)").bind(instance.0)).await?;
    Ok(())
}

/// Ends an instance and releases the tasks that it still holds, without using an attempt. Returns the number
/// of released tasks.
pub async fn leave(db: &Db, instance: InstanceId) -> Result<u64> {
    let released: i64 = db.scalar(query("select rowlock.leave($1)").bind(instance.0)).await?;
    Ok(released.unsigned_abs())
}
