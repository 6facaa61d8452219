//! Reads the payloads of claimed tasks, in a separate statement (R18).

use sqlx::Row;

use crate::{Db, Error, Result, TaskId, Token, db::query};

/// The task as its handler gets it.
#[derive(Clone)]
pub struct FetchedTask {
    /// The id.
    pub id: TaskId,
    /// The task's type.
    pub kind: String,
    /// The payload: JSON, byte for byte as it was enqueued.
    pub payload: String,
    /// Its number of attempts; `None`: the queue's number.
    pub max_attempts: Option<u16>,
    /// The producer's trace, if it gave one.
    pub trace: Option<ProducerTrace>,
    /// When it was enqueued, in milliseconds since 1970, to the second.
    pub enqueued_at_unix_ms: i64,
}

/// The trace that the producer gave with the task: `rowlock.producer_trace`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerTrace {
    /// A `traceparent` of W3C Trace Context.
    pub traceparent: String,
    /// Its `tracestate`. Its form is not checked.
    pub tracestate: Option<String>,
    /// Whether other tasks were enqueued with the same call.
    pub batch: bool,
}

impl ProducerTrace {
    fn read(column: &str) -> Self {
        let (batch, trace) = match column.strip_prefix('*') {
            Some(trace) => (true, trace),
            None => (false, column),
        };
        let (traceparent, tracestate) = match trace.split_once(' ') {
            Some((traceparent, tracestate)) => (traceparent, Some(tracestate.to_owned())),
            None => (trace, None),
        };
        Self { traceparent: traceparent.to_owned(), tracestate, batch }
    }
}

impl FetchedTask {
    pub(crate) fn new(
        id: i64,
        kind: String,
        payload: String,
        max_attempts: Option<i16>,
        trace: Option<&str>,
    ) -> Self {
        Self {
            id: TaskId(id),
            kind,
            payload,
            max_attempts: max_attempts.map(|attempts| u16::try_from(attempts).unwrap_or_default()),
            trace: trace.map(ProducerTrace::read),
            enqueued_at_unix_ms: ((id >> 31) + EPOCH_SECONDS) * 1000,
        }
    }
}

impl std::fmt::Debug for FetchedTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FetchedTask").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The epoch of task ids, 2024-01-01, in seconds since 1970; `rowlock.id_time` uses the same.
const EPOCH_SECONDS: i64 = 1_704_067_200;

/// The payloads of the given tasks that the lease with this token holds, in no particular order.
pub async fn fetch(db: &Db, token: Token, ids: &[TaskId]) -> Result<Vec<FetchedTask>> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let statement = query("select id, type, payload, max_attempts, trace from rowlock.fetch($1, $2)");
    let rows = db.all(statement.bind(token.0).bind(ids)).await?;
    rows.iter()
        .map(|row| {
            let trace: Option<&str> = row.try_get("trace")?;
            let (kind, payload) = (row.try_get("type")?, row.try_get("payload")?);
            Ok(FetchedTask::new(row.try_get("id")?, kind, payload, row.try_get("max_attempts")?, trace))
        })
        .collect()
}

/// Whether one of the rows causes the error, so that other rows can still be read. The row is not text in the
/// encoding of the database (22xxx), is too large for a statement (54xxx), or is damaged on disk (XX001).
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
