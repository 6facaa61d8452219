//! The heartbeat of an instance: it reports its slots, and gets back its allocation.

use std::time::Instant;

use sqlx::{Row, postgres::PgRow};

use crate::{
    Db, HorizonNote, InstanceId, Result, Runs, TaskId, WatermarkObservation, Watermarks,
    db::{Statement, query},
    partitions::extend_partitions,
};

/// What an instance reports.
#[derive(Debug)]
pub struct Heartbeat<'a> {
    /// The instance.
    pub instance: InstanceId,
    /// Slots in use: running or claimed tasks.
    pub held: u32,
    /// Slots that it could use; 0 while it drains.
    pub wants: u32,
    /// Slots of the acknowledged allocation.
    pub allocated: u32,
    /// The number of the allocation that it follows.
    pub acknowledged: i64,
    /// Where its claims start.
    pub watermarks: &'a Watermarks,
    /// It had a free slot since its last heartbeat, so producers should send NOTIFY.
    pub idle: bool,
    /// The runs that ended in it lately.
    pub runs: Runs,
}

/// The reply to a heartbeat.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a separate answer")]
pub struct HeartbeatReply {
    /// Another instance rescued its tasks: stop everything.
    pub gone: bool,
    /// The number of the newest allocation.
    pub allocation: i64,
    /// The slots of that allocation.
    pub slots: u32,
    /// The queue is paused: claim nothing.
    pub paused: bool,
    /// The generation of the policy.
    pub policy_generation: i64,
    /// Tasks are available.
    pub available: bool,
    /// For [`Watermarks::advance`].
    pub watermark_observation: WatermarkObservation,
    /// Running tasks that a user asked to cancel.
    pub cancelled: Vec<TaskId>,
    /// For [`crate::Maintainer::note`].
    pub noted: HorizonNote,
    /// Whether another session was granting slots at the same time; `None`: this heartbeat was not to grant
    /// any.
    pub allocation_missed: Option<bool>,
    /// A suspect waits to run alone: see [`crate::claim_suspect`].
    pub suspect_due: bool,
}

/// Sends one heartbeat.
pub async fn heartbeat(db: &Db, heartbeat: &Heartbeat<'_>) -> Result<HeartbeatReply> {
    let sent = Instant::now();
    let row = match db.one(statement(heartbeat)).await {
        // The clock stepped to a time without partitions.
        Err(error) if error.lacks_partition() => {
            extend_partitions(db).await?;
            db.one(statement(heartbeat)).await?
        }
        row => row?,
    };
    answer(&row, sent)
}

pub(crate) fn statement<'a>(heartbeat: &'a Heartbeat<'_>) -> Statement<'a> {
    let Runs { completed, seconds, seconds_squared, failed } = heartbeat.runs;
    #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough for a forecast")]
    let (seconds, seconds_squared) = (seconds as f32, seconds_squared as f32);
    query("select * from rowlock.heartbeat($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)")
        .bind(heartbeat.instance.0)
        .bind(i32::try_from(heartbeat.held).unwrap_or(i32::MAX))
        .bind(i32::try_from(heartbeat.allocated).unwrap_or(i32::MAX))
        .bind(heartbeat.acknowledged)
        .bind(i32::try_from(heartbeat.wants).unwrap_or(i32::MAX))
        .bind(heartbeat.watermarks.as_slice())
        .bind(heartbeat.idle)
        .bind(i32::try_from(completed).unwrap_or(i32::MAX))
        .bind(i32::try_from(failed).unwrap_or(i32::MAX))
        .bind(seconds)
        .bind(seconds_squared)
}

pub(crate) fn answer(row: &PgRow, sent: Instant) -> Result<HeartbeatReply> {
    let least: Vec<Option<i64>> = row.try_get("least_ks")?;
    Ok(HeartbeatReply {
        gone: row.try_get("gone")?,
        allocation: row.try_get("allocation_number")?,
        slots: u32::try_from(row.try_get::<i32, _>("slots")?).unwrap_or_default(),
        paused: row.try_get("paused")?,
        policy_generation: row.try_get("generation")?,
        available: least.iter().any(Option::is_some),
        watermark_observation: WatermarkObservation { sent, newest: row.try_get("newest_k")?, least },
        cancelled: row.try_get::<Vec<i64>, _>("canceled")?.into_iter().map(TaskId).collect(),
        noted: HorizonNote {
            peers: row.try_get("peers")?,
            k: row.try_get("noted_k")?,
            xid: row.try_get("noted_xid")?,
            xmin: row.try_get("xmin")?,
        },
        allocation_missed: row.try_get("allocation_missed")?,
        suspect_due: row.try_get("suspect_due")?,
    })
}
