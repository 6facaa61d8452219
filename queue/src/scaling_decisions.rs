//! Why a queue has its number of pods: recorded by what scales it, read by people. No decision is made by it.

use std::time::Duration;

use serde::Serialize;
use sqlx::{Row, postgres::PgRow, types::Json};

use crate::{Db, Result, db::query, inspect::rfc3339};

/// The most decisions recorded by one statement: about half a MiB.
pub const RECORD_MOST: usize = 1000;

/// A decision to be recorded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScalingRecord {
    /// The name of the queue.
    pub queue: String,
    /// Its owner. A queue that belongs to another is left out.
    pub owner: String,
    /// How long ago it was decided, in seconds.
    pub age_seconds: f64,
    /// The pods before.
    pub pods_before: i32,
    /// The pods that it should have.
    pub pods: i32,
    /// The workers on them.
    pub workers: i32,
    /// The name of the reason.
    pub reason: String,
    /// The workers that the tasks need, before limits.
    pub demand: Option<i32>,
    /// What the demand was computed from.
    #[serde(flatten)]
    pub figures: Option<ScalingFigures>,
    /// What limits the number, in words. The database keeps 500 characters.
    pub detail: Option<String>,
}

/// What a decision was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ScalingFigures {
    /// Tasks that could start then, or within seconds.
    pub waiting: i64,
    /// Tasks that ran then.
    pub running: i64,
    /// Tasks that came, per second.
    pub arrivals_per_second: f64,
    /// How long a task takes, in seconds.
    pub service_seconds: f64,
    /// Whether that is a guess, because no task had completed yet.
    pub service_assumed: bool,
    /// How long a new pod takes until its first task, in seconds.
    pub pod_start_seconds: f64,
    /// The workers to keep up with what comes.
    pub for_rate: f64,
    /// The workers to start the waiting tasks in time.
    pub for_backlog: f64,
}

/// A recorded decision.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingDecision {
    /// When it was made, in RFC 3339.
    pub at: String,
    /// How long ago that was, in seconds.
    pub age_seconds: f64,
    /// The pods before.
    pub pods_before: i32,
    /// The pods that the queue should have from then on.
    pub pods: i32,
    /// The workers on them.
    pub workers: i32,
    /// The name of the reason.
    pub reason: String,
    /// The workers that the tasks needed, before limits; `None` where that was not computed.
    pub demand: Option<i32>,
    /// What the demand was computed from; `None` where that was not known, or did not count.
    pub figures: Option<ScalingFigures>,
    /// What limits the number, in words.
    pub detail: Option<String>,
}

/// Which decisions are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecidedAt {
    /// All that are kept.
    Any,
    /// Those that were made by this time, in RFC 3339 with an offset.
    By(String),
    /// Those that were made by this long ago.
    Ago(Duration),
}

/// Records up to [`RECORD_MOST`] decisions of any number of queues in one statement. Returns how many were
/// recorded: a decision with the same pods and reason as the queue's last one is left out.
pub async fn record_scaling_decisions(db: &Db, records: &[ScalingRecord]) -> Result<u32> {
    let statement =
        query("select rowlock.record_scaling_decisions($1::json)").bind(Json(records)).persistent(false);
    Ok(db.scalar::<i32>(statement).await?.unsigned_abs())
}

const SCALING_DECISIONS: &str = concat!(
    "select ",
    rfc3339!("at"),
    ", age_seconds, pods_before, pods, workers, reason, demand, waiting, running, arrivals_per_second, ",
    "service_seconds, service_assumed, pod_start_seconds, for_rate, for_backlog, detail ",
    "from rowlock.scaling_decisions($1, case when $3::float8 is null then $2::text::timestamptz ",
    "else now() - make_interval(secs => $3::float8) end, $4)"
);

/// Up to `limit` decisions about a queue, the newest first. An unknown queue is refused.
pub async fn scaling_decisions(
    db: &Db,
    queue: &str,
    at: &DecidedAt,
    limit: u32,
) -> Result<Vec<ScalingDecision>> {
    let (time, ago) = match at {
        DecidedAt::Any => (None, None),
        DecidedAt::By(time) => (Some(time.as_str()), None),
        DecidedAt::Ago(ago) => (None, Some(ago.as_secs_f64())),
    };
    let statement = query(SCALING_DECISIONS)
        .bind(queue)
        .bind(time)
        .bind(ago)
        .bind(i32::try_from(limit).unwrap_or(i32::MAX));
    db.all(statement).await?.iter().map(read).collect()
}

fn read(row: &PgRow) -> Result<ScalingDecision> {
    Ok(ScalingDecision {
        at: row.try_get("at")?,
        age_seconds: row.try_get("age_seconds")?,
        pods_before: row.try_get("pods_before")?,
        pods: row.try_get("pods")?,
        workers: row.try_get("workers")?,
        reason: row.try_get("reason")?,
        demand: row.try_get("demand")?,
        figures: figures(row)?,
        detail: row.try_get("detail")?,
    })
}

fn figures(row: &PgRow) -> Result<Option<ScalingFigures>> {
    let Some(waiting) = row.try_get("waiting")? else { return Ok(None) };
    let number = |name| Ok::<f64, crate::Error>(row.try_get::<Option<f64>, _>(name)?.unwrap_or_default());
    Ok(Some(ScalingFigures {
        waiting,
        running: row.try_get::<Option<i64>, _>("running")?.unwrap_or_default(),
        arrivals_per_second: number("arrivals_per_second")?,
        service_seconds: number("service_seconds")?,
        service_assumed: row.try_get::<Option<bool>, _>("service_assumed")?.unwrap_or_default(),
        pod_start_seconds: number("pod_start_seconds")?,
        for_rate: number("for_rate")?,
        for_backlog: number("for_backlog")?,
    }))
}
