//! Retries dead tasks.

use crate::{Db, Result, TaskId, db::query};

/// Makes dead tasks available again, with all their attempts. Returns how many of them were dead.
pub async fn retry(db: &Db, ids: &[TaskId]) -> Result<u64> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let retried: i64 = db.scalar(query("select rowlock.retry(null, $1)").bind(ids)).await?;
    Ok(retried.unsigned_abs())
}

/// The same for all dead tasks of a queue, in batches.
pub async fn retry_all_dead(db: &Db, queue: &str) -> Result<u64> {
    let mut retried = 0;
    loop {
        let batch: i64 = db.scalar(query("select rowlock.retry($1, null)").bind(queue)).await?;
        match batch.unsigned_abs() {
            0 => return Ok(retried),
            batch => retried += batch,
        }
    }
}
