//! Claiming tasks.

use std::time::Instant;

use sqlx::Row;

use crate::{Db, Error, InstanceId, Result, TaskId, Token, WatermarkObservation, Watermarks, db::query};

/// The most tasks per claim, which limits the memory of an instance and the size of a lease.
pub const CLAIM_MAX: u32 = 1000;

/// A claimed task, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The id.
    pub id: TaskId,
    /// The attempts used before this one.
    pub attempt: u16,
    /// The priority: 0 (first) to 3.
    pub priority: u8,
}

/// The result of a claim.
#[derive(Debug)]
pub struct Claimed {
    /// The lease of all claimed tasks; `None` if there are none.
    pub token: Option<Token>,
    /// The tasks, by priority.
    pub tasks: Vec<Claim>,
    /// It got fewer tasks than wanted because others had rows locked: try again in a few milliseconds.
    pub contended: bool,
    /// For [`Watermarks::advance`].
    pub watermark_observation: WatermarkObservation,
}

/// Repeats a claim after an error, with the same token; call it until there is an answer. If the claim had
/// succeeded, this returns its lease. Waits if the claim is still running.
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
                // A random shard first, so that concurrent claims rarely meet.
                .bind(fastrand::i32(0..4))
                .bind(token.0),
        )
        .await?
        // Another instance has this token, with a probability of 1 in 2⁶³.
        .ok_or(Error::Gone)?;
    let (firsts, ns): (Vec<i64>, Vec<i16>) = (row.try_get("firsts")?, row.try_get("ns")?);
    let (attempts, priorities): (Vec<i16>, Vec<i16>) = (row.try_get("attempts")?, row.try_get("priorities")?);
    let ranges = firsts.into_iter().zip(ns).zip(attempts.into_iter().zip(priorities));
    let tasks: Vec<Claim> = ranges
        .flat_map(|((first, n), (attempt, priority))| {
            (first..first + i64::from(n)).map(move |id| Claim {
                id: TaskId(id),
                attempt: u16::try_from(attempt).unwrap_or_default(),
                priority: u8::try_from(priority).unwrap_or_default(),
            })
        })
        .collect();
    Ok(Claimed {
        token: (!tasks.is_empty()).then_some(token),
        tasks,
        contended: row.try_get("contended")?,
        watermark_observation: WatermarkObservation {
            sent,
            newest: row.try_get("newest_k")?,
            least: row.try_get("least_ks")?,
        },
    })
}
