//! How good an autoscaler was.

use std::collections::VecDeque;

use crate::outcome::Outcome;
use crate::time::{Micros, SECOND, seconds};

/// How a load went under an autoscaler, over all its queues.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Score {
    /// Tasks that could start before the load was over.
    pub tasks: u64,
    /// The median of their waits, in seconds. A wait lasts from the moment when a task could start to its
    /// first start, or to the end.
    pub p50_wait: f64,
    /// The 95th percentile of the waits, in seconds.
    pub p95_wait: f64,
    /// The 99th percentile of the waits, in seconds.
    pub p99_wait: f64,
    /// The longest wait, in seconds.
    pub max_wait: f64,
    /// What it costs: the slots of all pods times the hours from being asked for until they were gone.
    pub worker_hours: f64,
    /// The share of this in which a task ran, from 0 to 1.
    pub busy_share: f64,
    /// How often a minute the number of pods that were asked for turned from more to fewer or back, of the
    /// queue where it did most often.
    pub reversals_per_minute: f64,
    /// The most such turns of one queue within a minute.
    pub most_reversals_in_a_minute: u64,
    /// Tasks that have completed before the load was over.
    pub completed: u64,
    /// Tasks that could start and have not.
    pub not_started: u64,
    /// The longest time, in seconds, for which a queue had waiting tasks and no pod while a pod of another
    /// queue was idle.
    pub starved_seconds: f64,
}

/// A load under an autoscaler at one moment, summed up over its queues.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sample {
    /// Seconds since the begin.
    pub at: f64,
    /// Tasks that could start.
    pub available: u64,
    /// Tasks that run.
    pub running: u64,
    /// Pods that start or are ready. Draining ones do not count.
    pub pods_asked: u32,
    /// Those that are ready.
    pub pods_ready: u32,
    /// How long the oldest available task has waited, in seconds; zero without any.
    pub wait_of_oldest: f64,
}

impl Sample {
    /// Adds another queue's of the same moment.
    pub(crate) fn add(&mut self, other: &Self) {
        self.available += other.available;
        self.running += other.running;
        self.pods_asked += other.pods_asked;
        self.pods_ready += other.pods_ready;
        self.wait_of_oldest = self.wait_of_oldest.max(other.wait_of_oldest);
    }
}

impl Score {
    pub(crate) fn of(mut outcome: Outcome) -> Self {
        let waits = &mut outcome.waits;
        let percentiles = [50, 95, 99, 100].map(|percent| seconds(percentile(waits, percent)));
        let [p50_wait, p95_wait, p99_wait, max_wait] = percentiles;
        let most_reversals = outcome.reversals.iter().map(Vec::len).max().unwrap_or_default();
        let in_a_minute = outcome.reversals.iter().map(|turns| most_within(turns, 60 * SECOND)).max();
        Self {
            tasks: outcome.waits.len() as u64,
            p50_wait,
            p95_wait,
            p99_wait,
            max_wait,
            worker_hours: hours(outcome.workers),
            busy_share: if outcome.workers > 0 { hours(outcome.busy) / hours(outcome.workers) } else { 0.0 },
            reversals_per_minute: float(most_reversals) * 60.0 / seconds(outcome.lasted).max(1.0),
            most_reversals_in_a_minute: in_a_minute.unwrap_or_default() as u64,
            completed: outcome.completed,
            not_started: outcome.not_started,
            starved_seconds: seconds(outcome.starved),
        }
    }
}

/// The least wait that this many percent of the tasks do not exceed.
pub(crate) fn percentile(waits: &mut [Micros], percent: usize) -> Micros {
    let rank = (waits.len() * percent).div_ceil(100).max(1) - 1;
    if rank >= waits.len() { 0 } else { *waits.select_nth_unstable(rank).1 }
}

/// The most of these moments, which are in order, within such a time.
fn most_within(moments: &[Micros], time: Micros) -> usize {
    let (mut window, mut most) = (VecDeque::new(), 0);
    for moment in moments {
        window.push_back(*moment);
        while window.front().is_some_and(|first| first + time <= *moment) {
            window.pop_front();
        }
        most = most.max(window.len());
    }
    most
}

#[expect(clippy::cast_precision_loss, reason = "hours need no more digits")]
fn hours(micros: u128) -> f64 {
    micros as f64 / 3.6e9
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_those_that_there_are() {
        let mut waits: Vec<Micros> = (1..=100).rev().collect();
        assert_eq!([50, 95, 99, 100].map(|percent| percentile(&mut waits, percent)), [50, 95, 99, 100]);
        assert_eq!(percentile(&mut [7], 50), 7);
        assert_eq!(percentile(&mut [], 95), 0);
    }

    #[test]
    fn turns_count_within_any_minute() {
        let turns = [0, 10, 59, 60, 69, 200].map(|second| second * SECOND);
        assert_eq!(most_within(&turns, 60 * SECOND), 4);
        assert_eq!(most_within(&[], 60 * SECOND), 0);
    }

    #[test]
    fn the_queue_that_turned_most_counts() {
        let reversals = vec![vec![SECOND], vec![0, 30 * SECOND, 300 * SECOND]];
        let outcome = Outcome { reversals, lasted: 600 * SECOND, ..Outcome::default() };
        let score = Score::of(outcome);
        assert!((score.reversals_per_minute - 0.3).abs() < 1e-9);
        assert_eq!(score.most_reversals_in_a_minute, 2);
    }
}
