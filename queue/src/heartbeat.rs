//! The heartbeat: I live, I hold so many, I want so many; and what the queue answers.

use std::time::Instant;

use sqlx::{Row, postgres::PgRow};

use crate::{
    Db, HorizonNote, InstanceId, Result, TaskId, WatermarkObservation, Watermarks,
    db::{Statement, query},
    partitions::extend_partitions,
};

/// What an instance says of itself.
#[derive(Debug)]
pub struct Heartbeat<'a> {
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
    pub watermarks: &'a Watermarks,
    /// It had a free worker since its last heartbeat: producers shall send NOTIFY.
    pub idle: bool,
    /// How long a task takes, lately.
    pub service_millis: Option<f64>,
}

/// What the queue answers.
#[derive(Debug)]
pub struct HeartbeatReply {
    /// The instance was ended by a rescue: stop everything.
    pub gone: bool,
    /// The number of the newest allocation.
    pub allocation: i64,
    /// What it allows.
    pub slots: u32,
    /// Nothing is to be claimed.
    pub paused: bool,
    /// The policy's generation.
    pub policy_generation: i64,
    /// Something is ready.
    pub available: bool,
    /// For [`Watermarks::advance`].
    pub watermark_observation: WatermarkObservation,
    /// Running tasks that somebody asked to cancel.
    pub cancelled: Vec<TaskId>,
    /// For [`crate::Maintainer::note`].
    pub noted: HorizonNote,
    /// Another session was just granting workers; `None`: it was not this heartbeat's turn to grant any.
    pub allocation_missed: Option<bool>,
}

/// Sends one heartbeat.
pub async fn heartbeat(db: &Db, heartbeat: &Heartbeat<'_>) -> Result<HeartbeatReply> {
    let sent = Instant::now();
    let row = match db.one(statement(heartbeat)).await {
        // The clock made a step to where there is none.
        Err(error) if error.lacks_partition() => {
            extend_partitions(db).await?;
            db.one(statement(heartbeat)).await?
        }
        row => row?,
    };
    answer(&row, sent)
}

pub(crate) fn statement<'a>(heartbeat: &'a Heartbeat<'_>) -> Statement<'a> {
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds for people and a forecast")]
    let service = heartbeat.service_millis.map(|millis| millis as f32);
    query("select * from rowlock.heartbeat($1, $2, $3, $4, $5, $6, $7, $8)")
        .bind(heartbeat.instance.0)
        .bind(i32::try_from(heartbeat.held).unwrap_or(i32::MAX))
        .bind(i32::try_from(heartbeat.allocated).unwrap_or(i32::MAX))
        .bind(heartbeat.acknowledged)
        .bind(i32::try_from(heartbeat.wants).unwrap_or(i32::MAX))
        .bind(heartbeat.watermarks.as_slice())
        .bind(heartbeat.idle)
        .bind(service)
}

pub(crate) fn answer(row: &PgRow, sent: Instant) -> Result<HeartbeatReply> {
    let least: Vec<Option<i64>> = row.try_get(6)?;
    Ok(HeartbeatReply {
        gone: row.try_get(0)?,
        allocation: row.try_get(1)?,
        slots: u32::try_from(row.try_get::<i32, _>(2)?).unwrap_or_default(),
        paused: row.try_get(3)?,
        policy_generation: row.try_get(4)?,
        available: least.iter().any(Option::is_some),
        watermark_observation: WatermarkObservation { sent, newest: row.try_get(5)?, least },
        cancelled: row.try_get::<Vec<i64>, _>(7)?.into_iter().map(TaskId).collect(),
        noted: HorizonNote {
            peers: row.try_get(8)?,
            k: row.try_get(9)?,
            xid: row.try_get(10)?,
            xmin: row.try_get(11)?,
        },
        allocation_missed: row.try_get(12)?,
    })
}
