//! How many workers and pods a queue should have.

use std::time::Duration;

use crate::demand::ceil;
use crate::tuning::Tuning;
use crate::{Backlog, Decision, Inputs, Memory, ObservedQueue, Reason, Scaling};

/// Workers for a rate that has fallen by more than noise are kept for this part of `scale_down_after`.
const FALLING_HOLD: u32 = 3;

/// What a small backlog needs beyond the workers for the rate, up to this part of these.
const SMALL_BACKLOG: u32 = 2;

/// Or up to this many workers, which is a pod of the usual size.
const FEW_WORKERS: u32 = 10;

/// The handler fails if more than this many runs fail for each one that completes: more workers would only
/// fail more.
const FAILURES_PER_COMPLETION: u64 = 4;

/// Fewer failures say nothing about the handler.
const LEAST_FAILURES: u64 = 10;

/// Decides about one queue. `now` is a monotonic clock of the caller's, the same from call to call.
///
/// The number goes up at once and in one step. It goes down to the highest demand of a window: workers for a
/// rate are kept for `scale_down_after` (a third of it once the rate has fallen), workers for a backlog for
/// about twice the time that a pod takes to start.
/// It goes to zero only if no task is available, due soon or running, or if the queue is paused. If the
/// statistics are not known, the pods stay as they are. If somebody else sets the number, it is followed.
/// While no handler starts, there is one pod, however many are needed (unless the statistics are missing: a
/// handler may need the same database). While nearly all runs fail, no pods are added. `total` is above
/// everything else, and [`share`](crate::share) above that.
#[must_use]
pub fn decide(queue: &ObservedQueue, memory: Memory, now: Duration) -> Decision {
    let decision = decide_scaling(queue, memory, now);
    let is_kept = decision.reason.keeps_pods();
    if !queue.not_starting || is_kept || queue.stats.is_none() || decision.pods_desired <= 1 {
        return decision;
    }
    Decision {
        pods_desired: 1,
        workers_desired: queue.workers_on(1),
        reason: Reason::NotStarting,
        ..decision
    }
}

/// Decides as if the handlers start.
fn decide_scaling(queue: &ObservedQueue, memory: Memory, now: Duration) -> Decision {
    if let Some(reason) = queue.keeps_pods_because() {
        let window = match queue.scaling {
            Scaling::Auto { scale_down_after, .. } => scale_down_after,
            Scaling::Fixed | Scaling::External { .. } => Duration::ZERO,
        };
        return hold(queue, memory, now, reason, window);
    }
    let (min, wait_target, scale_down_after, tuning) = match queue.scaling {
        Scaling::Fixed => return fixed(queue, memory, now),
        Scaling::External { replicas } => return external(queue, replicas, memory, now),
        Scaling::Auto { min, wait_target, scale_down_after, prefer } => {
            (min, wait_target, scale_down_after, Tuning::of(prefer))
        }
    };
    let Some(stats) = &queue.stats else {
        let held = hold(queue, memory, now, Reason::Unknown, scale_down_after);
        return within_limits(queue, min, held);
    };
    let mut memory = memory;
    if memory.is_empty() {
        // After a restart the window is not known; what is there now was asked for.
        memory.rate_demand(now, queue.workers_on(queue.pods), scale_down_after);
    }
    memory.arrivals.note(&stats.arrivals);
    memory.service.note(&stats.runs, now);
    let inputs = Inputs::of(queue, stats, &memory.arrivals, &memory.service, wait_target, &tuning);
    let for_rate = if queue.paused { 0 } else { lasting(&inputs, scale_down_after) };
    let (demand, reason) = demand(queue, stats, &inputs, for_rate, min);
    let hold = queue.pod_start.mul_f64(tuning.backlog_hold);
    let hold = hold.max(Duration::from_secs_f64(tuning.least_backlog_hold)).min(scale_down_after);
    let rate_hold =
        if inputs.arrivals_falling { hold.max(scale_down_after / FALLING_HOLD) } else { scale_down_after };
    let limit = if reason == Reason::Failing { demand } else { queue.total };
    let highest = memory
        .rate_demand(now, steady(queue, for_rate, demand).max(min).min(limit), rate_hold)
        .max(memory.backlog_demand(now, demand, hold))
        .min(queue.total);
    let (workers, reason) =
        if highest > demand { (highest, Reason::Stabilization) } else { (demand, reason) };
    Decision { demand: Some(demand), inputs: Some(inputs), ..decision_of(queue, workers, reason, memory) }
}

/// The workers that are kept as those for the rate are. Besides a rate, small backlogs come and go. What they
/// need counts as part of the rate, or pods would come and go with them.
fn steady(queue: &ObservedQueue, for_rate: u32, demand: u32) -> u32 {
    let more = queue.per_pod.min(FEW_WORKERS).max(for_rate / SMALL_BACKLOG);
    if for_rate > 0 { demand.clamp(for_rate, for_rate.saturating_add(more)) } else { 0 }
}

/// Workers for the rate. None if less than one task is expected within the window for which a worker is kept.
fn lasting(inputs: &Inputs, window: Duration) -> u32 {
    // If tasks take longer than the time between them, one always runs.
    let rare = inputs.arrivals_per_second * window.as_secs_f64().max(inputs.service_seconds) < 1.0;
    if rare { 0 } else { ceil(inputs.for_rate) }
}

/// Remembered, so that turning autoscaling on is no reason to drop pods at once.
fn fixed(queue: &ObservedQueue, mut memory: Memory, now: Duration) -> Decision {
    memory.rate_demand(now, queue.total, Duration::ZERO);
    decision_of(queue, queue.total, Reason::Fixed, memory)
}

/// As many pods as somebody else says, as far as `total` goes. While nobody has said a number, those that
/// there are, and one at least: autoscalers of Kubernetes leave what is at zero alone.
fn external(queue: &ObservedQueue, replicas: Option<u32>, mut memory: Memory, now: Duration) -> Decision {
    let asked = replicas.unwrap_or(queue.pods.max(1));
    let demand = asked.saturating_mul(queue.per_pod.max(1));
    let (workers, reason) = if asked > queue.pods_for(queue.total) {
        (queue.total, Reason::Total)
    } else {
        (queue.workers_on(asked), Reason::External)
    };
    memory.rate_demand(now, workers, Duration::ZERO);
    Decision { demand: Some(demand), ..decision_of(queue, workers, reason, memory) }
}

/// The workers that the tasks need now, within `min` and `total`.
fn demand(queue: &ObservedQueue, stats: &Backlog, inputs: &Inputs, for_rate: u32, min: u32) -> (u32, Reason) {
    let (mut demand, mut reason) =
        if queue.paused { (0, Reason::Paused) } else { tasks(stats, inputs, for_rate) };
    let there = queue.workers_on(queue.pods.max(1));
    if demand > there && is_failing(stats) {
        (demand, reason) = (there, Reason::Failing);
    }
    let running = u32::try_from(stats.running).unwrap_or(u32::MAX);
    if running > demand {
        (demand, reason) = (running, Reason::Running);
    }
    if min > demand {
        (demand, reason) = (min, Reason::MinWorkers);
    } else if demand == 0 && !queue.paused {
        reason = Reason::Idle;
    }
    if demand > queue.total {
        (demand, reason) = (queue.total, Reason::Total);
    }
    (demand, reason)
}

/// The workers for the tasks that are there and for those that keep coming.
fn tasks(stats: &Backlog, inputs: &Inputs, for_rate: u32) -> (u32, Reason) {
    let for_backlog = ceil(inputs.for_backlog);
    if inputs.backlog > 0 && for_backlog >= for_rate {
        (for_backlog.max(1), Reason::Backlog)
    } else if for_rate > 0 {
        (for_rate, Reason::Rate)
    } else {
        // A task that runs keeps a worker.
        (u32::from(!stats.is_idle()), Reason::Running)
    }
}

fn is_failing(stats: &Backlog) -> bool {
    let runs = &stats.runs;
    runs.failed >= LEAST_FAILURES && runs.failed > runs.completed.saturating_mul(FAILURES_PER_COMPLETION)
}

/// Keeps the pods. Remembers them as demand, so that the window applies to them later.
fn hold(
    queue: &ObservedQueue,
    mut memory: Memory,
    now: Duration,
    reason: Reason,
    window: Duration,
) -> Decision {
    let workers = queue.workers_on(queue.pods);
    memory.rate_demand(now, workers, window);
    Decision { pods_desired: queue.pods, ..decision_of(queue, workers, reason, memory) }
}

/// The limits that hold without any statistics.
fn within_limits(queue: &ObservedQueue, min: u32, held: Decision) -> Decision {
    let least = min.min(queue.total);
    if held.workers_desired < least {
        decision_of(queue, least, Reason::MinWorkers, held.memory)
    } else if held.pods_desired > queue.pods_for(queue.total) {
        decision_of(queue, queue.total, Reason::Total, held.memory)
    } else {
        held
    }
}

fn decision_of(queue: &ObservedQueue, workers: u32, reason: Reason, memory: Memory) -> Decision {
    let pods_desired = queue.pods_for(workers);
    Decision { workers_desired: workers, pods_desired, reason, demand: None, inputs: None, memory }
}
