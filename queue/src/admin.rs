//! What people do to tasks: cancel, retry, audit.

use sqlx::Row;

use crate::{Db, Result, TaskId, db::query};

/// What became of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It will not run.
    Done,
    /// It runs: its instance is told with its next heartbeat.
    Requested,
    /// There is no such task.
    NotFound,
    /// It is completed, dead or cancelled already.
    Finished,
}

/// Cancels a task.
pub async fn cancel(db: &Db, task: TaskId) -> Result<Cancelled> {
    let row = db.one(query("select rowlock.cancel($1)").bind(task.0)).await?;
    Ok(match row.try_get::<Option<&str>, _>(0)? {
        Some("cancelled") => Cancelled::Done,
        Some("requested") => Cancelled::Requested,
        Some(_) => Cancelled::Finished,
        None => Cancelled::NotFound,
    })
}

/// Makes dead tasks available again, with all their attempts. Returns how many were dead.
pub async fn retry(db: &Db, ids: &[TaskId]) -> Result<u64> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let row = db.one(query("select rowlock.retry(null, $1)").bind(ids)).await?;
    Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
}

/// The same for every dead task of a queue, in batches.
pub async fn retry_all_dead(db: &Db, queue: &str) -> Result<u64> {
    let mut retried = 0;
    loop {
        let row = db.one(query("select rowlock.retry($1, null)").bind(queue)).await?;
        match row.try_get::<i64, _>(0)?.unsigned_abs() {
            0 => return Ok(retried),
            batch => retried += batch,
        }
    }
}

/// Deletes a queue that nothing declares any more; with `force` also one that is used: its instances are gone then, its tasks cancelled.
/// Returns how many tasks those were.
pub async fn delete_queue(db: &Db, queue: &str, force: bool) -> Result<u64> {
    let rows =
        db.all_without_timeout(query("select rowlock.delete_queue($1, $2)").bind(queue).bind(force)).await?;
    rows.first().map_or(Ok(0), |row| Ok(row.try_get::<i64, _>(0)?.unsigned_abs()))
}

/// The sum over a queue's kept tasks: enqueued = completed + dead + cancelled + open, and none untraced.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Audit {
    /// The queue's name.
    pub queue: String,
    /// Tasks that are kept.
    pub enqueued: i64,
    /// With a receipt.
    pub completed: i64,
    /// Dead.
    pub dead: i64,
    /// Cancelled.
    pub cancelled: i64,
    /// Scheduled, available, running or retryable.
    pub open: i64,
    /// Without any evidence: an alarm.
    pub untraced: i64,
}

/// Adds up every queue. Reads everything: for tests, and for people in doubt.
pub async fn audit(db: &Db) -> Result<Vec<Audit>> {
    let rows = db.all_without_timeout(query("select * from rowlock.audit()")).await?;
    rows.iter()
        .map(|row| {
            Ok(Audit {
                queue: row.try_get(0)?,
                enqueued: row.try_get(1)?,
                completed: row.try_get(2)?,
                dead: row.try_get(3)?,
                cancelled: row.try_get(4)?,
                open: row.try_get(5)?,
                untraced: row.try_get(6)?,
            })
        })
        .collect()
}
