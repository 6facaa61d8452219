//! How many workers the tasks ask for, before any limit.

use std::fmt;
use std::time::Duration;

use crate::Backlog;

/// Share of their time that workers shall be busy: the rest absorbs that tasks come in bursts.
const UTILISATION: f64 = 0.8;
/// Taken while no task has ever finished: what HTTP handlers of unknown kind usually stay below.
const ASSUMED_SERVICE_SECONDS: f64 = 1.0;
/// Of the wait target this share always counts as left: when tasks are late already, no number of workers is
/// enough, and one that grows without bound helps nobody.
const LEAST_WAIT_SHARE: f64 = 0.2;
/// No wait is counted shorter, whatever the target: statistics are seconds old.
const LEAST_WAIT_SECONDS: f64 = 0.1;

/// Tasks a second, or seconds: more than any database does or anything takes. Products of what is larger may
/// be no number.
const LARGEST: f64 = 1e12;

/// What a decision was computed from, and the parts of the sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Inputs {
    /// λ: tasks that come, per second.
    pub arrivals_per_second: f64,
    /// S: how long one takes.
    pub service_seconds: f64,
    /// Whether S is a guess, because no task has finished yet.
    pub service_assumed: bool,
    /// B: tasks that could start now or within seconds.
    pub backlog: u64,
    /// Tasks that run.
    pub running: u64,
    /// P: how long a new pod takes to help.
    pub pod_start_seconds: f64,
    /// T: what is left of the wait target for the oldest task.
    pub wait_left_seconds: f64,
    /// Workers to keep up with what comes and runs.
    pub for_rate: f64,
    /// Workers to start the backlog in time.
    pub for_backlog: f64,
}

impl Inputs {
    /// `λ·S/ρ + (B + λ·P)·S/T`, with two corrections for tasks that take longer than they may wait.
    ///
    /// A waiting task needs one worker and no more, so `S/T` counts as at most 1. And what runs then blocks
    /// its workers past T: of the running tasks a share of `1 - T/S` is still there when the wait is over,
    /// which counts where it is more than `λ·S/ρ`. Without that, ten hour-long tasks would hide an eleventh.
    pub(crate) fn of(stats: &Backlog, known_service: Option<f64>, start: Duration, wait: Duration) -> Self {
        let known = stats.mean_service_seconds.and_then(sane).or(known_service);
        let service = known.unwrap_or(ASSUMED_SERVICE_SECONDS);
        let arrivals = sane(stats.arrivals_per_second).unwrap_or_default();
        let target = wait.as_secs_f64();
        let waited = stats.oldest_available_seconds.and_then(sane).unwrap_or_default();
        let left = (target - waited).max(target * LEAST_WAIT_SHARE).max(LEAST_WAIT_SECONDS);
        let pod_start = start.as_secs_f64();
        let backlog = stats.available.saturating_add(stats.due_soon);
        let blocked = if service > left { float(stats.running) * (1.0 - left / service) } else { 0.0 };
        Self {
            arrivals_per_second: arrivals,
            service_seconds: service,
            service_assumed: known.is_none(),
            backlog,
            running: stats.running,
            pod_start_seconds: pod_start,
            wait_left_seconds: left,
            for_rate: (arrivals * service / UTILISATION).max(blocked),
            for_backlog: (float(backlog) + arrivals * pod_start) * (service / left).min(1.0),
        }
    }

    /// The sum in whole workers.
    pub(crate) fn workers(&self) -> u32 {
        ceil(self.for_rate + self.for_backlog)
    }
}

impl fmt::Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backlog, running, arrivals_per_second, service_seconds, wait_left_seconds, .. } = self;
        let assumed = if self.service_assumed { ", assumed" } else { "" };
        write!(
            f,
            "{backlog} waiting, {running} running, {arrivals_per_second:.1}/s arriving, {service_seconds:.3} s each\
             {assumed}, {wait_left_seconds:.1} s left to start; {:.1} workers for the rate and {:.1} for the backlog",
            self.for_rate, self.for_backlog
        )
    }
}

/// A measured quantity, or nothing when it is none (negative, beyond all that can be, not a number).
fn sane(quantity: f64) -> Option<f64> {
    (0.0..=LARGEST).contains(&quantity).then_some(quantity)
}

#[expect(clippy::cast_precision_loss, reason = "past 2^53 tasks an error of one does not matter")]
fn float(count: u64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float casts saturate, which is what a ceiling above makes of it"
)]
fn ceil(workers: f64) -> u32 {
    // Sums such as 0.1 + 0.2 come out a hair too high and must not cost a worker.
    (workers - 1e-9).ceil() as u32
}
