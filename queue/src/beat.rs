//! The beat: I live, I hold so many, I want so many; and what the queue answers.

use std::time::Instant;

use sqlx::{Row, postgres::PgRow};

use crate::{
    Db, InstanceId, Lows, LowsSeen, Noted, Result, TaskId,
    db::{Statement, query},
    partitions::extend_partitions,
};

/// What an instance says of itself.
#[derive(Debug)]
pub struct BeatIn<'a> {
    /// Who.
    pub instance: InstanceId,
    /// Workers in use: tasks running or claimed.
    pub held: u32,
    /// Workers it could use; 0 while it drains.
    pub wants: u32,
    /// Workers that the acknowledged allocation allows.
    pub allocated: u32,
    /// The number of the allocation it keeps to.
    pub acknowledged: i64,
    /// From where on it claims.
    pub lows: &'a Lows,
    /// It had a free worker since its last beat: producers shall ring.
    pub sleeps: bool,
    /// How long a task takes, lately.
    pub service_millis: Option<f64>,
}

/// What the queue answers.
#[derive(Debug)]
pub struct Beat {
    /// The instance was ended by a rescue: stop everything.
    pub gone: bool,
    /// The number of the newest allocation.
    pub allocation: i64,
    /// What it allows.
    pub workers: u32,
    /// Nothing is to be claimed.
    pub paused: bool,
    /// The policy's generation.
    pub policy_generation: i64,
    /// Something is ready.
    pub available: bool,
    /// For [`Lows::advance`].
    pub lows_seen: LowsSeen,
    /// Running tasks that somebody asked to cancel.
    pub cancelled: Vec<TaskId>,
    /// For [`crate::Caretaker::note`].
    pub noted: Noted,
    /// Another session was just granting workers; `None`: it was not this beat's turn to grant any.
    pub allocation_missed: Option<bool>,
}

/// Beats once.
pub async fn beat(db: &Db, beat: &BeatIn<'_>) -> Result<Beat> {
    let sent = Instant::now();
    let row = match db.one(statement(beat)).await {
        // The clock made a step to where there is none.
        Err(error) if error.lacks_partition() => {
            extend_partitions(db).await?;
            db.one(statement(beat)).await?
        }
        row => row?,
    };
    answer(&row, sent)
}

pub(crate) fn statement<'a>(beat: &'a BeatIn<'_>) -> Statement<'a> {
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds for people and a forecast")]
    let service = beat.service_millis.map(|millis| millis as f32);
    query("select * from rowlock.beat($1, $2, $3, $4, $5, $6, $7, $8)")
        .bind(beat.instance.0)
        .bind(i32::try_from(beat.held).unwrap_or(i32::MAX))
        .bind(i32::try_from(beat.allocated).unwrap_or(i32::MAX))
        .bind(beat.acknowledged)
        .bind(i32::try_from(beat.wants).unwrap_or(i32::MAX))
        .bind(beat.lows.as_slice())
        .bind(beat.sleeps)
        .bind(service)
}

pub(crate) fn answer(row: &PgRow, sent: Instant) -> Result<Beat> {
    let least: Vec<Option<i64>> = row.try_get(6)?;
    Ok(Beat {
        gone: row.try_get(0)?,
        allocation: row.try_get(1)?,
        workers: u32::try_from(row.try_get::<i32, _>(2)?).unwrap_or_default(),
        paused: row.try_get(3)?,
        policy_generation: row.try_get(4)?,
        available: least.iter().any(Option::is_some),
        lows_seen: LowsSeen { sent, newest: row.try_get(5)?, least },
        cancelled: row.try_get::<Vec<i64>, _>(7)?.into_iter().map(TaskId).collect(),
        noted: Noted {
            peers: row.try_get(8)?,
            k: row.try_get(9)?,
            xid: row.try_get(10)?,
            xmin: row.try_get(11)?,
        },
        allocation_missed: row.try_get(12)?,
    })
}
