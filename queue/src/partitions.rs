//! Partitions: made days ahead; detached and dropped once a prune has emptied them. The one file with DDL put together at run time.

use sqlx::Row;

use crate::{Db, Result, db::query};

/// Makes partitions days ahead. Returns the hours for which they last now; `None`: another session does it.
pub async fn extend_partitions(db: &Db) -> Result<Option<f64>> {
    Ok(db.one(query("select rowlock.extend_partitions()")).await?.try_get(0)?)
}

/// Empties what retention has done with, then detaches and drops it. Returns how many partitions went.
///
/// DETACH CONCURRENTLY waits for open transactions without making others wait; it runs at top level only.
pub(crate) async fn prune(db: &Db) -> Result<usize> {
    // Only the owner may detach and drop; an instance with fewer rights leaves it to the operator.
    let owner =
        query("select pg_has_role(relowner, 'usage') from pg_class where oid = 'rowlock.task'::regclass");
    if !db.one(owner).await?.try_get::<bool, _>(0)? {
        return Ok(0);
    }
    let rest: Vec<String> = db.one(query("select rowlock.prune_rest()")).await?.try_get(0)?;
    let rest: Vec<_> = rest.iter().filter_map(|pair| pair.split_once(' ')).collect();
    for (parent, partition) in &rest {
        detach(db, parent, partition).await?;
    }
    // Last: where a transaction of days ago is still open it fails, or waits for that one.
    let task: Option<String> = db.one(query("select rowlock.prune_task()")).await?.try_get(0)?;
    if let Some(partition) = &task {
        detach(db, "task", partition).await?;
    }
    Ok(rest.len() + usize::from(task.is_some()))
}

async fn detach(db: &Db, parent: &str, partition: &str) -> Result<()> {
    let pending: bool = db.one(query("select coalesce((select inhdetachpending from pg_inherits where inhrelid = to_regclass('rowlock.' || $1)), false)")
            .bind(partition))
    .await?
    .try_get(0)?;
    // Both names come from pg_class and are ours: a table's name and a number.
    let how = if pending { "finalize" } else { "concurrently" };
    let detach = format!("alter table rowlock.{parent} detach partition rowlock.{partition} {how}");
    db.ddl(detach).await?;
    // Another caretaker may have found it detached, and dropped it.
    db.ddl(format!("drop table if exists rowlock.{partition}")).await?;
    Ok(())
}
