//! Turns a handler's answer into the outcome of the attempt: a pure decision.

use std::time::Duration;

use rowlock_crds::{MAX_RETRY_DELAY, Policy};
use rowlock_queue::Outcome;

/// Largest error kept per attempt, in bytes: a stack trace fits, a page of HTML does not.
pub(crate) const ERROR_MAX: usize = 4 * 1024;

/// Longest snooze. A handler that asks for more than a day has probably mistaken the unit.
pub(crate) const SNOOZE_MAX: Duration = Duration::from_hours(24);

/// Largest result that is kept, in bytes. Larger data belongs in the user's own storage.
pub(crate) const RESULT_MAX: usize = 64 * 1024;

/// Why the handler failed an attempt, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Http4xx,
    Http5xx,
    Timeout,
    /// An error or a panic of a handler in this process, another status, or a task that cannot be sent.
    Error,
}

/// All values of [`Answer::failure_reason`].
pub(crate) const FAILURE_REASONS: [&str; 7] =
    ["http_4xx", "http_5xx", "timeout", "broken", "handler_ended", "unreachable", "error"];

/// The result of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done {
        result: Option<String>,
    },
    Failed {
        error: String,
        delay: Option<Duration>,
        reason: Reason,
    },
    /// The connection ended after the handler got the task and before its answer was complete.
    Broken {
        error: String,
    },
    /// The handler's process ended while the task ran. Its neighbours may be the cause.
    Ended {
        error: String,
    },
    Final {
        error: String,
        reason: Reason,
    },
    Snooze {
        delay: Duration,
    },
    /// The task did not reach the handler, so this does not count as an attempt.
    Unreachable {
        error: String,
    },
}

impl Answer {
    pub(crate) fn failed(error: impl Into<String>) -> Self {
        Self::failed_by(Reason::Error, error)
    }

    pub(crate) fn failed_by(reason: Reason, error: impl Into<String>) -> Self {
        Self::Failed { error: error.into(), delay: None, reason }
    }

    /// Adjusts the answer for an instance that drains. Normally the handler ends after the worker. A handler
    /// that ends first is being killed together with it, and that must not cost the task an attempt.
    pub(crate) fn while_draining(self) -> Self {
        match self {
            Self::Broken { error } | Self::Ended { error } => Self::Unreachable { error },
            other => other,
        }
    }

    /// Why the attempt failed, as a value of a metric's label: see [`FAILURE_REASONS`].
    pub(crate) fn failure_reason(&self) -> Option<&'static str> {
        match self {
            Self::Done { .. } | Self::Snooze { .. } => None,
            Self::Failed { reason, .. } | Self::Final { reason, .. } => Some(match reason {
                Reason::Http4xx => "http_4xx",
                Reason::Http5xx => "http_5xx",
                Reason::Timeout => "timeout",
                Reason::Error => "error",
            }),
            Self::Broken { .. } => Some("broken"),
            Self::Ended { .. } => Some("handler_ended"),
            Self::Unreachable { .. } => Some("unreachable"),
        }
    }
}

/// `attempt` counts from 1 and includes this one. `jitter` is in 0..1.
pub(crate) fn decide_outcome(
    answer: Answer,
    attempt: u16,
    max_attempts: u16,
    policy: &Policy,
    jitter: f64,
) -> Outcome {
    let by_policy = || policy.retry.delay(attempt, jitter);
    match answer {
        Answer::Done { result } => {
            Outcome::Complete { result: result.as_deref().map(strip_nul).and_then(within_limit) }
        }
        Answer::Failed { error, .. } | Answer::Broken { error } if attempt >= max_attempts => {
            Outcome::Dead { error: bounded_error(&error) }
        }
        Answer::Failed { error, delay, .. } => Outcome::Retry {
            delay: delay.map_or_else(by_policy, |delay| delay.min(MAX_RETRY_DELAY)),
            error: bounded_error(&error),
        },
        Answer::Broken { error } => Outcome::Retry { delay: by_policy(), error: bounded_error(&error) },
        Answer::Final { error, .. } => Outcome::Dead { error: bounded_error(&error) },
        Answer::Snooze { delay } => Outcome::Snooze { delay: delay.min(SNOOZE_MAX) },
        Answer::Ended { .. } => Outcome::HandlerEnded,
        Answer::Unreachable { .. } => Outcome::Release,
    }
}

/// The result, if it is within the limit.
fn within_limit(result: String) -> Option<String> {
    if result.len() <= RESULT_MAX {
        return Some(result);
    }
    tracing::warn!(
        limit_bytes = RESULT_MAX,
        "the handler's result is larger than the limit and was not kept; the task is completed"
    );
    None
}

/// Postgres text cannot contain NUL.
pub(crate) fn strip_nul(text: &str) -> String {
    text.replace('\0', "")
}

/// An error message that Postgres accepts, cut between characters to the limit.
pub(crate) fn bounded_error(text: &str) -> String {
    let mut text = strip_nul(text);
    if ERROR_MAX < text.len() {
        text.truncate(text.floor_char_boundary(ERROR_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use rowlock_crds::Dur;

    use super::*;

    fn policy() -> Policy {
        Policy { timeout: Dur(Duration::from_mins(1)), ..Policy::default() }
    }

    fn failed() -> Answer {
        Answer::failed("HTTP 500")
    }

    #[test]
    fn a_failure_is_retried_by_the_policy() {
        let policy = policy();
        let outcome = decide_outcome(failed(), 1, 6, &policy, 0.0);
        let delay = policy.retry.delay(1, 0.0);
        assert!(matches!(outcome, Outcome::Retry { delay: d, .. } if d == delay), "{outcome:?}");
    }

    #[test]
    fn a_failure_of_the_last_attempt_makes_the_task_dead() {
        assert!(matches!(decide_outcome(failed(), 6, 6, &policy(), 0.0), Outcome::Dead { .. }));
        assert!(matches!(decide_outcome(failed(), 5, 6, &policy(), 0.0), Outcome::Retry { .. }));
    }

    #[test]
    fn a_snooze_is_bounded_and_never_dead() {
        let snooze = Answer::Snooze { delay: Duration::MAX };
        let outcome = decide_outcome(snooze, 6, 6, &policy(), 0.0);
        assert!(matches!(outcome, Outcome::Snooze { delay } if delay == SNOOZE_MAX), "{outcome:?}");
    }

    #[test]
    fn a_retry_delay_given_by_the_handler_is_bounded() {
        let delay = Some(Duration::MAX);
        let failed = Answer::Failed { error: "no".into(), delay, reason: Reason::Error };
        let outcome = decide_outcome(failed, 1, 6, &policy(), 0.0);
        assert!(matches!(outcome, Outcome::Retry { delay, .. } if delay == MAX_RETRY_DELAY), "{outcome:?}");
    }

    #[test]
    fn a_result_above_the_limit_is_not_kept() {
        let mut result = "x".repeat(RESULT_MAX);
        let outcome = |result: &String| {
            decide_outcome(Answer::Done { result: Some(result.clone()) }, 1, 6, &policy(), 0.0)
        };
        assert!(matches!(outcome(&result), Outcome::Complete { result: Some(_) }));
        result.push('x');
        assert!(matches!(outcome(&result), Outcome::Complete { result: None }));
    }

    #[test]
    fn a_broken_connection_fails_the_attempt_unless_the_instance_drains() {
        let broken = || Answer::Broken { error: "connection reset".into() };
        assert!(matches!(decide_outcome(broken(), 1, 6, &policy(), 0.0), Outcome::Retry { .. }));
        assert!(matches!(decide_outcome(broken(), 6, 6, &policy(), 0.0), Outcome::Dead { .. }));
        assert!(matches!(decide_outcome(broken().while_draining(), 6, 6, &policy(), 0.0), Outcome::Release));
        assert!(matches!(
            decide_outcome(failed().while_draining(), 6, 6, &policy(), 0.0),
            Outcome::Dead { .. }
        ));
    }

    #[test]
    fn the_end_of_the_handler_is_no_failure_of_its_last_attempt() {
        let ended = || Answer::Ended { error: "connection reset".into() };
        assert!(matches!(decide_outcome(ended(), 6, 6, &policy(), 0.0), Outcome::HandlerEnded));
        assert!(matches!(decide_outcome(ended().while_draining(), 6, 6, &policy(), 0.0), Outcome::Release));
    }

    #[test]
    fn a_task_that_did_not_reach_the_handler_is_released() {
        let answer = Answer::Unreachable { error: "refused".into() };
        assert!(matches!(decide_outcome(answer, 6, 6, &policy(), 0.0), Outcome::Release));
    }

    #[test]
    fn an_error_message_loses_nul_and_is_cut_between_characters() {
        assert_eq!(bounded_error("a\0b"), "ab");
        let long = "é".repeat(ERROR_MAX);
        assert_eq!(bounded_error(&long).len(), ERROR_MAX);
        assert_eq!(bounded_error(&format!("x{long}")).len(), ERROR_MAX - 1);
    }
}
