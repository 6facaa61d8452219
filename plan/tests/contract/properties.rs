//! What is true of every decision, for any queue and any past.

use std::time::Duration;

use proptest::prelude::*;
use rowlock_crds::ScalingPreference;
use rowlock_plan::{
    ARRIVAL_SECONDS, Arrivals, Backlog, Memory, ObservedQueue, Reason, Runs, Scaling, decide,
};

use crate::seconds;

fn any_scaling() -> impl Strategy<Value = Scaling> {
    let preference = prop_oneof![
        Just(ScalingPreference::ShortWaits),
        Just(ScalingPreference::Balanced),
        Just(ScalingPreference::LowCost)
    ];
    let auto =
        (0_u32..50, 0_u64..100_000, 0_u64..600, preference).prop_map(|(min, wait_ms, down, prefer)| {
            Scaling::Auto {
                min,
                wait_target: Duration::from_millis(wait_ms),
                scale_down_after: seconds(down),
                prefer,
            }
        });
    let external = prop::option::weighted(0.8, prop_oneof![0_u32..30, any::<u32>()])
        .prop_map(|replicas| Scaling::External { replicas });
    prop_oneof![1 => Just(Scaling::Fixed), 1 => external, 6 => auto]
}

/// What somebody else scales may go below what runs, and to zero: it drains.
fn is_external(queue: &ObservedQueue) -> bool {
    matches!(queue.scaling, Scaling::External { .. })
}

fn any_backlog() -> impl Strategy<Value = Backlog> {
    let count = || prop_oneof![Just(0), 0_u64..50, any::<u64>()];
    let quantity = || prop_oneof![0.0..100.0, any::<f64>()];
    let arrivals = (0_i64..2000, prop::array::uniform11(count()), 0_usize..=ARRIVAL_SECONDS + 1)
        .prop_map(|(second, counts, known)| Arrivals { second, counts, known });
    let runs = (count(), quantity(), quantity(), count()).prop_map(
        |(completed, seconds, seconds_squared, failed)| Runs { completed, seconds, seconds_squared, failed },
    );
    (count(), count(), 0_u64..80, arrivals, runs, prop::option::of(quantity()), prop::option::of(quantity()))
        .prop_map(|(available, due_soon, running, arrivals, runs, mean_running_seconds, oldest)| Backlog {
            available,
            due_soon,
            running,
            arrivals,
            runs,
            mean_running_seconds,
            oldest_available_seconds: oldest,
        })
}

fn any_queue() -> impl Strategy<Value = ObservedQueue> {
    (
        (0_u32..200, 0_u32..30, any_scaling(), any::<bool>(), prop::bool::weighted(0.1)),
        (
            prop::option::weighted(0.8, any_backlog()),
            0_u32..20,
            0_u32..20,
            prop::bool::weighted(0.1),
            0_u64..60,
        ),
    )
        .prop_map(
            |(
                (total, per_pod, scaling, paused, suspend_scaling),
                (stats, pods, ready, not_starting, start),
            )| {
                ObservedQueue {
                    total,
                    per_pod,
                    scaling,
                    paused,
                    suspend_scaling,
                    stalled: false,
                    stats,
                    pods,
                    ready: ready.min(pods),
                    unplaced: 0,
                    room: None,
                    not_starting,
                    held_for: Duration::ZERO,
                    unready_for: Duration::ZERO,
                    waited_for: Duration::ZERO,
                    pod_start: seconds(start),
                }
            },
        )
}

/// Other moments of the same queue, each some seconds after the one before.
fn any_past() -> impl Strategy<Value = Vec<(u64, Option<Backlog>, u32)>> {
    prop::collection::vec((0_u64..90, prop::option::weighted(0.8, any_backlog()), 0_u32..20), 0..12)
}

/// Lets the queue live through its past; answers what it remembers, and the time.
fn live(queue: &ObservedQueue, past: &[(u64, Option<Backlog>, u32)]) -> (Memory, Duration) {
    past.iter().fold((Memory::default(), Duration::ZERO), |(memory, now), (after, stats, pods)| {
        let now = now + seconds(*after);
        (decide(&ObservedQueue { stats: *stats, pods: *pods, ..queue.clone() }, memory, now).memory, now)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn never_above_total(queue in any_queue(), past in any_past()) {
        let (memory, now) = live(&queue, &past);
        let decision = decide(&queue, memory, now);
        prop_assert!(decision.workers_desired <= queue.total);
        if !queue.suspend_scaling {
            prop_assert!(decision.pods_desired <= queue.total.div_ceil(queue.per_pod.max(1)));
        }
    }

    #[test]
    fn never_below_what_runs(queue in any_queue(), past in any_past()) {
        let queue = ObservedQueue { suspend_scaling: false, not_starting: false, ..queue };
        let (memory, now) = live(&queue, &past);
        let decision = decide(&queue, memory, now);
        if let Some(stats) = queue.stats && !is_external(&queue) {
            prop_assert!(u64::from(decision.workers_desired) >= stats.running.min(queue.total.into()));
        }
    }

    #[test]
    fn never_below_min(queue in any_queue(), past in any_past()) {
        let queue = ObservedQueue { suspend_scaling: false, not_starting: false, ..queue };
        let (memory, now) = live(&queue, &past);
        if let Scaling::Auto { min, .. } = queue.scaling {
            prop_assert!(decide(&queue, memory, now).workers_desired >= min.min(queue.total));
        }
    }

    #[test]
    fn the_unknown_holds_and_never_goes_to_zero(queue in any_queue(), past in any_past()) {
        let queue = ObservedQueue { stats: None, suspend_scaling: false, total: queue.total.max(1), ..queue };
        let (memory, now) = live(&queue, &past);
        let decision = decide(&queue, memory, now);
        if queue.pods > 0 && !is_external(&queue) {
            prop_assert!(decision.pods_desired > 0);
        }
        if decision.reason == Reason::Unknown {
            prop_assert_eq!(decision.pods_desired, queue.pods);
        }
    }

    #[test]
    fn zero_only_when_nothing_is_left(queue in any_queue(), past in any_past()) {
        let total = queue.total.max(1);
        let queue = ObservedQueue { paused: false, suspend_scaling: false, total, ..queue };
        let (memory, now) = live(&queue, &past);
        let decision = decide(&queue, memory, now);
        if let Some(stats) = queue.stats && decision.pods_desired == 0 && !is_external(&queue) {
            prop_assert_eq!((stats.available, stats.due_soon, stats.running), (0, 0, 0));
        }
    }

    #[test]
    fn a_larger_backlog_never_gets_fewer_workers(queue in any_queue(), past in any_past(), more: u64) {
        let (memory, now) = live(&queue, &past);
        let mut larger = queue.clone();
        if let Some(stats) = &mut larger.stats {
            stats.available = stats.available.saturating_add(more);
        }
        let workers = |queue: &ObservedQueue| decide(queue, memory.clone(), now).workers_desired;
        prop_assert!(workers(&queue) <= workers(&larger));
    }

    #[test]
    fn pods_hold_the_workers_and_no_pod_is_superfluous(queue in any_queue(), past in any_past()) {
        let queue = ObservedQueue { suspend_scaling: false, ..queue };
        let (memory, now) = live(&queue, &past);
        let decision = decide(&queue, memory, now);
        prop_assert_eq!(decision.pods_desired, decision.workers_desired.div_ceil(queue.per_pod.max(1)));
    }

    #[test]
    fn a_number_from_outside_is_followed_up_to_total_whatever_the_tasks_do(
        queue in any_queue(), past in any_past(), replicas: u32,
    ) {
        let scaling = Scaling::External { replicas: Some(replicas) };
        let queue = ObservedQueue { scaling, suspend_scaling: false, not_starting: false, ..queue };
        let (memory, now) = live(&queue, &past);
        let decision = decide(&queue, memory, now);
        let most = queue.total.div_ceil(queue.per_pod.max(1));
        prop_assert_eq!(decision.pods_desired, replicas.min(most));
        prop_assert_eq!(decision.reason, if replicas > most { Reason::Total } else { Reason::External });
        prop_assert_eq!(decision.demand, Some(replicas.saturating_mul(queue.per_pod.max(1))));
    }

    #[test]
    fn deciding_twice_at_one_moment_changes_nothing(queue in any_queue(), past in any_past()) {
        let (memory, now) = live(&queue, &past);
        let once = decide(&queue, memory, now);
        let twice = decide(&queue, once.memory.clone(), now);
        prop_assert_eq!(twice.workers_desired, once.workers_desired);
        prop_assert_eq!(&decide(&queue, twice.memory.clone(), now), &twice);
    }
}
