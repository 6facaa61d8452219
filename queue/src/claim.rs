//! Claiming tasks.

use std::time::{Duration, Instant};

use sqlx::{Row, postgres::PgRow};

use crate::{
    Db, Error, FetchedTask, InstanceId, Result, TaskId, Token, WatermarkObservation, Watermarks,
    db::{Statement, query},
};

/// The most tasks per claim. It limits the memory of an instance and the size of a lease.
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
    /// Since when the task was available, to the second. `None`: a repeated claim, or a suspect.
    pub available_since: Option<Instant>,
}

/// The result of a claim.
#[derive(Debug)]
pub struct Claimed {
    /// The lease of all claimed tasks; `None` if there are none.
    pub token: Option<Token>,
    /// The tasks, by priority.
    pub tasks: Vec<Claim>,
    /// Payloads that came with the claim. Others are left to [`fetch()`](crate::fetch()).
    pub payloads: Vec<FetchedTask>,
    /// Other claims had locked rows, so there are fewer tasks than wanted: try again in a few milliseconds.
    pub contended: bool,
    /// For [`Watermarks::advance`].
    pub watermark_observation: WatermarkObservation,
}

/// Repeats a claim after an error, with the same token. Call it until there is an answer. If the claim had
/// succeeded, this returns its lease. If the claim is still running, this waits for it.
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

/// Claims up to `want` tasks (at most [`CLAIM_MAX`]) under `token`. After an error call [`claim_again`].
pub async fn claim(
    db: &Db,
    instance: InstanceId,
    want: u32,
    watermarks: &Watermarks,
    token: Token,
) -> Result<Claimed> {
    let sent = Instant::now();
    let statement = query("select * from rowlock.claim($1, $2, $3, $4, $5)");
    read(&claim_row(db, statement, instance, want, watermarks, token).await?, sent, token)
}

/// The same, and also reads payloads. After any error call [`claim_again`]: a payload that cannot be read
/// ([`is_row_error`](crate::is_row_error)), or a slow network, keeps this from claiming.
pub async fn claim_with_payloads(
    db: &Db,
    instance: InstanceId,
    want: u32,
    watermarks: &Watermarks,
    token: Token,
) -> Result<Claimed> {
    let sent = Instant::now();
    let statement = query("select * from rowlock.claim_with_payloads($1, $2, $3, $4, $5)");
    let row = claim_row(db, statement, instance, want, watermarks, token).await?;
    let mut claimed = read(&row, sent, token)?;
    claimed.payloads = payloads(&row)?;
    Ok(claimed)
}

async fn claim_row(
    db: &Db,
    statement: Statement<'static>,
    instance: InstanceId,
    want: u32,
    watermarks: &Watermarks,
    token: Token,
) -> Result<PgRow> {
    let statement = statement
        .bind(instance.0)
        .bind(i32::try_from(want.clamp(1, CLAIM_MAX)).unwrap_or(1))
        .bind(watermarks.as_slice().to_vec())
        // Starts at a random shard, so that concurrent claims rarely meet.
        .bind(fastrand::i32(0..4))
        .bind(token.0);
    // Without a row, another instance has this token, with a probability of 1 in 2⁶³.
    db.maybe(statement).await?.ok_or(Error::Gone)
}

fn read(row: &PgRow, sent: Instant, token: Token) -> Result<Claimed> {
    let (firsts, ns): (Vec<i64>, Vec<i16>) = (row.try_get("firsts")?, row.try_get("ns")?);
    let (attempts, priorities): (Vec<i16>, Vec<i16>) = (row.try_get("attempts")?, row.try_get("priorities")?);
    let sinces = available_since(row)?.into_iter().map(Some).chain(std::iter::repeat(None));
    let ranges = firsts.into_iter().zip(ns).zip(attempts.into_iter().zip(priorities)).zip(sinces);
    let tasks: Vec<Claim> = ranges
        .flat_map(|(((first, n), (attempt, priority)), available_since)| {
            (first..first + i64::from(n)).map(move |id| Claim {
                id: TaskId(id),
                attempt: u16::try_from(attempt).unwrap_or_default(),
                priority: u8::try_from(priority).unwrap_or_default(),
                available_since,
            })
        })
        .collect();
    Ok(Claimed {
        token: (!tasks.is_empty()).then_some(token),
        tasks,
        payloads: Vec::new(),
        contended: row.try_get("contended")?,
        watermark_observation: WatermarkObservation {
            sent,
            newest: row.try_get("newest_k")?,
            least: row.try_get("least_ks")?,
        },
    })
}

/// The payloads in the row of a claim, which has arrays of their parts, or nulls if there are none.
fn payloads(row: &PgRow) -> Result<Vec<FetchedTask>> {
    let Some(ids) = row.try_get::<Option<Vec<i64>>, _>("ids")? else { return Ok(Vec::new()) };
    let (types, payloads): (Vec<String>, Vec<String>) = (row.try_get("types")?, row.try_get("payloads")?);
    let max_attempts: Vec<Option<i16>> = row.try_get("max_attempts")?;
    let traces: Vec<Option<String>> = row.try_get("traces")?;
    let texts = types.into_iter().zip(payloads);
    let parts = ids.into_iter().zip(texts).zip(max_attempts.into_iter().zip(traces));
    Ok(parts
        .map(|((id, (kind, payload)), (max_attempts, trace))| {
            FetchedTask::new(id, kind, payload, max_attempts, trace.as_deref())
        })
        .collect())
}

/// Since when each range was available, on our clock: the database's clock may differ from it.
fn available_since(row: &PgRow) -> Result<Vec<Instant>> {
    let (sinces, database_now): (Vec<i32>, f64) = (row.try_get("sinces")?, row.try_get("now_seconds")?);
    let now = Instant::now();
    let since = |since: i32| {
        let waited = Duration::try_from_secs_f64(database_now - f64::from(since)).unwrap_or_default();
        now.checked_sub(waited).unwrap_or(now)
    };
    Ok(sinces.into_iter().map(since).collect())
}
