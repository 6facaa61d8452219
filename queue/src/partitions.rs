//! Partitions are made days in advance, and dropped after retention has emptied them. Only this file builds
//! DDL at run time.

use sqlx::Row;

use crate::{Db, Result, db::query};

/// Makes partitions days in advance, and the one for now if it is missing. Returns for how many hours
/// partitions exist; `None` if another session is doing it.
pub async fn extend_partitions(db: &Db) -> Result<Option<f64>> {
    db.scalar(query("select rowlock.extend_partitions()")).await
}

/// When the last partition ends, and how old the oldest one is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartitionStats {
    /// Seconds until the first gap, or the end of the last partition. Below 0: the partition for now is
    /// missing.
    pub left_seconds: f64,
    /// Seconds since the end of the oldest partition of tasks. Below 0: it has not ended yet.
    pub oldest_seconds: f64,
}

/// Reads the partitions from the catalog, without waiting for locks.
pub async fn partition_stats(db: &Db) -> Result<PartitionStats> {
    let row =
        db.one(query("select left_seconds, oldest_seconds from rowlock.partition_statistics()")).await?;
    Ok(PartitionStats {
        left_seconds: row.try_get("left_seconds")?,
        oldest_seconds: row.try_get("oldest_seconds")?,
    })
}

/// Whether an earlier DETACH of the partition was interrupted, and must be finished.
const DETACH_PENDING: &str = "
select coalesce(
       (select inhdetachpending from pg_inherits where inhrelid = to_regclass('rowlock.' || $1)), false)";

/// Detaches an empty partition and drops it.
///
/// DETACH CONCURRENTLY waits for open transactions without blocking others. It cannot run in a transaction.
pub(crate) async fn detach(db: &Db, parent: &str, partition: &str) -> Result<()> {
    let pending: bool = db.scalar(query(DETACH_PENDING).bind(partition)).await?;
    // Both names come from pg_class: a table of Rowlock, and its name with a number.
    let how = if pending { "finalize" } else { "concurrently" };
    let detach = format!("alter table rowlock.{parent} detach partition rowlock.{partition} {how}");
    db.ddl(detach).await?;
    // Another instance may have found it detached, and dropped it.
    db.ddl(format!("drop table if exists rowlock.{partition}")).await?;
    Ok(())
}
