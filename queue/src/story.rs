//! What people ask of tasks: one task's whole story, or the tasks of a state.

use serde::Serialize;
use sqlx::Row;

use crate::{Db, Error, Result, TaskId, db::query, declare::unsigned};

/// A failed attempt.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// RFC 3339.
    pub at: String,
    /// Which attempt, from 1; 0: an interruption, which used none.
    pub attempt: u16,
    /// Where it ran.
    pub instance: String,
    /// What went wrong.
    pub error: String,
}

/// All there is to tell of a task. Times are RFC 3339.
#[derive(Clone, Serialize)]
pub struct Story {
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
    pub failures: Vec<Failure>,
    /// Its payload.
    pub payload: Option<String>,
    /// What the handler answered.
    pub result: Option<String>,
}

impl std::fmt::Debug for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Story").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

/// A task in a list.
#[derive(Debug, Clone, Serialize)]
pub struct TaskLine {
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
}

/// The story of a task; `None`: there is no such task, or it was pruned.
pub async fn story(db: &Db, id: TaskId) -> Result<Option<Story>> {
    let row = db.maybe(query(
            "select queue, type, state, priority, attempt, max_attempts, to_json(enqueued_at)#>>'{}', to_json(due_at)#>>'{}',
                    to_json(finished_at)#>>'{}', instance, payload, result, snoozes,
                    to_json(first_snoozed_at)#>>'{}', to_json(snoozed_at)#>>'{}' from rowlock.story($1)",
        )
        .bind(id.0))
    .await?;
    let Some(row) = row else { return Ok(None) };
    let failures = db
        .all(
            query("select to_json(at)#>>'{}', attempt, instance, error from rowlock.failures($1)").bind(id.0),
        )
        .await?;
    Ok(Some(Story {
        id,
        queue: row.try_get(0)?,
        kind: row.try_get(1)?,
        state: row.try_get(2)?,
        priority: u8::try_from(row.try_get::<i16, _>(3)?).unwrap_or_default(),
        attempt: u16::try_from(row.try_get::<i32, _>(4)?).unwrap_or_default(),
        max_attempts: unsigned(row.try_get(5)?),
        enqueued_at: row.try_get(6)?,
        due_at: row.try_get(7)?,
        finished_at: row.try_get(8)?,
        instance: row.try_get(9)?,
        failures: failures
            .iter()
            .map(|row| {
                let (at, attempt) = (row.try_get(0)?, unsigned(row.try_get(1)?));
                Ok(Failure { at, attempt, instance: row.try_get(2)?, error: row.try_get(3)? })
            })
            .collect::<Result<_>>()?,
        payload: row.try_get(10)?,
        result: row.try_get(11)?,
        snoozes: row.try_get::<i32, _>(12)?.unsigned_abs(),
        first_snoozed_at: row.try_get(13)?,
        snoozed_at: row.try_get(14)?,
    }))
}

/// Every state a task may be asked for by.
const STATES: [&str; 7] =
    ["scheduled", "available", "running", "retryable", "completed", "dead", "cancelled"];

/// Tasks of a state, by id, after one of them; completed and cancelled ones of the last day.
pub async fn list(
    db: &Db,
    queue: Option<&str>,
    state: &str,
    limit: u32,
    after: Option<TaskId>,
) -> Result<Vec<TaskLine>> {
    if !STATES.contains(&state) {
        let message = format!("unknown state \"{state}\"");
        return Err(Error::Refused {
            code: "RL005".into(),
            message,
            hint: Some(format!("States are {}.", STATES.join(", "))),
        });
    }
    let rows = db
        .all(
            query(
                "select id, queue_name, type, attempt, to_json(at)#>>'{}' from rowlock.tasks($1, $2, $3, $4)",
            )
            .bind(queue)
            .bind(state)
            .bind(after.map(|id| id.0))
            .bind(i32::try_from(limit).unwrap_or(i32::MAX)),
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(TaskLine {
                id: TaskId(row.try_get(0)?),
                queue: row.try_get(1)?,
                kind: row.try_get::<Option<String>, _>(2)?.unwrap_or_default(),
                state: state.to_owned(),
                attempt: u16::try_from(row.try_get::<i32, _>(3)?).unwrap_or_default(),
                at: row.try_get(4)?,
            })
        })
        .collect()
}
