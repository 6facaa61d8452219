//! Log lines about a database outage and other repeated events. One line at the start, one every 30 s, one at
//! the end.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rowlock_queue::Error;
use tokio::time::Instant;

/// Often enough for somebody who reads the log, and not a flood when hundreds of instances lose one database.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// The failures of all operations of an instance.
#[derive(Debug, Default)]
pub(crate) struct OutageLog(Mutex<State>);

/// An operation that has not failed for this long fails no more, even if it was not tried again. Another
/// instance may do it by now. Cleanup is tried once a minute.
const LONGEST_SILENCE: Duration = Duration::from_mins(2);

#[derive(Debug, Default)]
struct State {
    /// The operations that failed and have not succeeded since, and when each failed last.
    failing: Vec<(&'static str, Instant)>,
    since: Option<Instant>,
    logged: Option<Instant>,
    failures: u64,
}

impl OutageLog {
    /// An operation failed and will be retried.
    pub(crate) fn failed(&self, operation: &'static str, error: &Error) {
        match self.record_failure(operation) {
            Some(1) => {
                tracing::warn!(%error, operation, "the database operation failed; retrying");
            }
            Some(failures) => {
                tracing::warn!(%error, operation, failures, "database operations still fail; retrying");
            }
            None => tracing::debug!(%error, operation, "the database operation failed"),
        }
    }

    /// An operation succeeded.
    pub(crate) fn answered(&self, operation: &'static str) {
        if let Some((failures, after)) = self.record_answer(operation) {
            tracing::info!(failures, ?after, "database operations succeed again");
        }
    }

    /// How many failures there were, if it is time to log them.
    pub(crate) fn record_failure(&self, operation: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state();
        state.failing.retain(|(verb, _)| *verb != operation);
        state.failing.push((operation, now));
        state.since.get_or_insert(now);
        state.failures += 1;
        let is_due = state.logged.is_none_or(|logged| LOG_INTERVAL <= now - logged);
        is_due.then(|| {
            state.logged = Some(now);
            state.failures
        })
    }

    /// How many failures there were, and for how long, if this success ends the outage.
    pub(crate) fn record_answer(&self, operation: &'static str) -> Option<(u64, Duration)> {
        let mut state = self.state();
        let since = state.since?;
        state.failing.retain(|(verb, at)| *verb != operation && at.elapsed() < LONGEST_SILENCE);
        state.failing.is_empty().then(|| (std::mem::take(&mut *state).failures, since.elapsed()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Limits how often one event is logged, and counts the events between two log lines.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<(Option<Instant>, u64)>);

impl LogThrottle {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new((None, 0)))
    }

    /// Records `times` events. If it is time for a log line, returns how many events there were since the
    /// last one.
    pub(crate) fn record(&self, times: u64) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (logged, suppressed) = &mut *state;
        *suppressed += times;
        if *suppressed == 0 || logged.is_some_and(|logged| logged.elapsed() < LOG_INTERVAL) {
            return None;
        }
        *logged = Some(Instant::now());
        Some(std::mem::take(suppressed))
    }
}

/// The most lines of one kind in a second. An instance may fail thousands of attempts in a second: their
/// lines would replace all others in a container's log (50 MiB by default) within minutes.
const LINES_PER_SECOND: u32 = 20;

/// Limits the lines that each stand for one event.
#[derive(Debug, Default)]
pub(crate) struct LineLimit(Mutex<(Option<Instant>, u32, u64)>);

impl LineLimit {
    /// If this event may be logged, returns how many events were left out since the last line.
    pub(crate) fn admit(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (second, lines, left_out) = &mut *state;
        if second.is_none_or(|second| Duration::from_secs(1) <= second.elapsed()) {
            (*second, *lines) = (Some(Instant::now()), 0);
        }
        if *lines == LINES_PER_SECOND {
            *left_out += 1;
            return None;
        }
        *lines += 1;
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_logged_when_it_begins_every_30_seconds_and_when_it_ends() {
        let outage = OutageLog::default();
        let mut logged = Vec::new();
        for _ in 0..65 {
            logged.extend(outage.record_failure("heartbeat"));
            logged.extend(outage.record_failure("claim"));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(logged, [1, 61, 121]);
        assert_eq!(outage.record_answer("heartbeat"), None, "claims still fail");
        assert_eq!(outage.record_answer("settle"), None, "never failed");
        assert_eq!(outage.record_answer("claim"), Some((130, Duration::from_secs(65))));
        assert_eq!(outage.record_answer("claim"), None, "logged already");
        assert_eq!(outage.record_failure("heartbeat"), Some(1), "another one");
    }

    /// Before the fix, each failure of a rescue was a new outage, which the next pass ended: two lines every
    /// six seconds.
    #[tokio::test(start_paused = true)]
    async fn an_operation_that_keeps_failing_is_one_outage_while_others_succeed() {
        let outage = OutageLog::default();
        let mut logged = Vec::new();
        for second in 0..65 {
            if second % 5 == 0 {
                logged.extend(outage.record_failure("rescue"));
            }
            assert_eq!(outage.record_answer("move due tasks"), None);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(logged, [1, 7, 13]);
        tokio::time::advance(LONGEST_SILENCE).await;
        assert!(outage.record_answer("move due tasks").is_some(), "nobody tries it any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_frequent_event_is_logged_every_30_seconds_with_its_count() {
        let throttle = LogThrottle::default();
        assert_eq!(throttle.record(0), None);
        assert_eq!(throttle.record(3), Some(3));
        assert_eq!(throttle.record(1000), None);
        tokio::time::advance(LOG_INTERVAL).await;
        assert_eq!(throttle.record(0), Some(1000));
        assert_eq!(throttle.record(0), None);
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_events_in_a_second_the_first_ones_are_logged_and_the_others_counted() {
        let lines = LineLimit::default();
        let logged = (0..1000).filter_map(|_| lines.admit()).collect::<Vec<_>>();
        assert_eq!(logged, [0; LINES_PER_SECOND as usize]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(lines.admit(), Some(1000 - u64::from(LINES_PER_SECOND)));
        assert_eq!(lines.admit(), Some(0));
    }
}
