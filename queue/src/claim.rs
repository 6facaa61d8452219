//! The claim.

use std::time::Instant;

use sqlx::Row;

use crate::{
    Db, Error, InstanceId, Result, TaskId, Token, WatermarkObservation, Watermarks, db::query,
    declare::unsigned,
};

/// At most this many tasks per claim: it bounds the memory of an instance and the size of a lease.
pub const CLAIM_MAX: u32 = 1000;

/// A claimed task, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Which.
    pub id: TaskId,
    /// Attempts used before this one.
    pub attempt: u16,
    /// 0 to 3.
    pub priority: u8,
}

/// What a claim brought.
#[derive(Debug)]
pub struct Claimed {
    /// The lease over all of them; `None`: nothing was claimed.
    pub token: Option<Token>,
    /// The tasks, most urgent first.
    pub tasks: Vec<Claim>,
    /// It skipped what others had locked and got less than it wanted: worth trying again in milliseconds.
    pub contended: bool,
    /// For [`Watermarks::advance`].
    pub watermark_observation: WatermarkObservation,
}

/// The same after an error, with the same token and until there is an answer: the claim may have gone
/// through, and then this answers with the lease it made. Waits where it is under way yet.
pub async fn claim_again(
    db: &Db,
    instance: InstanceId,
    want: u32,
    watermarks: &Watermarks,
    token: Token,
) -> Result<Claimed> {
    db.all(query("select rowlock.await_claims($1)").bind(instance.0)).await?;
    claim(db, instance, want, watermarks, token).await
}

/// Claims up to `want` tasks (at most [`CLAIM_MAX`]) under `token`. After an error [`claim_again`].
pub async fn claim(
    db: &Db,
    instance: InstanceId,
    want: u32,
    watermarks: &Watermarks,
    token: Token,
) -> Result<Claimed> {
    let sent = Instant::now();
    let row = db
        .maybe(
            query("select * from rowlock.claim($1, $2, $3, $4, $5)")
                .bind(instance.0)
                .bind(i32::try_from(want.clamp(1, CLAIM_MAX)).unwrap_or(1))
                .bind(watermarks.as_slice())
                // Claimers of a queue start at different shards, and none always at the same one.
                .bind(fastrand::i32(0..4))
                .bind(token.0),
        )
        .await?
        // The token is another instance's: one chance in 2⁶³.
        .ok_or(Error::Gone)?;
    let (firsts, ns): (Vec<i64>, Vec<i16>) = (row.try_get(0)?, row.try_get(1)?);
    let (attempts, priorities): (Vec<i16>, Vec<i16>) = (row.try_get(2)?, row.try_get(3)?);
    let ranges = firsts.into_iter().zip(ns).zip(attempts.into_iter().zip(priorities));
    let tasks: Vec<Claim> = ranges
        .flat_map(|((first, n), (attempt, priority))| {
            (first..first + i64::from(n)).map(move |id| Claim {
                id: TaskId(id),
                attempt: unsigned(attempt),
                priority: u8::try_from(priority).unwrap_or_default(),
            })
        })
        .collect();
    Ok(Claimed {
        token: (!tasks.is_empty()).then_some(token),
        tasks,
        contended: row.try_get(4)?,
        watermark_observation: WatermarkObservation { sent, newest: row.try_get(5)?, least: row.try_get(6)? },
    })
}
