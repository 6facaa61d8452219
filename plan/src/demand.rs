//! How many workers the tasks ask for, before any limit.

use std::fmt;
use std::time::Duration;

use crate::arrivals::ArrivalHistory;
use crate::service::{LARGEST, ServiceHistory, ServiceTime, sane};
use crate::staffing::least_workers;
use crate::tuning::Tuning;
use crate::{Backlog, ObservedQueue};

/// No wait is counted shorter, in seconds: a poll may come that much later.
const LEAST_WAIT: f64 = 0.1;

/// Running tasks are expected to run on for this part of the time that they have run so far, if that is more
/// than S: a mean of few tasks that are as long as others is sometimes a few times S.
const STILL_RUNS: f64 = 0.1;

/// No pod is expected to take longer to start, in seconds. A start that took longer waited for something, and
/// fewer new pods would be asked for, whose starts could correct the number.
const LONGEST_START: f64 = 60.0;

/// No task is counted as shorter, in seconds: a claim and a settlement take as long.
const LEAST_SERVICE: f64 = 1e-3;

/// What a decision was computed from, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Inputs {
    /// λ: tasks that come and may start at once, per second.
    pub arrivals_per_second: f64,
    /// Whether λ has fallen lately, by more than noise.
    pub arrivals_falling: bool,
    /// S: how long one takes, in seconds.
    pub service_seconds: f64,
    /// c²: the variance of that divided by the square of the mean.
    pub service_variation: f64,
    /// Whether S is a guess, because no task has completed yet.
    pub service_assumed: bool,
    /// B: tasks that could start now or within seconds.
    pub backlog: u64,
    /// Tasks that run.
    pub running: u64,
    /// P: how long a new pod takes to help, in seconds.
    pub pod_start_seconds: f64,
    /// The tasks that will still wait when a new pod could help.
    pub backlog_then: f64,
    /// Workers to keep up with what comes.
    pub for_rate: f64,
    /// Workers to start the backlog in time.
    pub for_backlog: f64,
}

impl Inputs {
    pub(crate) fn of(
        queue: &ObservedQueue,
        stats: &Backlog,
        arrivals: &ArrivalHistory,
        service: &ServiceHistory,
        wait_target: Duration,
        tuning: &Tuning,
    ) -> Self {
        let ServiceTime { mean, variation, assumed } = service.time(stats);
        let rate = arrivals.rate();
        let target = wait_target.as_secs_f64();
        let pod_start = queue.pod_start.as_secs_f64().min(LONGEST_START);
        let backlog = stats.available.saturating_add(stats.due_soon);
        let mut inputs = Self {
            arrivals_per_second: rate.per_second,
            arrivals_falling: rate.falling,
            service_seconds: mean,
            service_variation: variation,
            service_assumed: assumed,
            backlog,
            running: stats.running,
            pod_start_seconds: pod_start,
            backlog_then: 0.0,
            for_rate: 0.0,
            for_backlog: 0.0,
        };
        inputs.for_rate = inputs.workers_for_rate(target * tuning.steady_wait, tuning);
        let wait = (target * tuning.backlog_wait).max(LEAST_WAIT);
        let running_seconds = (sane(stats.mean_running_seconds) * STILL_RUNS).max(LEAST_SERVICE);
        (inputs.for_backlog, inputs.backlog_then) =
            inputs.workers_for_backlog(queue, running_seconds, wait, wait.max(pod_start * tuning.patience));
        inputs
    }

    /// Workers to keep up with a steady rate, so that few tasks wait for longer than `wait` seconds.
    fn workers_for_rate(&self, wait: f64, tuning: &Tuning) -> f64 {
        let busy = self.arrivals_per_second * self.service_seconds;
        let (mean, variation) = (self.service_seconds, self.service_variation);
        let staffed = least_workers(busy, mean, variation, wait, tuning.late_share);
        staffed.max(busy / tuning.utilisation).min(LARGEST)
    }

    /// Workers to start the backlog: `wait` seconds from now with those that there are, or within `wait_new`
    /// seconds from when new ones are ready. Also answers how many tasks will still wait then.
    ///
    /// A worker begins one task when it is ready, or idle, and then one every S seconds. A busy one takes
    /// `running_seconds` if that is longer: a task that has run for long mostly runs on. While S is a
    /// guess, no running task is expected to end.
    fn workers_for_backlog(
        &self,
        queue: &ObservedQueue,
        running_seconds: f64,
        wait: f64,
        wait_new: f64,
    ) -> (f64, f64) {
        if self.backlog == 0 {
            return (0.0, 0.0);
        }
        let per_worker = |seconds: f64| seconds / self.service_seconds.max(LEAST_SERVICE);
        let per_busy = |seconds: f64| {
            if self.service_assumed { 0.0 } else { seconds / self.service_seconds.max(running_seconds) }
        };
        let workers = f64::from(queue.workers_on(queue.pods));
        let ready = f64::from(queue.workers_on(queue.ready.min(queue.pods)));
        let running = float(self.running).min(ready);
        let start = self.pod_start_seconds;
        let begun = running * per_busy(start)
            + (ready - running) * (1.0 + per_worker(start))
            // They become ready half-way, on average.
            + (workers - ready) * (1.0 + per_worker(start / 2.0));
        let then = (float(self.backlog) + self.arrivals_per_second * start - begun).max(0.0);
        let left = then + self.arrivals_per_second * wait_new - workers * per_busy(wait_new);
        let new = if then > 0.0 { (left / (1.0 + per_worker(wait_new))).max(0.0) } else { 0.0 };
        let busy = self.arrivals_per_second * self.service_seconds;
        let kept = (busy + float(self.backlog) / (1.0 + per_worker(wait))).min(workers);
        (if new > 0.0 { workers + new } else { kept }.min(LARGEST), then)
    }
}

impl fmt::Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backlog, running, arrivals_per_second, service_seconds, pod_start_seconds, .. } = self;
        let assumed = if self.service_assumed { ", assumed" } else { "" };
        write!(
            f,
            "{backlog} waiting, {running} running, {arrivals_per_second:.1}/s arriving, {service_seconds:.3} \
             s each{assumed}, a pod starts in {pod_start_seconds:.1} s; {:.1} slots for the rate and {:.1} \
             for the backlog",
            self.for_rate, self.for_backlog
        )
    }
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
pub(crate) fn ceil(workers: f64) -> u32 {
    // Sums such as 0.1 + 0.2 come out slightly too high and must not cost a slot.
    (workers - 1e-9).ceil() as u32
}
