//! Checks that no task was lost.

use sqlx::Row;

use crate::{Db, Result, db::query};

/// Sums over the tasks of a queue that are still kept. `enqueued` equals `completed` + `dead` + `cancelled` +
/// `open`, and `untraced` is 0.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Audit {
    /// The queue's name.
    pub queue: String,
    /// All tasks.
    pub enqueued: i64,
    /// Completed tasks.
    pub completed: i64,
    /// Dead tasks.
    pub dead: i64,
    /// Cancelled tasks.
    pub cancelled: i64,
    /// Scheduled, available, running or retryable tasks.
    pub open: i64,
    /// Tasks that are in no table. More than 0 is a bug.
    pub untraced: i64,
}

/// Adds up the tasks of every queue. It reads all tables, so use it in tests, and to check a suspicion.
pub async fn audit(db: &Db) -> Result<Vec<Audit>> {
    let rows = db.all_without_timeout(query("select * from rowlock.audit()")).await?;
    rows.iter()
        .map(|row| {
            Ok(Audit {
                queue: row.try_get("queue")?,
                enqueued: row.try_get("enqueued")?,
                completed: row.try_get("completed")?,
                dead: row.try_get("dead")?,
                cancelled: row.try_get("cancelled")?,
                open: row.try_get("open")?,
                untraced: row.try_get("untraced")?,
            })
        })
        .collect()
}
