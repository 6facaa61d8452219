//! Lists the tasks in a state.

use serde::Serialize;
use sqlx::Row;

use crate::{
    Db, Result, TaskId, TaskState,
    db::query,
    foreign_text::read,
    inspect::{bytes, rfc3339},
};

/// A task in a list.
#[derive(Debug, Clone, Serialize)]
pub struct TaskSummary {
    /// The id.
    pub id: TaskId,
    /// The name of its queue.
    pub queue: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its state.
    pub state: TaskState,
    /// How many attempts it has used.
    pub attempt: u16,
    /// When the task got into this state. For a scheduled or retryable task: when it is due. RFC 3339.
    pub at: String,
    /// Why its type cannot be read; `None` if it can.
    pub unreadable: Option<String>,
}

const LIST_TASKS: &str = concat!(
    "select id, queue_name, ",
    bytes!("type"),
    ", attempt, ",
    rfc3339!("at"),
    " from rowlock.list_tasks($1, $2, $3, $4)"
);

/// A page of the tasks in a state, after the task `after`. Completed and cancelled tasks of the last day come
/// newest first, available ones in the order of claims, and all others by id.
pub async fn list_tasks(
    db: &Db,
    queue: Option<&str>,
    state: TaskState,
    limit: u32,
    after: Option<TaskId>,
) -> Result<Vec<TaskSummary>> {
    let statement = query(LIST_TASKS)
        .bind(queue)
        .bind(state.as_str())
        .bind(after.map(|id| id.0))
        .bind(i32::try_from(limit).unwrap_or(i32::MAX));
    let rows = db.all(statement).await?;
    rows.iter()
        .map(|row| {
            let kind = read(row.try_get::<Option<Vec<u8>>, _>("type")?.unwrap_or_default());
            Ok(TaskSummary {
                id: TaskId(row.try_get("id")?),
                queue: row.try_get("queue_name")?,
                kind: kind.text,
                state,
                attempt: u16::try_from(row.try_get::<i32, _>("attempt")?).unwrap_or_default(),
                at: row.try_get("at")?,
                unreadable: kind.fault.map(|fault| format!("the type {fault}")),
            })
        })
        .collect()
}
