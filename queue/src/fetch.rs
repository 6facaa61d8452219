//! The bodies of claimed tasks, in a statement of their own (R18).

use sqlx::Row;

use crate::{Db, Error, Result, TaskId, Token, db::query, declare::unsigned};

/// What a handler is given.
#[derive(Clone)]
pub struct FetchedTask {
    /// Which.
    pub id: TaskId,
    /// The task's type.
    pub kind: String,
    /// JSON, as it was enqueued, byte for byte.
    pub payload: String,
    /// Its own number of attempts; `None`: the queue's.
    pub max_attempts: Option<u16>,
    /// When it was enqueued, in milliseconds since 1970, to the second.
    pub enqueued_at_unix_ms: i64,
}

impl std::fmt::Debug for FetchedTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FetchedTask").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// 2024-01-01, the epoch of ids, in seconds since 1970; `rowlock.id_time` says the same.
const EPOCH_SECONDS: i64 = 1_704_067_200;

/// The bodies of these tasks, in no order: of those that a lease with this token holds.
pub async fn fetch(db: &Db, token: Token, ids: &[TaskId]) -> Result<Vec<FetchedTask>> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let asked = query("select id, type, payload, max_attempts from rowlock.fetch($1, $2)");
    let rows = db.all(asked.bind(token.0).bind(ids)).await?;
    rows.iter()
        .map(|row| {
            let id: i64 = row.try_get(0)?;
            Ok(FetchedTask {
                id: TaskId(id),
                kind: row.try_get(1)?,
                payload: row.try_get(2)?,
                max_attempts: row.try_get::<Option<i16>, _>(3)?.map(unsigned),
                enqueued_at_unix_ms: ((id >> 31) + EPOCH_SECONDS) * 1000,
            })
        })
        .collect()
}

/// Whether the error is of a row that was asked for and not of the database, so that other rows can still be
/// had: what is kept is no text of the database's encoding (22xxx), is more than a statement may carry
/// (54xxx), or is damaged on disk (XX001).
#[must_use]
pub fn is_row_error(error: &Error) -> bool {
    match error {
        Error::Database(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => true,
        Error::Database(sqlx::Error::Database(error)) => error
            .code()
            .is_some_and(|code| code.starts_with("22") || code.starts_with("54") || code == "XX001"),
        _ => false,
    }
}
