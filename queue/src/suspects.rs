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
