//! The bodies of what was claimed, asked for until the database answers.

use std::collections::HashMap;
use std::future::Future;

use rowlock_queue::{Error, Result, TaskBody, TaskId, Token};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::pause::Pause;
use crate::shared::Shared;

/// The one verb it takes; a seam for its tests.
pub(crate) trait Bodies: Send + Sync {
    fn fetch(&self, token: Token, ids: &[TaskId]) -> impl Future<Output = Result<Vec<TaskBody>>> + Send;
}

impl Bodies for Shared {
    async fn fetch(&self, token: Token, ids: &[TaskId]) -> Result<Vec<TaskBody>> {
        let bodies = rowlock_queue::fetch(&self.db, token, ids).await;
        bodies
            .inspect(|_| self.database_answered("fetch"))
            .inspect_err(|error| self.database_failed("fetch", error))
    }
}

/// All bodies there are; `None`: asked to stop before the database had answered. What takes too long for one statement is asked for
/// in parts: many large payloads over a slow network would take too long again.
pub(crate) async fn fetch_all(
    store: &impl Bodies,
    token: Token,
    ids: &[TaskId],
    stop: &CancellationToken,
) -> Option<HashMap<TaskId, TaskBody>> {
    let mut bodies = HashMap::with_capacity(ids.len());
    let mut rest = ids;
    let mut most = ids.len();
    let mut pause = Pause::DATABASE;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(most.min(rest.len()));
        match store.fetch(token, now).await {
            Ok(found) => {
                bodies.extend(found.into_iter().map(|body| (body.id, body)));
                rest = later;
                pause.reset();
            }
            Err(error) => {
                if matches!(error, Error::Timeout) {
                    most = now.len().div_ceil(2);
                }
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return None,
                    () = sleep(pause.step()) => (),
                }
            }
        }
    }
    Some(bodies)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Answers for at most so many at a time, once it has been down so often; and notes how many it was asked for.
    struct Fake {
        most: usize,
        down: usize,
        asked: Mutex<Vec<usize>>,
        stop: CancellationToken,
    }

    impl Bodies for Fake {
        async fn fetch(&self, _: Token, ids: &[TaskId]) -> Result<Vec<TaskBody>> {
            let mut asked = self.asked.lock().unwrap();
            asked.push(ids.len());
            if asked.len() <= self.down {
                self.stop.cancel();
                return Err(Error::Unreachable("down".into()));
            }
            if self.most < ids.len() {
                return Err(Error::Timeout);
            }
            Ok(ids.iter().map(|id| body(*id)).collect())
        }
    }

    fn body(id: TaskId) -> TaskBody {
        TaskBody { id, kind: "send".into(), payload: "{}".into(), max_attempts: None, enqueued_at_unix_ms: 0 }
    }

    async fn fetch(most: usize, down: usize, stop: &CancellationToken) -> (Option<usize>, Vec<usize>) {
        let asked = Mutex::default();
        let fake = Fake { most, down, asked, stop: stop.clone() };
        let ids: Vec<_> = (1..=100).map(TaskId).collect();
        let bodies = fetch_all(&fake, Token(1), &ids, stop).await;
        (bodies.map(|bodies| bodies.len()), fake.asked.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_asked_for_in_parts() {
        let (bodies, asked) = fetch(30, 0, &CancellationToken::new()).await;
        assert_eq!((bodies, asked), (Some(100), vec![100, 50, 25, 25, 25, 25]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_the_asking_where_nobody_answers() {
        let (bodies, asked) = fetch(100, usize::MAX, &CancellationToken::new()).await;
        assert_eq!((bodies, asked), (None, vec![100]));
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_come_after_a_stop_are_taken() {
        let stop = CancellationToken::new();
        stop.cancel();
        assert_eq!(fetch(100, 0, &stop).await, (Some(100), vec![100]));
    }
}
