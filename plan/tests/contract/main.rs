//! What the decisions promise, as tables, as properties and as a small simulation.

mod canary;
mod fleet;
mod manifest;
mod properties;
mod share;
mod table;

use std::time::Duration;

use rowlock_crds::ScalingPreference;
use rowlock_plan::{
    ARRIVAL_SECONDS, Arrivals, Backlog, Decision, Memory, ObservedQueue, Runs, Scaling, decide,
};

/// At most 100 workers, ten per pod, wait target 5 s, down after 60 s, from zero; a pod starts in 3 s.
fn queue() -> ObservedQueue {
    ObservedQueue {
        total: 100,
        per_pod: 10,
        scaling: auto(0),
        paused: false,
        suspend_scaling: false,
        stalled: false,
        stats: Some(Backlog::default()),
        pods: 0,
        ready: 0,
        unplaced: 0,
        room: None,
        not_starting: false,
        held_for: Duration::ZERO,
        unready_for: Duration::ZERO,
        waited_for: Duration::ZERO,
        pod_start: seconds(3),
    }
}

fn auto(min: u32) -> Scaling {
    Scaling::Auto {
        min,
        wait_target: seconds(5),
        scale_down_after: seconds(60),
        prefer: ScalingPreference::Balanced,
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A first decision, nothing remembered.
fn first(queue: &ObservedQueue) -> Decision {
    decide(queue, Memory::default(), seconds(1000))
}

/// A thousand runs that took this many seconds each.
fn runs(service: f64) -> Runs {
    Runs {
        completed: 1000,
        seconds: 1000.0 * service,
        seconds_squared: 1000.0 * service * service,
        failed: 0,
    }
}

/// This many tasks arrived in each of the last seconds.
fn steadily(per_second: u64) -> Arrivals {
    Arrivals { second: 1000, counts: [per_second; ARRIVAL_SECONDS], known: ARRIVAL_SECONDS }
}
