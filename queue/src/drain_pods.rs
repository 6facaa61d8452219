//! A scale-in: which pods end, so that they get no new tasks before.

use sqlx::Row;

use crate::{Db, Result, db::query};

/// The pods of a queue, and how many of them a scale-in ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainPods {
    /// The name of the queue.
    pub queue: String,
    /// The owner of that queue. Instances of a queue that belongs to another are left alone.
    pub owner: String,
    /// The UIDs of its pods, each with a rank: pods of a lower rank are chosen first.
    pub pods: Vec<(String, i32)>,
    /// How many are chosen. With 0, the marks of all these pods are removed.
    pub most: u32,
}

/// A pod that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainingPod {
    /// The UID of the pod.
    pub uid: String,
    /// How many tasks its instances hold.
    pub held: u32,
}

/// Chooses the pods with the fewest tasks, and marks their instances: for 30 s they claim nothing, and they
/// continue what they run. The marks of the other pods are removed. Returns the chosen ones; none if the
/// queue has another owner. Only the owner of the tables may call it. Repeat it while the scale-in is
/// pending.
pub async fn drain_pods(db: &Db, drain: &DrainPods) -> Result<Vec<DrainingPod>> {
    let (pods, ranks): (Vec<String>, Vec<i32>) = drain.pods.iter().cloned().unzip();
    let statement =
        query("select pod::text, held from rowlock.drain_pods($1, $2, $3::text[]::uuid[], $4, $5)")
            .bind(drain.queue.clone())
            .bind(drain.owner.clone())
            .bind(pods)
            .bind(ranks)
            .bind(i32::try_from(drain.most).unwrap_or(i32::MAX));
    let rows = db.all(statement).await?;
    let read = |row: &sqlx::postgres::PgRow| {
        let held: i32 = row.try_get("held")?;
        Ok(DrainingPod { uid: row.try_get("pod")?, held: held.unsigned_abs() })
    };
    rows.iter().map(read).collect()
}
