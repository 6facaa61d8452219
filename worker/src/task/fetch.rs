//! Fetches the payloads of claimed tasks, retrying until the database answers.

use std::collections::HashMap;
use std::future::Future;

use rowlock_queue::{Error, FetchedTask, Result, TaskId, Token, is_row_error};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::instance::context::Context;

/// The database operation that fetches payloads, and the classification of its errors. Tests replace it.
pub(crate) trait PayloadStore: Send + Sync {
    /// Whether the error concerns one row, so that the others can be read.
    fn is_row_error(&self, error: &Error) -> bool {
        is_row_error(error)
    }

    fn fetch(&self, token: Token, ids: &[TaskId]) -> impl Future<Output = Result<Vec<FetchedTask>>> + Send;
}

impl PayloadStore for Context {
    async fn fetch(&self, token: Token, ids: &[TaskId]) -> Result<Vec<FetchedTask>> {
        let payloads = rowlock_queue::fetch(&self.db, token, ids).await;
        match &payloads {
            // The database answered, but one row cannot be read.
            Err(error) if is_row_error(error) => self.metrics.error("payload_unreadable"),
            Err(error) => self.database_failed("fetch", error),
            Ok(_) => self.database_answered("fetch"),
        }
        payloads
    }
}

/// What the database returned for a set of tasks.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) payloads: HashMap<TaskId, FetchedTask>,
    /// The reason for a missing payload.
    pub(crate) unreadable: HashMap<TaskId, Error>,
}

/// Fetches all payloads. `None`: `stop` was requested before the database answered.
///
/// A batch that times out is halved, because many large payloads over a slow network would time out again. A
/// batch with an unreadable payload is halved until that one is alone, so that the other tasks can run.
pub(crate) async fn fetch_payloads(
    store: &impl PayloadStore,
    token: Token,
    ids: &[TaskId],
    stop: &CancellationToken,
) -> Option<Fetched> {
    let mut fetched = Fetched::default();
    let mut rest = ids;
    let mut max_batch = ids.len();
    let mut batch = max_batch;
    let mut backoff = Backoff::DATABASE;
    while !rest.is_empty() {
        let (head, later) = rest.split_at(batch.min(rest.len()));
        match (store.fetch(token, head).await, head) {
            (Ok(found), _) => {
                fetched.payloads.extend(found.into_iter().map(|body| (body.id, body)));
                rest = later;
                batch = batch.saturating_mul(2).min(max_batch);
                backoff.reset();
            }
            (Err(error), [one]) if store.is_row_error(&error) => {
                fetched.unreadable.insert(*one, error);
                rest = later;
            }
            (Err(error), _) if store.is_row_error(&error) => batch = head.len().div_ceil(2),
            (Err(error), _) => {
                if matches!(error, Error::Timeout) {
                    max_batch = head.len().div_ceil(2);
                    batch = max_batch;
                }
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return None,
                    () = sleep(backoff.next_delay()) => (),
                }
            }
        }
    }
    Some(fetched)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A database that times out above a batch size and is unreachable for the first requests.
    struct Fake {
        /// The largest batch that it answers.
        batch: usize,
        /// How many requests fail at first.
        down: usize,
        /// The batch size of each request.
        asked: Mutex<Vec<usize>>,
        stop: CancellationToken,
    }

    impl PayloadStore for Fake {
        async fn fetch(&self, _: Token, ids: &[TaskId]) -> Result<Vec<FetchedTask>> {
            let mut asked = self.asked.lock().unwrap();
            asked.push(ids.len());
            if asked.len() <= self.down {
                self.stop.cancel();
                return Err(Error::Unreachable("down".into()));
            }
            if self.batch < ids.len() {
                return Err(Error::Timeout);
            }
            Ok(ids.iter().map(|id| body(*id)).collect())
        }
    }

    fn body(id: TaskId) -> FetchedTask {
        FetchedTask {
            id,
            kind: "send".into(),
            payload: "{}".into(),
            max_attempts: None,
            trace: None,
            enqueued_at_unix_ms: 0,
        }
    }

    async fn fetch(batch: usize, down: usize, stop: &CancellationToken) -> (Option<usize>, Vec<usize>) {
        let asked = Mutex::default();
        let fake = Fake { batch, down, asked, stop: stop.clone() };
        let ids: Vec<_> = (1..=100).map(TaskId).collect();
        let payloads = fetch_payloads(&fake, Token(1), &ids, stop).await;
        (payloads.map(|fetched| fetched.payloads.len()), fake.asked.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_times_out_is_halved() {
        let (payloads, asked) = fetch(30, 0, &CancellationToken::new()).await;
        assert_eq!((payloads, asked), (Some(100), vec![100, 50, 25, 25, 25, 25]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_the_retries_while_the_database_is_unreachable() {
        let (payloads, asked) = fetch(100, usize::MAX, &CancellationToken::new()).await;
        assert_eq!((payloads, asked), (None, vec![100]));
    }

    #[tokio::test(start_paused = true)]
    async fn payloads_that_arrive_after_a_stop_are_used() {
        let stop = CancellationToken::new();
        stop.cancel();
        assert_eq!(fetch(100, 0, &stop).await, (Some(100), vec![100]));
    }

    /// A database that cannot read some payloads.
    struct Damaged(Vec<i64>, Mutex<Vec<usize>>);

    impl PayloadStore for Damaged {
        fn is_row_error(&self, _: &Error) -> bool {
            true
        }

        async fn fetch(&self, _: Token, ids: &[TaskId]) -> Result<Vec<FetchedTask>> {
            self.1.lock().unwrap().push(ids.len());
            if ids.iter().any(|id| self.0.contains(&id.0)) {
                return Err(Error::UnsupportedEncoding("invalid byte sequence".into()));
            }
            Ok(ids.iter().map(|id| body(*id)).collect())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreadable_payload_does_not_keep_other_tasks_from_running() {
        let ids: Vec<_> = (1..=100).map(TaskId).collect();
        for damaged in [vec![1], vec![100], vec![50, 51], (1..=100).collect()] {
            let store = Damaged(damaged.clone(), Mutex::default());
            let fetched = fetch_payloads(&store, Token(1), &ids, &CancellationToken::new()).await.unwrap();
            let mut found: Vec<i64> = fetched.unreadable.keys().map(|id| id.0).collect();
            found.sort_unstable();
            assert_eq!(found, damaged);
            assert_eq!(fetched.payloads.len(), 100 - damaged.len());
            let asked = store.1.into_inner().unwrap().len();
            assert!(asked <= 15 * damaged.len(), "{asked} statements for {} of 100", damaged.len());
        }
    }
}
