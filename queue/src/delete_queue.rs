//! Deletes a queue.

use sqlx::Row;

use crate::{Db, Result, db::query};

/// Deletes a queue that no `TaskQueue` declares. With `force`, also deletes a queue that is in use: its
/// instances are ended and its tasks are cancelled. Returns the number of cancelled tasks.
pub async fn delete_queue(db: &Db, queue: &str, force: bool) -> Result<u64> {
    let statement = query("select rowlock.delete_queue($1, $2) as cancelled").bind(queue).bind(force);
    let rows = db.all_without_timeout(statement).await?;
    rows.first().map_or(Ok(0), |row| Ok(row.try_get::<i64, _>("cancelled")?.unsigned_abs()))
}
