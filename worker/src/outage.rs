//! What is said of the database when it does not answer: once that it begins, now and then that it goes on, and once that it is over.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rowlock_queue::Error;
use tokio::time::Instant;

/// Often enough for somebody who looks, and no flood where hundreds of instances lose one database.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// All verbs of an instance together.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The verbs that failed and have not been answered since.
    failing: Vec<&'static str>,
    since: Option<Instant>,
    said: Option<Instant>,
    failures: u64,
}

impl Outage {
    /// A verb failed, and will be tried again.
    pub(crate) fn failed(&self, during: &'static str, error: &Error) {
        match self.note_failure(during) {
            Some(1) => {
                tracing::warn!(%error, during, "the database did not answer as it should; trying again");
            }
            Some(failures) => {
                tracing::warn!(%error, during, failures, "the database still does not answer as it should");
            }
            None => tracing::debug!(%error, during, "the database did not answer"),
        }
    }

    /// A verb was answered.
    pub(crate) fn answered(&self, during: &'static str) {
        if let Some((failures, after)) = self.note_answer(during) {
            tracing::info!(failures, ?after, "the database answers again");
        }
    }

    /// How many failures there were, if it is time to say so.
    fn note_failure(&self, during: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state();
        if !state.failing.contains(&during) {
            state.failing.push(during);
        }
        state.since.get_or_insert(now);
        state.failures += 1;
        let due = state.said.is_none_or(|said| SAY_EVERY <= now - said);
        due.then(|| {
            state.said = Some(now);
            state.failures
        })
    }

    /// How many failures there were, and for how long, if it is over with this answer.
    fn note_answer(&self, during: &'static str) -> Option<(u64, Duration)> {
        let mut state = self.state();
        let since = state.since?;
        state.failing.retain(|verb| *verb != during);
        state.failing.is_empty().then(|| (std::mem::take(&mut *state).failures, since.elapsed()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says the same thing again only after a while, with how often it was not said.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new((None, 0)))
    }

    /// Happened so often. Answers with how often since it was said last, if it is time to say it.
    pub(crate) fn happened(&self, times: u64) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (said, unsaid) = &mut *state;
        *unsaid += times;
        if *unsaid == 0 || said.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            return None;
        }
        *said = Some(Instant::now());
        Some(std::mem::take(unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_said_when_it_begins_now_and_then_and_when_it_is_over() {
        let outage = Outage::default();
        let mut said = Vec::new();
        for _ in 0..65 {
            said.extend(outage.note_failure("heartbeat"));
            said.extend(outage.note_failure("claim"));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(said, [1, 61, 121]);
        assert_eq!(outage.note_answer("heartbeat"), None, "claims have not been answered");
        assert_eq!(outage.note_answer("settle"), None, "never failed");
        assert_eq!(outage.note_answer("claim"), Some((130, Duration::from_secs(65))));
        assert_eq!(outage.note_answer("claim"), None, "said already");
        assert_eq!(outage.note_failure("heartbeat"), Some(1), "another one");
    }

    #[tokio::test(start_paused = true)]
    async fn what_happens_often_is_said_seldom_and_counted() {
        let seldom = Seldom::default();
        assert_eq!(seldom.happened(0), None);
        assert_eq!(seldom.happened(3), Some(3));
        assert_eq!(seldom.happened(1000), None);
        tokio::time::advance(SAY_EVERY).await;
        assert_eq!(seldom.happened(0), Some(1000));
        assert_eq!(seldom.happened(0), None);
    }
}
