//! The runs of some pods, for a canary.

use sqlx::Row;

use crate::{Db, Result, Runs, db::query};

/// The pods of a queue that are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedPods {
    /// The name of the queue.
    pub queue: String,
    /// The owner of that queue.
    pub owner: String,
    /// The UIDs of the pods with the new template.
    pub new: Vec<String>,
    /// The UIDs of the others.
    pub old: Vec<String>,
}

/// The runs of the last two minutes: of the new pods, and of the old ones. `None`: the queue has another
/// owner. Only the owner of the tables may call it.
pub async fn pod_runs(db: &Db, pods: &ComparedPods) -> Result<Option<(Runs, Runs)>> {
    let statement = query(
        "select new, runs, failures, run_seconds, run_seconds_squared \
         from rowlock.pod_runs($1, $2, $3::text[]::uuid[], $4::text[]::uuid[])",
    )
    .bind(pods.queue.clone())
    .bind(pods.owner.clone())
    .bind(pods.new.clone())
    .bind(pods.old.clone());
    let (mut new, mut old) = (None, None);
    for row in &db.all(statement).await? {
        let count = |name: &str| row.try_get::<i64, _>(name).map(|n| u64::try_from(n).unwrap_or(0));
        let runs = Runs {
            completed: count("runs")?,
            failed: count("failures")?,
            seconds: row.try_get("run_seconds")?,
            seconds_squared: row.try_get("run_seconds_squared")?,
        };
        let of = if row.try_get("new")? { &mut new } else { &mut old };
        *of = Some(runs);
    }
    Ok(new.zip(old))
}
