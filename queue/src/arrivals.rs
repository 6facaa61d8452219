//! Counts when tasks came, for `rowlock simulate --from-db`.

use std::{collections::BTreeMap, time::Duration};

use sqlx::Row;

use crate::{Db, Result, db::query};

/// The most tasks, of all queues, that are read: some 200 MB of a database, in about twenty statements.
pub const ARRIVALS_READ_MOST: usize = 2_000_000;

/// The most tasks that one statement reads, in a fraction of its limit.
const PAGE: usize = 100_000;

/// The tasks of a queue that the database still has.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Arrivals {
    /// How many tasks that could start at once came in which second, since 2024 by the database's clock.
    pub by_second: BTreeMap<i64, u64>,
    /// How many tasks were enqueued with a delay. They are in no second.
    pub scheduled: u64,
    /// How long ago the oldest task may have come that the database keeps, in seconds.
    pub kept_seconds: f64,
    /// Whether older tasks were left out, because [`ARRIVALS_READ_MOST`] were read.
    pub cut: bool,
}

/// The tasks that came to a queue within the last `ago`. An unknown queue is refused.
pub async fn arrivals(db: &Db, queue: &str, ago: Duration) -> Result<Arrivals> {
    let mut all = Arrivals::default();
    let mut before = None;
    for _ in 0..ARRIVALS_READ_MOST / PAGE {
        let statement = query("select * from rowlock.arrivals($1, $2, $3, $4)")
            .bind(queue)
            .bind(ago.as_secs_f64())
            .bind(before)
            .bind(i32::try_from(PAGE).unwrap_or(i32::MAX));
        let page = db.one(statement).await?;
        let (seconds, counts): (Vec<i64>, Vec<i64>) = (page.try_get("seconds")?, page.try_get("counts")?);
        for (second, count) in seconds.into_iter().zip(counts) {
            // A second may begin on one page and end on the next one.
            *all.by_second.entry(second).or_default() += count.unsigned_abs();
        }
        all.scheduled += page.try_get::<i64, _>("scheduled")?.unsigned_abs();
        all.kept_seconds = page.try_get::<Option<f64>, _>("kept_seconds")?.unwrap_or_default();
        before = page.try_get::<Option<i64>, _>("next")?;
        if before.is_none() {
            return Ok(all);
        }
    }
    all.cut = true;
    Ok(all)
}
