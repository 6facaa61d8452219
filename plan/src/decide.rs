//! How many workers and pods a queue shall have.

use std::time::Duration;

use crate::{Backlog, Decision, Inputs, Memory, ObservedQueue, Reason, Scaling};

/// Decides about one queue. `now` is a monotonic clock of the caller's, the same from call to call.
///
/// Up at once and in one step; down only to the highest demand of the last `scale_down_after`; to zero only
/// when nothing is available, due soon or running (or the queue is paused, so that nothing could start). What
/// is not known holds the pods as they are. Where somebody else says the number, that is followed. While no
/// handler gets to run there is one pod, however many are asked for: a hundred would crash no better (but
/// nothing known holds these, too: many a handler needs the same database). `total` is above everything else,
/// and [`share`](crate::share) above that.
#[must_use]
pub fn decide(queue: &ObservedQueue, memory: Memory, now: Duration) -> Decision {
    let decision = decide_scaling(queue, memory, now);
    if !queue.not_starting || queue.suspend_scaling || queue.stats.is_none() || decision.pods_desired <= 1 {
        return decision;
    }
    Decision {
        pods_desired: 1,
        workers_desired: queue.workers_on(1),
        reason: Reason::NotStarting,
        ..decision
    }
}

/// Where handlers run, as far as anybody knows.
fn decide_scaling(queue: &ObservedQueue, memory: Memory, now: Duration) -> Decision {
    let (min, wait_target, scale_down_after) = match queue.scaling {
        Scaling::Auto { scale_down_after, .. } if queue.suspend_scaling => {
            return hold(queue, memory, now, Reason::Suspended, scale_down_after);
        }
        _ if queue.suspend_scaling => return hold(queue, memory, now, Reason::Suspended, Duration::ZERO),
        Scaling::Fixed => return fixed(queue, memory, now),
        Scaling::External { replicas } => return external(queue, replicas, memory, now),
        Scaling::Auto { min, wait_target, scale_down_after } => (min, wait_target, scale_down_after),
    };
    let Some(stats) = &queue.stats else {
        let held = hold(queue, memory, now, Reason::Unknown, scale_down_after);
        return within_limits(queue, min, held);
    };
    let mut memory = memory;
    if memory.is_empty() {
        // After a restart the window is not known; what is there now was asked for.
        memory.demand(now, queue.workers_on(queue.pods), scale_down_after);
    }
    let inputs = Inputs::of(stats, memory.service_seconds, queue.pod_start, wait_target);
    if !inputs.service_assumed {
        memory.service_seconds = Some(inputs.service_seconds);
    }
    let (demand, reason) = demand(queue, stats, &inputs, min);
    let highest = memory.demand(now, demand, scale_down_after).min(queue.total);
    let (workers, reason) =
        if highest > demand { (highest, Reason::Stabilization) } else { (demand, reason) };
    Decision { demand: Some(demand), inputs: Some(inputs), ..decision_of(queue, workers, reason, memory) }
}

/// Remembered, so that turning autoscaling on is no reason to drop pods at once.
fn fixed(queue: &ObservedQueue, mut memory: Memory, now: Duration) -> Decision {
    memory.demand(now, queue.total, Duration::ZERO);
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
    memory.demand(now, workers, Duration::ZERO);
    Decision { demand: Some(demand), ..decision_of(queue, workers, reason, memory) }
}

/// What the tasks ask for, between what must be and what may be.
fn demand(queue: &ObservedQueue, stats: &Backlog, inputs: &Inputs, min: u32) -> (u32, Reason) {
    let (mut demand, mut reason) = if queue.paused {
        (0, Reason::Paused)
    } else {
        let asked = inputs.workers();
        let reason = if inputs.backlog > 0 && inputs.for_backlog >= inputs.for_rate {
            Reason::Backlog
        } else if asked > 0 {
            Reason::Rate
        } else {
            Reason::Running
        };
        // A task that is there needs one worker, however short it is.
        (asked.max(u32::from(!stats.is_idle())), reason)
    };
    let running = u32::try_from(stats.running).unwrap_or(u32::MAX);
    if running > demand {
        (demand, reason) = (running, Reason::Running);
    }
    if min > demand || (demand == 0 && !queue.paused) {
        (demand, reason) = (min, Reason::MinWorkers);
    }
    if demand > queue.total {
        (demand, reason) = (queue.total, Reason::Total);
    }
    (demand, reason)
}

/// As it is, remembered as a demand: what was held blindly goes no sooner than what was asked for.
fn hold(
    queue: &ObservedQueue,
    mut memory: Memory,
    now: Duration,
    reason: Reason,
    window: Duration,
) -> Decision {
    let workers = queue.workers_on(queue.pods);
    memory.demand(now, workers, window);
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
