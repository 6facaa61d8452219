//! How long a task takes, from the runs that completed.

use std::time::Duration;

use crate::{Backlog, Runs};

/// Taken while no task has ever finished: handlers over HTTP mostly stay below it.
const ASSUMED_SECONDS: f64 = 3.0;

/// How long runs count, in seconds: tasks of very different lengths need thousands of runs for a mean that
/// can be relied on.
const REMEMBERED_SECONDS: f64 = 600.0;

/// The runs that are seen at one moment are those of this many seconds.
const SEEN_SECONDS: f64 = 120.0;

/// If the runs that are seen differ from those remembered by more standard errors, it is not chance.
const SIGNIFICANT: f64 = 4.0;

/// Running tasks that have run for this many times as long as running tasks usually have are of another kind.
const SLOWER: f64 = 8.0;

/// No squared coefficient of variation counts as more: a few runs of very different lengths give an arbitrary
/// value.
const MOST_VARIATION: f64 = 30.0;

/// Seconds, or tasks a second, beyond what can be: products of such numbers are not finite.
pub(crate) const LARGEST: f64 = 1e12;

/// The runs of the last minutes, kept between decisions.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct ServiceHistory {
    runs: f64,
    seconds: f64,
    seconds_squared: f64,
    at: Duration,
}

/// How long a task takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServiceTime {
    /// The mean, in seconds.
    pub mean: f64,
    /// The variance divided by the square of the mean: 1 if times are exponentially distributed.
    pub variation: f64,
    /// Whether the mean is a guess: no run has completed yet.
    pub assumed: bool,
}

impl ServiceTime {
    /// By these runs alone. `None` if none of them completed.
    #[must_use]
    pub fn of(runs: &Runs) -> Option<Self> {
        Some(ServiceHistory::of(runs)?.time(&Backlog::default()))
    }
}

/// A measured time, or zero if there is none that can be.
pub(crate) fn sane(seconds: Option<f64>) -> f64 {
    seconds.filter(|seconds| (0.0..=LARGEST).contains(seconds)).unwrap_or_default()
}

impl ServiceHistory {
    /// Adds the runs that are seen at `now`.
    pub(crate) fn note(&mut self, runs: &Runs, now: Duration) {
        let Some(seen) = Self::of(runs) else { return };
        if self.runs < 1.0 || self.differs_from(&seen) {
            *self = Self { at: now, ..seen };
            return;
        }
        let passed = now.saturating_sub(self.at).as_secs_f64();
        let kept = (-passed / REMEMBERED_SECONDS).exp();
        let added = (passed / SEEN_SECONDS).min(1.0);
        let mix = |old: f64, new: f64| old * kept + new * added;
        *self = Self {
            runs: mix(self.runs, seen.runs),
            seconds: mix(self.seconds, seen.seconds),
            seconds_squared: mix(self.seconds_squared, seen.seconds_squared),
            at: now,
        };
    }

    fn of(runs: &Runs) -> Option<Self> {
        let is_sane = |number: f64| (0.0..=LARGEST).contains(&number);
        let sane = runs.completed > 0 && is_sane(runs.seconds) && is_sane(runs.seconds_squared);
        #[expect(clippy::cast_precision_loss, reason = "past 2^53 runs an error of one does not matter")]
        let completed = runs.completed as f64;
        sane.then_some(Self {
            runs: completed,
            seconds: runs.seconds,
            seconds_squared: runs.seconds_squared,
            at: Duration::ZERO,
        })
    }

    fn mean(&self) -> f64 {
        self.seconds / self.runs
    }

    fn variance(&self) -> f64 {
        (self.seconds_squared / self.runs - self.mean().powi(2)).max(0.0)
    }

    /// Whether the handler has become faster or slower.
    fn differs_from(&self, seen: &Self) -> bool {
        let error = (self.variance().max(seen.variance()) / seen.runs).sqrt();
        (self.mean() - seen.mean()).abs() > SIGNIFICANT * error + 0.1 * self.mean()
    }

    /// The time of a task. While nothing has ended, what runs takes twice as long as it has run so far.
    pub(crate) fn time(&self, stats: &Backlog) -> ServiceTime {
        if self.runs < 1.0 {
            let mean = (2.0 * sane(stats.mean_running_seconds)).max(ASSUMED_SECONDS);
            return ServiceTime { mean, variation: 1.0, assumed: true };
        }
        let mean = self.mean();
        let variation = if mean > 0.0 { self.variance() / mean.powi(2) } else { 0.0 };
        let variation = variation.min(MOST_VARIATION);
        let running = sane(stats.mean_running_seconds);
        // Long tasks are more often among those that run: on average these have run for `S * (1 + c²) / 2`.
        let usual = mean * f64::midpoint(1.0, variation);
        let slower = running > SLOWER * usual;
        ServiceTime { mean: if slower { 2.0 * running } else { mean }, variation, assumed: false }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the numbers are exact")]
mod tests {
    use super::*;

    fn runs(completed: u32, service: f64) -> Runs {
        let seconds = f64::from(completed) * service;
        Runs { completed: completed.into(), seconds, seconds_squared: seconds * service, failed: 0 }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn while_nothing_has_completed_the_time_is_a_guess() {
        let history = ServiceHistory::default();
        assert_eq!(history.time(&Backlog::default()).mean, ASSUMED_SECONDS);
        let long = |seconds| Backlog { mean_running_seconds: Some(seconds), ..Backlog::default() };
        let time = history.time(&long(40.0));
        assert_eq!((time.mean, time.assumed), (80.0, true));
        assert_eq!(history.time(&long(f64::NAN)).mean, ASSUMED_SECONDS);
    }

    #[test]
    fn runs_alone_give_the_mean_and_the_variation() {
        let two = Runs { completed: 2, seconds: 4.0, seconds_squared: 10.0, failed: 1 };
        assert_eq!(ServiceTime::of(&two), Some(ServiceTime { mean: 2.0, variation: 0.25, assumed: false }));
        assert_eq!(ServiceTime::of(&Runs { failed: 1, ..Runs::default() }), None);
    }

    #[test]
    fn many_runs_count_more_than_few() {
        let mut history = ServiceHistory::default();
        history.note(&Runs { seconds_squared: 4000.0, ..runs(1000, 1.0) }, at(0));
        history.note(&Runs { seconds_squared: 100.0, ..runs(10, 2.0) }, at(60));
        let time = history.time(&Backlog::default());
        assert!((1.0..1.02).contains(&time.mean), "{time:?}");
        assert!((2.9..3.1).contains(&time.variation), "{time:?}");
    }

    #[test]
    fn a_slower_handler_is_believed_at_once() {
        let mut history = ServiceHistory::default();
        history.note(&runs(1000, 0.1), at(0));
        history.note(&runs(1000, 0.105), at(60));
        assert!(history.time(&Backlog::default()).mean < 0.105, "a little more is mixed in");
        history.note(&runs(100, 2.0), at(62));
        assert_eq!(history.time(&Backlog::default()).mean, 2.0);
        // An idle queue knows it still, an hour later.
        history.note(&runs(0, 0.0), at(3600));
        assert_eq!(history.time(&Backlog::default()).mean, 2.0);
    }

    #[test]
    fn what_cannot_be_counts_for_nothing() {
        for absurd in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            let mut history = ServiceHistory::default();
            history.note(&Runs { seconds: absurd, ..runs(10, 1.0) }, at(0));
            history.note(&Runs { seconds_squared: absurd, ..runs(10, 1.0) }, at(0));
            assert!(history.time(&Backlog::default()).assumed, "{absurd}");
        }
        let mut history = ServiceHistory::default();
        history.note(&Runs { seconds_squared: 1e9, ..runs(10, 1.0) }, at(0));
        assert_eq!(history.time(&Backlog::default()).variation, MOST_VARIATION);
        let mut history = ServiceHistory::default();
        history.note(&runs(10, 0.0), at(1));
        assert_eq!(history.time(&Backlog::default()).mean, 0.0);
        assert_eq!(history.time(&Backlog::default()).variation, 0.0);
    }
}
