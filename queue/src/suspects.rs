//! Claiming suspects: tasks whose handler ended while they ran.

use sqlx::Row;

use crate::{Claim, Db, InstanceId, Result, TaskId, Token, db::query};

/// Claims the suspect that has been due for longest, under `token`. The instance must run it alone. `None`:
/// no suspect is due, or as many run as may. After an error call it with the same token and `again`: if the
/// claim is still running, this waits for it.
pub async fn claim_suspect(
    db: &Db,
    instance: InstanceId,
    token: Token,
    again: bool,
) -> Result<Option<Claim>> {
    if again {
        db.all(query("select rowlock.await_claims($1)").bind(instance.0)).await?;
    }
    let statement = query("select id, attempt, priority from rowlock.claim_suspect($1, $2)");
    let Some(row) = db.maybe(statement.bind(instance.0).bind(token.0)).await? else { return Ok(None) };
    Ok(Some(Claim {
        id: TaskId(row.try_get("id")?),
        attempt: u16::try_from(row.try_get::<i16, _>("attempt")?).unwrap_or_default(),
        priority: u8::try_from(row.try_get::<i16, _>("priority")?).unwrap_or_default(),
        available_since: None,
    }))
}

/// How the kubelet has reported that the handler of a pod ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedHandler {
    /// The name of its queue.
    pub queue: String,
    /// The owner of that queue. Errors of a queue that belongs to another stay as they are.
    pub owner: String,
    /// The UID of the pod.
    pub uid: String,
    /// The reason and the exit code, such as `OOMKilled, exit code 137`. Cut to 100 characters.
    pub how: String,
}

/// Adds how the handler ended to the errors of the last minute that say that it ended. Returns their number.
/// Only the owner of the tables may call it. It may be called again.
pub async fn name_handler_end(db: &Db, ended: &EndedHandler) -> Result<u64> {
    let statement = query("select rowlock.name_handler_end($1, $2, $3::text::uuid, $4)")
        .bind(ended.queue.clone())
        .bind(ended.owner.clone())
        .bind(ended.uid.clone())
        .bind(ended.how.clone());
    let named: i32 = db.scalar(statement).await?;
    Ok(u64::from(named.unsigned_abs()))
}
