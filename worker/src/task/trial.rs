//! The trial of a new handler. A handler that fails at once takes more tasks than its share: its slots are
//! free again sooner than those of handlers that work. So an instance whose first runs all fail takes only
//! one task a second, until one completes.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rowlock_queue::Outcome;

/// How many runs may fail before the first one has completed: more than the few bad tasks that a queue may
/// begin with.
const FAILURES: u32 = 10;

/// How long the next task waits after that. It completes within a second of the end of an outage.
pub(crate) const TRIAL_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Trial {
    passed: AtomicBool,
    failed: AtomicU32,
}

impl Trial {
    /// A run has ended.
    pub(crate) fn note(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Complete { .. } | Outcome::Snooze { .. } => self.passed.store(true, Ordering::Relaxed),
            Outcome::Retry { .. } | Outcome::Dead { .. } if !self.has_passed() => {
                // The limit is reached after few runs, and counting stops there.
                if self.failed.load(Ordering::Relaxed) < FAILURES
                    && self.failed.fetch_add(1, Ordering::Relaxed) + 1 == FAILURES
                {
                    tracing::warn!(
                        "the first {FAILURES} runs of this instance have failed: it runs one task a second \
                         until one completes"
                    );
                }
            }
            Outcome::Retry { .. } | Outcome::Dead { .. } | Outcome::Release | Outcome::HandlerEnded => (),
        }
    }

    /// Whether only one task a second may start.
    pub(crate) fn is_limited(&self) -> bool {
        !self.has_passed() && FAILURES <= self.failed.load(Ordering::Relaxed)
    }

    fn has_passed(&self) -> bool {
        self.passed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Outcome {
        Outcome::Dead { error: "broken".to_owned() }
    }

    fn after(outcomes: impl IntoIterator<Item = Outcome>) -> bool {
        let trial = Trial::default();
        outcomes.into_iter().for_each(|outcome| trial.note(&outcome));
        trial.is_limited()
    }

    #[test]
    fn an_instance_is_limited_while_all_its_runs_have_failed() {
        assert!(!after([]));
        assert!(!after((1..FAILURES).map(|_| failure())));
        assert!(after((0..FAILURES).map(|_| failure())));
        assert!(after((0..1000).map(|_| failure())));
        // A release says nothing about the handler.
        assert!(!after((0..1000).map(|_| Outcome::Release)));
    }

    #[test]
    fn one_run_that_works_ends_the_trial_for_good() {
        let works = || Outcome::Complete { result: None };
        let failures = || (0..1000).map(|_| failure());
        assert!(!after(failures().chain([works()])));
        assert!(!after([works()].into_iter().chain(failures())));
        let waits = Outcome::Snooze { delay: Duration::from_secs(1) };
        assert!(!after([waits].into_iter().chain(failures())));
    }
}
