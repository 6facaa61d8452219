//! All details of one task.

use serde::Serialize;
use sqlx::{Row, postgres::PgRow};

use crate::{Db, Result, TaskId, TaskState, db::query, foreign_text::read};

/// A failed attempt.
#[derive(Debug, Clone, Serialize)]
pub struct TaskError {
    /// When it failed, in RFC 3339.
    pub at: String,
    /// The number of the attempt, from 1. 0 is an interruption, which used no attempt.
    pub attempt: u16,
    /// The name of the instance that ran it.
    pub instance: String,
    /// The error message.
    pub error: String,
}

/// All details of one task. Times are in RFC 3339.
#[derive(Clone, Serialize)]
pub struct TaskDetails {
    /// The id.
    pub id: TaskId,
    /// The name of its queue.
    pub queue: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its state.
    pub state: TaskState,
    /// The priority: 0 (first) to 3.
    pub priority: u8,
    /// How many attempts it has used.
    pub attempt: u16,
    /// How many attempts it may use.
    pub max_attempts: u16,
    /// When it was enqueued, to the second.
    pub enqueued_at: String,
    /// When it becomes available, while it is scheduled or retryable.
    pub due_at: Option<String>,
    /// When it was completed or cancelled, or died.
    pub finished_at: Option<String>,
    /// The name of the instance that runs it or completed it.
    pub instance: Option<String>,
    /// How often its handler snoozed it.
    pub snoozes: u32,
    /// When it was first snoozed.
    pub first_snoozed_at: Option<String>,
    /// When it was last snoozed.
    pub snoozed_at: Option<String>,
    /// The handler ended while it ran, so it runs alone until the handler has answered.
    pub suspect: bool,
    /// The trace that its producer gave, as 32 hexadecimal digits.
    pub trace_id: Option<String>,
    /// Its failed attempts.
    pub errors: Vec<TaskError>,
    /// Its payload.
    pub payload: Option<String>,
    /// The result that its handler returned.
    pub result: Option<String>,
    /// The texts that cannot be read because they are not UTF-8, and why. Such a payload or result is left
    /// out. In other texts a replacement character stands for each invalid part.
    pub unreadable: Vec<String>,
}

impl std::fmt::Debug for TaskDetails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskDetails")
            .field("id", &self.id)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// A text column as bytes, which never fails to decode: see [`read`].
macro_rules! bytes {
    ($column:literal) => {
        concat!("decode(replace(", $column, ", chr(92), repeat(chr(92), 2)), 'escape') as ", $column)
    };
}
pub(crate) use bytes;

/// A time column as RFC 3339.
macro_rules! rfc3339 {
    ($column:literal) => {
        concat!("to_json(", $column, ")#>>'{}' as ", $column)
    };
}
pub(crate) use rfc3339;

const DESCRIBE_TASK: &str = concat!(
    "select queue, state, priority, attempt, max_attempts, snoozes, suspect, trace_id, ",
    bytes!("type"),
    ", ",
    bytes!("instance"),
    ", ",
    bytes!("payload"),
    ", ",
    bytes!("result"),
    ", ",
    rfc3339!("enqueued_at"),
    ", ",
    rfc3339!("due_at"),
    ", ",
    rfc3339!("finished_at"),
    ", ",
    rfc3339!("first_snoozed_at"),
    ", ",
    rfc3339!("snoozed_at"),
    " from rowlock.describe_task($1)"
);

const TASK_ERRORS: &str = concat!(
    "select ",
    rfc3339!("at"),
    ", attempt, ",
    bytes!("instance"),
    ", ",
    bytes!("error"),
    " from rowlock.task_errors($1)"
);

/// The details of a task; `None` if there is no such task, or it was deleted.
pub async fn describe_task(db: &Db, id: TaskId) -> Result<Option<TaskDetails>> {
    let Some(row) = db.maybe(query(DESCRIBE_TASK).bind(id.0)).await? else { return Ok(None) };
    let errors = db.all(query(TASK_ERRORS).bind(id.0)).await?;
    let mut texts = Texts { row: &row, unreadable: Vec::new() };
    let (kind, instance) = (texts.lossy("type")?.unwrap_or_default(), texts.lossy("instance")?);
    let (payload, result) = (texts.strict("payload")?, texts.strict("result")?);
    let mut unreadable = texts.unreadable;
    let errors = errors.iter().map(|row| task_error(row, &mut unreadable)).collect::<Result<_>>()?;
    Ok(Some(TaskDetails {
        id,
        queue: row.try_get("queue")?,
        kind,
        state: TaskState::read(&row)?,
        priority: u8::try_from(row.try_get::<i16, _>("priority")?).unwrap_or_default(),
        attempt: u16::try_from(row.try_get::<i32, _>("attempt")?).unwrap_or_default(),
        max_attempts: u16::try_from(row.try_get::<i16, _>("max_attempts")?).unwrap_or_default(),
        enqueued_at: row.try_get("enqueued_at")?,
        due_at: row.try_get("due_at")?,
        finished_at: row.try_get("finished_at")?,
        instance,
        snoozes: row.try_get::<i32, _>("snoozes")?.unsigned_abs(),
        first_snoozed_at: row.try_get("first_snoozed_at")?,
        snoozed_at: row.try_get("snoozed_at")?,
        suspect: row.try_get("suspect")?,
        trace_id: row.try_get("trace_id")?,
        errors,
        payload,
        result,
        unreadable,
    }))
}

fn task_error(row: &PgRow, unreadable: &mut Vec<String>) -> Result<TaskError> {
    let mut texts = Texts { row, unreadable: Vec::new() };
    let (instance, error) = (texts.lossy("instance")?, texts.lossy("error")?);
    unreadable.append(&mut texts.unreadable);
    Ok(TaskError {
        at: row.try_get("at")?,
        attempt: u16::try_from(row.try_get::<i16, _>("attempt")?).unwrap_or_default(),
        instance: instance.unwrap_or_default(),
        error: error.unwrap_or_default(),
    })
}

/// The text columns of a row, and which of them cannot be read.
struct Texts<'a> {
    row: &'a PgRow,
    unreadable: Vec<String>,
}

impl Texts<'_> {
    /// With replacement characters for invalid parts.
    fn lossy(&mut self, column: &str) -> Result<Option<String>> {
        let Some(bytes) = self.row.try_get::<Option<Vec<u8>>, _>(column)? else { return Ok(None) };
        let read = read(bytes);
        self.unreadable.extend(read.fault.map(|fault| format!("the {column} {fault}")));
        Ok(Some(read.text))
    }

    /// `None` if a part is invalid.
    fn strict(&mut self, column: &str) -> Result<Option<String>> {
        let (faults, text) = (self.unreadable.len(), self.lossy(column)?);
        Ok(text.filter(|_| faults == self.unreadable.len()))
    }
}
