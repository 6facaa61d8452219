//! Enqueues many tasks in one statement.

use sqlx::Row;

use crate::{Db, EnqueueOptions, Result, TaskId, db::query};

/// Enqueues one task for each payload. The ids are in the order of the payloads.
pub async fn enqueue_many(
    db: &Db,
    queue: &str,
    kind: &str,
    payloads: &[String],
    options: &EnqueueOptions,
) -> Result<Vec<TaskId>> {
    let statement = query("select rowlock.enqueue_many($1, $2, $3::text[], $4::jsonb) as id")
        .bind(queue)
        .bind(kind)
        .bind(payloads)
        .bind(options.to_json());
    let rows = db.all(statement).await?;
    rows.iter().map(|row| Ok(TaskId(row.try_get("id")?))).collect()
}
