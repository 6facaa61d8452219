//! What the database and the instances count of a queue.

use std::collections::VecDeque;

use rowlock_plan::{ARRIVAL_SECONDS, Arrivals, Runs};

use crate::time::{Micros, SECOND, seconds};

/// For how many seconds ended runs count.
const RUNS_SECONDS: u64 = 120;

/// The tasks that could start at once, by the second in which they were enqueued.
#[derive(Debug, Default)]
pub(crate) struct ArrivalSeconds {
    newest: u64,
    counts: [u64; ARRIVAL_SECONDS],
}

impl ArrivalSeconds {
    pub(crate) fn count(&mut self, now: Micros) {
        self.advance(now);
        self.counts[0] += 1;
    }

    /// As a poll at that moment counts them.
    pub(crate) fn at(&mut self, now: Micros) -> Arrivals {
        self.advance(now);
        let second = i64::try_from(self.newest).unwrap_or(i64::MAX);
        Arrivals { second, counts: self.counts, known: ARRIVAL_SECONDS }
    }

    fn advance(&mut self, now: Micros) {
        let second = now / SECOND;
        let passed = usize::try_from(second - self.newest).unwrap_or(usize::MAX).min(ARRIVAL_SECONDS);
        if passed > 0 {
            self.counts.rotate_right(passed % ARRIVAL_SECONDS);
            self.counts[..passed].fill(0);
            self.newest = second;
        }
    }
}

/// Sums over ended runs.
#[derive(Debug, Clone, Copy, Default)]
struct RunSums {
    completed: u64,
    micros: u64,
    micros_squared: u128,
    failed: u64,
}

/// The runs that ended lately, as far as instances have reported them.
#[derive(Debug, Default)]
pub(crate) struct RunWindow {
    /// By the second in which they ended; not reported yet.
    unreported: VecDeque<(u64, RunSums)>,
    reported: VecDeque<(u64, RunSums)>,
    sum: RunSums,
}

impl RunWindow {
    pub(crate) fn count(&mut self, now: Micros, took: Micros, failed: bool) {
        let second = now / SECOND;
        if self.unreported.back().is_none_or(|(newest, _)| *newest != second) {
            self.unreported.push_back((second, RunSums::default()));
        }
        let Some((_, sums)) = self.unreported.back_mut() else { return };
        if failed {
            sums.failed += 1;
        } else {
            sums.completed += 1;
            sums.micros += took;
            sums.micros_squared += u128::from(took) * u128::from(took);
        }
    }

    /// As a poll at that moment sums them up: instances report with their heartbeat each second.
    pub(crate) fn at(&mut self, now: Micros) -> Runs {
        let second = now / SECOND;
        while let Some((ended, sums)) = pop_before(&mut self.unreported, second) {
            self.sum.add(&sums);
            self.reported.push_back((ended, sums));
        }
        while let Some((_, sums)) = pop_before(&mut self.reported, second.saturating_sub(RUNS_SECONDS)) {
            self.sum.subtract(&sums);
        }
        let RunSums { completed, micros, micros_squared, failed } = self.sum;
        #[expect(clippy::cast_precision_loss, reason = "a sum of squares needs no more digits")]
        let seconds_squared = micros_squared as f64 / 1e12;
        Runs { completed, seconds: seconds(micros), seconds_squared, failed }
    }
}

fn pop_before(window: &mut VecDeque<(u64, RunSums)>, second: u64) -> Option<(u64, RunSums)> {
    if window.front().is_some_and(|(ended, _)| *ended < second) { window.pop_front() } else { None }
}

impl RunSums {
    fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        self.micros += other.micros;
        self.micros_squared += other.micros_squared;
        self.failed += other.failed;
    }

    fn subtract(&mut self, other: &Self) {
        self.completed -= other.completed;
        self.micros -= other.micros;
        self.micros_squared -= other.micros_squared;
        self.failed -= other.failed;
    }
}

/// How many tasks wait or run, summed up over time: what averages over windows are made from.
#[derive(Debug, Default)]
pub(crate) struct Concurrency {
    /// Tasks times microseconds, until `since`.
    area: u128,
    since: Micros,
    tasks: u64,
}

impl Concurrency {
    pub(crate) fn set(&mut self, now: Micros, tasks: u64) {
        self.area = self.area_at(now);
        (self.since, self.tasks) = (now, tasks);
    }

    /// Tasks times microseconds from the begin until that moment, which is no earlier than the last change.
    pub(crate) fn area_at(&self, now: Micros) -> u128 {
        self.area + u128::from(self.tasks) * u128::from(now.saturating_sub(self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_count_for_their_second_and_are_forgotten() {
        let mut arrivals = ArrivalSeconds::default();
        arrivals.count(SECOND / 2);
        arrivals.count(2 * SECOND);
        arrivals.count(2 * SECOND + 1);
        let seen = arrivals.at(3 * SECOND);
        assert_eq!((seen.second, &seen.counts[..5]), (3, &[0, 2, 0, 1, 0][..]));
        assert_eq!(arrivals.at(12 * SECOND).counts[10], 2);
        assert_eq!(arrivals.at(13 * SECOND).counts, [0; ARRIVAL_SECONDS]);
        assert_eq!(arrivals.at(1000 * SECOND).second, 1000);
    }

    #[test]
    fn runs_count_from_the_next_heartbeat_on_for_two_minutes() {
        let mut runs = RunWindow::default();
        runs.count(SECOND, 2 * SECOND, false);
        runs.count(SECOND, 3 * SECOND, true);
        assert_eq!(runs.at(SECOND + 1), Runs::default());
        let seen = Runs { completed: 1, seconds: 2.0, seconds_squared: 4.0, failed: 1 };
        assert_eq!(runs.at(2 * SECOND), seen);
        assert_eq!(runs.at(121 * SECOND), seen);
        assert_eq!(runs.at(122 * SECOND), Runs::default());
    }

    #[test]
    fn concurrency_is_summed_over_time() {
        let mut concurrency = Concurrency::default();
        concurrency.set(10, 3);
        concurrency.set(20, 1);
        assert_eq!(concurrency.area_at(25), 35);
    }
}
