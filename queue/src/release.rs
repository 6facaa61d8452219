//! Releases leases whose tasks nothing runs.

use crate::{Db, InstanceId, Result, Token, db::query};

/// Releases the leases of an instance that are over a minute old and not in `known`: a claim may succeed
/// after its caller has stopped waiting for it. Returns the number of released tasks. Call it about once a
/// minute.
pub async fn release_unknown_leases(db: &Db, instance: InstanceId, known: &[Token]) -> Result<u64> {
    let known: Vec<i64> = known.iter().map(|token| token.0).collect();
    let statement = query("select rowlock.release_unknown_leases($1, $2)").bind(instance.0).bind(known);
    let released: i32 = db.scalar(statement).await?;
    Ok(released.unsigned_abs().into())
}
