//! What the decisions promise, as tables, as properties and as a small simulation.

mod properties;
mod share;
mod simulation;
mod table;

use std::time::Duration;

use rowlock_plan::{Backlog, Decision, Memory, ObservedQueue, Scaling, decide};

/// At most 100 workers, ten per pod, wait target 5 s, down after 60 s, from zero; a pod starts in 3 s.
fn queue() -> ObservedQueue {
    ObservedQueue {
        total: 100,
        per_pod: 10,
        scaling: auto(0),
        paused: false,
        suspend_scaling: false,
        stats: Some(Backlog::default()),
        pods: 0,
        not_starting: false,
        held_for: Duration::ZERO,
        unready_for: Duration::ZERO,
        waited_for: Duration::ZERO,
        pod_start: seconds(3),
    }
}

fn auto(min: u32) -> Scaling {
    Scaling::Auto { min, wait_target: seconds(5), scale_down_after: seconds(60) }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A first decision, nothing remembered.
fn first(queue: &ObservedQueue) -> Decision {
    decide(queue, Memory::default(), seconds(1000))
}
