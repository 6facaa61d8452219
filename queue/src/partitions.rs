//! Partitions: made days ahead; detached and dropped once cleanup has emptied them. The one file with DDL put together at run time.

use sqlx::Row;

use crate::{Db, Result, db::query};

/// Makes partitions days ahead, and the one of this moment where it is missing. Returns the hours for which they last now; `None`: another session does it.
pub async fn extend_partitions(db: &Db) -> Result<Option<f64>> {
    Ok(db.one(query("select rowlock.extend_partitions()")).await?.try_get(0)?)
}

/// For how long there are partitions, and how old the oldest one is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartitionStats {
    /// Seconds until the last one ends, without a gap; below zero: one is missing now.
    pub left_seconds: f64,
    /// Seconds since the oldest one of tasks ended; below zero: it has not ended yet.
    pub oldest_seconds: f64,
}

/// Looks it up in the catalog, which waits for nobody.
pub async fn partition_stats(db: &Db) -> Result<PartitionStats> {
    let row =
        db.one(query("select left_seconds, oldest_seconds from rowlock.partition_statistics()")).await?;
    Ok(PartitionStats { left_seconds: row.try_get(0)?, oldest_seconds: row.try_get(1)? })
}

/// Detaches a partition that cleanup has emptied, and drops it.
///
/// DETACH CONCURRENTLY waits for open transactions without making others wait; it runs at top level only.
pub(crate) async fn detach(db: &Db, parent: &str, partition: &str) -> Result<()> {
    let pending: bool = db.one(query("select coalesce((select inhdetachpending from pg_inherits where inhrelid = to_regclass('rowlock.' || $1)), false)")
            .bind(partition))
    .await?
    .try_get(0)?;
    // Both names come from pg_class and are ours: a table's name and a number.
    let how = if pending { "finalize" } else { "concurrently" };
    let detach = format!("alter table rowlock.{parent} detach partition rowlock.{partition} {how}");
    db.ddl(detach).await?;
    // Another maintainer may have found it detached, and dropped it.
    db.ddl(format!("drop table if exists rowlock.{partition}")).await?;
    Ok(())
}
