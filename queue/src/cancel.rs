//! Cancelling a task.

use crate::{Db, Result, TaskId, db::query};

/// The answer to a request to cancel a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// The task is cancelled and will not run.
    Done,
    /// The task is running. Its instance is asked to stop it in the reply to the next heartbeat.
    Requested,
    /// There is no such task.
    NotFound,
    /// The task is already completed, dead or cancelled.
    Finished,
}

/// Cancels a task.
pub async fn cancel(db: &Db, task: TaskId) -> Result<Cancelled> {
    let answer: Option<String> = db.scalar(query("select rowlock.cancel($1)").bind(task.0)).await?;
    Ok(match answer.as_deref() {
        Some("cancelled") => Cancelled::Done,
        Some("requested") => Cancelled::Requested,
        Some(_) => Cancelled::Finished,
        None => Cancelled::NotFound,
    })
}
