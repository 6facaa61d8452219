//! What people ask of tasks: one task's details, or the tasks of a state.

use serde::Serialize;
use sqlx::{Row, postgres::PgRow};

use crate::{Db, Error, Result, TaskId, db::query, declare::unsigned, text::read};

/// A failed attempt.
#[derive(Debug, Clone, Serialize)]
pub struct TaskError {
    /// RFC 3339.
    pub at: String,
    /// Which attempt, from 1; 0: an interruption, which used none.
    pub attempt: u16,
    /// Where it ran.
    pub instance: String,
    /// What went wrong.
    pub error: String,
}

/// Everything known about one task. Times are RFC 3339.
#[derive(Clone, Serialize)]
pub struct TaskDetails {
    /// Which.
    pub id: TaskId,
    /// Its queue.
    pub queue: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `scheduled`, `available`, `running`, `retryable`, `completed`, `dead`, `cancelled`.
    pub state: String,
    /// 0 to 3.
    pub priority: u8,
    /// Attempts used.
    pub attempt: u16,
    /// Attempts it may use.
    pub max_attempts: u16,
    /// When it was enqueued, to the second.
    pub enqueued_at: String,
    /// When it is due, while it waits.
    pub due_at: Option<String>,
    /// When it was completed, cancelled or died.
    pub finished_at: Option<String>,
    /// Where it runs or was completed.
    pub instance: Option<String>,
    /// How often its handler has put it off.
    pub snoozes: u32,
    /// For the first time.
    pub first_snoozed_at: Option<String>,
    /// For the last time.
    pub snoozed_at: Option<String>,
    /// Its failed attempts.
    pub errors: Vec<TaskError>,
    /// Its payload.
    pub payload: Option<String>,
    /// What the handler answered.
    pub result: Option<String>,
    /// What of it cannot be read, and why. Such a payload or result is left out; elsewhere a replacement
    /// character stands for each part.
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

/// A task in a list.
#[derive(Debug, Clone, Serialize)]
pub struct TaskSummary {
    /// Which.
    pub id: TaskId,
    /// Its queue.
    pub queue: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its state.
    pub state: String,
    /// Attempts used.
    pub attempt: u16,
    /// Since when, or when it is due: RFC 3339.
    pub at: String,
    /// Why its type cannot be read, where that is so.
    pub unreadable: Option<String>,
}

/// As bytes, which any text is: see [`read`].
macro_rules! bytes {
    ($column:literal) => {
        concat!("decode(replace(", $column, ", chr(92), repeat(chr(92), 2)), 'escape')")
    };
}

const STORY: &str = concat!(
    "select queue, ",
    bytes!("type"),
    ", state, priority, attempt, max_attempts, to_json(enqueued_at)#>>'{}', to_json(due_at)#>>'{}',
            to_json(finished_at)#>>'{}', ",
    bytes!("instance"),
    ", ",
    bytes!("payload"),
    ", ",
    bytes!("result"),
    ", snoozes, to_json(first_snoozed_at)#>>'{}', to_json(snoozed_at)#>>'{}' from rowlock.describe_task($1)"
);

const FAILURES: &str = concat!(
    "select to_json(at)#>>'{}', attempt, ",
    bytes!("instance"),
    ", ",
    bytes!("error"),
    " from rowlock.task_errors($1)"
);

const TASKS: &str = concat!(
    "select id, queue_name, ",
    bytes!("type"),
    ", attempt, to_json(at)#>>'{}' from rowlock.list_tasks($1, $2, $3, $4)"
);

/// The details of a task; `None`: there is no such task, or it was deleted.
pub async fn describe_task(db: &Db, id: TaskId) -> Result<Option<TaskDetails>> {
    let Some(row) = db.maybe(query(STORY).bind(id.0)).await? else { return Ok(None) };
    let errors = db.all(query(FAILURES).bind(id.0)).await?;
    let mut texts = Texts { row: &row, unreadable: Vec::new() };
    let (kind, instance) = (texts.shown(1, "type")?.unwrap_or_default(), texts.shown(9, "instance")?);
    let (payload, result) = (texts.whole(10, "payload")?, texts.whole(11, "result")?);
    let mut unreadable = texts.unreadable;
    let errors = errors.iter().map(|row| failure(row, &mut unreadable)).collect::<Result<_>>()?;
    Ok(Some(TaskDetails {
        id,
        queue: row.try_get(0)?,
        kind,
        state: row.try_get(2)?,
        priority: u8::try_from(row.try_get::<i16, _>(3)?).unwrap_or_default(),
        attempt: u16::try_from(row.try_get::<i32, _>(4)?).unwrap_or_default(),
        max_attempts: unsigned(row.try_get(5)?),
        enqueued_at: row.try_get(6)?,
        due_at: row.try_get(7)?,
        finished_at: row.try_get(8)?,
        instance,
        errors,
        payload,
        result,
        snoozes: row.try_get::<i32, _>(12)?.unsigned_abs(),
        first_snoozed_at: row.try_get(13)?,
        snoozed_at: row.try_get(14)?,
        unreadable,
    }))
}

fn failure(row: &PgRow, unreadable: &mut Vec<String>) -> Result<TaskError> {
    let mut texts = Texts { row, unreadable: Vec::new() };
    let (instance, error) = (texts.shown(2, "instance")?, texts.shown(3, "error")?);
    unreadable.append(&mut texts.unreadable);
    Ok(TaskError {
        at: row.try_get(0)?,
        attempt: unsigned(row.try_get(1)?),
        instance: instance.unwrap_or_default(),
        error: error.unwrap_or_default(),
    })
}

/// The texts of a row, and what of them cannot be read.
struct Texts<'a> {
    row: &'a PgRow,
    unreadable: Vec<String>,
}

impl Texts<'_> {
    /// Whatever of it can be read.
    fn shown(&mut self, column: usize, name: &str) -> Result<Option<String>> {
        let Some(bytes) = self.row.try_get::<Option<Vec<u8>>, _>(column)? else { return Ok(None) };
        let read = read(bytes);
        self.unreadable.extend(read.fault.map(|fault| format!("the {name} {fault}")));
        Ok(Some(read.text))
    }

    /// All of it or nothing.
    fn whole(&mut self, column: usize, name: &str) -> Result<Option<String>> {
        let (faults, text) = (self.unreadable.len(), self.shown(column, name)?);
        Ok(text.filter(|_| faults == self.unreadable.len()))
    }
}

/// Every state a task may be asked for by.
const STATES: [&str; 7] =
    ["scheduled", "available", "running", "retryable", "completed", "dead", "cancelled"];

/// Tasks of a state, by id, after one of them; completed and cancelled ones of the last day.
pub async fn list_tasks(
    db: &Db,
    queue: Option<&str>,
    state: &str,
    limit: u32,
    after: Option<TaskId>,
) -> Result<Vec<TaskSummary>> {
    if !STATES.contains(&state) {
        let message = format!("unknown state \"{state}\"");
        return Err(Error::Refused {
            code: "RL005".into(),
            message,
            hint: Some(format!("States are {}.", STATES.join(", "))),
        });
    }
    let asked = query(TASKS)
        .bind(queue)
        .bind(state)
        .bind(after.map(|id| id.0))
        .bind(i32::try_from(limit).unwrap_or(i32::MAX));
    let rows = db.all(asked).await?;
    rows.iter()
        .map(|row| {
            let kind = read(row.try_get::<Option<Vec<u8>>, _>(2)?.unwrap_or_default());
            Ok(TaskSummary {
                id: TaskId(row.try_get(0)?),
                queue: row.try_get(1)?,
                kind: kind.text,
                state: state.to_owned(),
                attempt: u16::try_from(row.try_get::<i32, _>(3)?).unwrap_or_default(),
                at: row.try_get(4)?,
                unreadable: kind.fault.map(|fault| format!("the type {fault}")),
            })
        })
        .collect()
}
