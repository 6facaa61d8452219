use rowlock_crds::{AutoscalingSpec, Dur, Manifest, ScalingMode, TaskQueueSpec, env};
use rowlock_plan::{Backlog, Decision, Memory, ObservedQueue, Ports, Reason, Scaling, decide, fleet};

use crate::{auto, first, queue, seconds};

fn check(queue: &ObservedQueue, workers: u32, pods: u32, reason: Reason) -> Decision {
    let decision = first(queue);
    let found = (decision.workers_desired, decision.pods_desired, decision.reason);
    assert_eq!(found, (workers, pods, reason), "{decision}\nfor {queue:?}");
    decision
}

/// So many tasks wait, each takes so long.
fn waiting(available: u64, service: f64) -> ObservedQueue {
    let stats = Backlog { available, mean_service_seconds: Some(service), ..Backlog::default() };
    ObservedQueue { stats: Some(stats), ..queue() }
}

#[test]
fn a_backlog_starts_within_the_wait_target() {
    // 100 tasks of half a second in 5 s are 50 s of work in 5 s.
    check(&waiting(100, 0.5), 10, 1, Reason::Backlog);
    check(&waiting(101, 0.5), 11, 2, Reason::Backlog);
    check(&waiting(1, 0.001), 1, 1, Reason::Backlog);
    check(&waiting(1, 0.0), 1, 1, Reason::Backlog);
    // One worker per task is all that helps.
    check(&waiting(7, 3600.0), 7, 1, Reason::Backlog);
    check(&waiting(10_000, 1.0), 100, 10, Reason::Total);
    check(&waiting(u64::MAX, f64::MAX), 100, 10, Reason::Total);
    check(&waiting(0, 1.0), 0, 0, Reason::MinWorkers);
}

#[test]
fn what_is_due_soon_counts_like_what_waits() {
    let stats = Backlog { due_soon: 100, mean_service_seconds: Some(0.5), ..Backlog::default() };
    check(&ObservedQueue { stats: Some(stats), ..queue() }, 10, 1, Reason::Backlog);
}

#[test]
fn arrivals_are_kept_up_with() {
    let rate = |arrivals_per_second, service| {
        let stats =
            Backlog { arrivals_per_second, mean_service_seconds: Some(service), ..Backlog::default() };
        ObservedQueue { stats: Some(stats), ..queue() }
    };
    // 16/s of half a second are 8 workers, at 80 % utilisation 10; and 48 come while a pod starts: 4.8.
    check(&rate(16.0, 0.5), 15, 2, Reason::Rate);
    check(&rate(0.001, 0.001), 1, 1, Reason::Rate);
    check(&rate(f64::NAN, 0.5), 0, 0, Reason::MinWorkers);
    check(&rate(-1.0, f64::INFINITY), 0, 0, Reason::MinWorkers);
}

#[test]
fn late_tasks_ask_for_more() {
    let late = |oldest: f64| {
        let mut queue = waiting(100, 0.5);
        queue.stats.as_mut().unwrap().oldest_available_seconds = Some(oldest);
        queue
    };
    check(&late(0.0), 10, 1, Reason::Backlog);
    check(&late(2.5), 20, 2, Reason::Backlog);
    check(&late(4.0), 50, 5, Reason::Backlog);
    // However late: at least a fifth of the target counts as left.
    check(&late(1e9), 50, 5, Reason::Backlog);
}

#[test]
fn a_service_time_nobody_knows_is_assumed_and_then_remembered() {
    let mut queue = waiting(100, 0.5);
    let decision = first(&queue);
    queue.stats.as_mut().unwrap().mean_service_seconds = None;
    assert!(check(&queue, 20, 2, Reason::Backlog).inputs.unwrap().service_assumed);
    let next = decide(&queue, decision.memory, seconds(1100));
    assert_eq!((next.workers_desired, next.inputs.unwrap().service_assumed), (10, false));
}

#[test]
fn long_tasks_that_run_do_not_hide_one_that_waits() {
    let stats = Backlog {
        available: 1,
        running: 10,
        mean_service_seconds: Some(3600.0),
        oldest_available_seconds: Some(0.0),
        ..Backlog::default()
    };
    check(&ObservedQueue { stats: Some(stats), pods: 1, ..queue() }, 11, 2, Reason::Rate);
}

#[test]
fn what_runs_keeps_its_workers() {
    let stats = Backlog { running: 1, mean_service_seconds: Some(0.1), ..Backlog::default() };
    check(&ObservedQueue { stats: Some(stats), ..queue() }, 1, 1, Reason::Running);
    let stats = Backlog { running: 42, mean_service_seconds: Some(0.1), ..Backlog::default() };
    check(&ObservedQueue { stats: Some(stats), ..queue() }, 42, 5, Reason::Running);
    let paused = ObservedQueue { stats: Some(Backlog { available: 9, ..stats }), paused: true, ..queue() };
    check(&paused, 42, 5, Reason::Running);
}

#[test]
fn the_limits_hold() {
    check(&ObservedQueue { scaling: auto(12), ..queue() }, 12, 2, Reason::MinWorkers);
    check(&ObservedQueue { scaling: auto(500), ..queue() }, 100, 10, Reason::Total);
    check(&ObservedQueue { total: 0, ..waiting(10, 1.0) }, 0, 0, Reason::Total);
    check(&ObservedQueue { total: 15, ..waiting(10_000, 1.0) }, 15, 2, Reason::Total);
    // Refused when a manifest is read, and still no reason to divide by it.
    check(&ObservedQueue { per_pod: 0, total: 3, ..waiting(10_000, 1.0) }, 3, 3, Reason::Total);
}

#[test]
fn what_cannot_be_counts_for_nothing() {
    for absurd in [f64::MAX, f64::INFINITY, f64::NAN, -1.0] {
        let stats =
            Backlog { arrivals_per_second: absurd, mean_service_seconds: Some(0.0), ..Backlog::default() };
        let inputs = first(&ObservedQueue { stats: Some(stats), ..queue() }).inputs.unwrap();
        assert_eq!((inputs.arrivals_per_second, inputs.for_backlog), (0.0, 0.0), "{absurd}");
    }
}

#[test]
fn while_no_handler_runs_one_pod_is_tried() {
    let not_starting = |queue| ObservedQueue { not_starting: true, pods: 5, ..queue };
    check(&not_starting(waiting(10_000, 1.0)), 10, 1, Reason::NotStarting);
    check(
        &not_starting(ObservedQueue { scaling: Scaling::Fixed, total: 3, per_pod: 1, ..queue() }),
        1,
        1,
        Reason::NotStarting,
    );
    check(
        &not_starting(ObservedQueue { suspend_scaling: true, ..waiting(1, 1.0) }),
        50,
        5,
        Reason::Suspended,
    );
    let idle = ObservedQueue { not_starting: true, ..queue() };
    check(&idle, 0, 0, Reason::MinWorkers);
}

#[test]
fn without_autoscaling_it_is_always_total() {
    let fixed = ObservedQueue { scaling: Scaling::Fixed, stats: None, ..queue() };
    check(&fixed, 100, 10, Reason::Fixed);
    check(&ObservedQueue { paused: true, ..fixed.clone() }, 100, 10, Reason::Fixed);
    check(&ObservedQueue { suspend_scaling: true, pods: 3, ..fixed }, 30, 3, Reason::Suspended);
}

#[test]
fn somebody_elses_number_counts_up_to_total() {
    let external =
        |replicas| ObservedQueue { scaling: Scaling::External { replicas }, pods: 3, ..waiting(10_000, 1.0) };
    check(&external(Some(4)), 40, 4, Reason::External);
    check(&external(Some(0)), 0, 0, Reason::External);
    check(&external(Some(11)), 100, 10, Reason::Total);
    check(&ObservedQueue { total: 95, ..external(Some(10)) }, 95, 10, Reason::External);
    check(&ObservedQueue { total: 0, ..external(Some(1)) }, 0, 0, Reason::Total);
    check(&ObservedQueue { paused: true, ..external(Some(4)) }, 40, 4, Reason::External);
    check(&ObservedQueue { stats: None, ..external(Some(4)) }, 40, 4, Reason::External);
    check(&ObservedQueue { not_starting: true, ..external(Some(4)) }, 10, 1, Reason::NotStarting);
    check(&ObservedQueue { suspend_scaling: true, ..external(Some(4)) }, 30, 3, Reason::Suspended);
    // Nobody has said a number yet: as it is, and one at least.
    check(&external(None), 30, 3, Reason::External);
    check(&ObservedQueue { pods: 0, ..external(None) }, 10, 1, Reason::External);
    // The operator's turn again: no pods are dropped at once.
    let before = first(&external(Some(8)));
    let auto = ObservedQueue { pods: 8, ..queue() };
    assert_eq!(decide(&auto, before.memory, seconds(1001)).pods_desired, 8);
}

#[test]
fn suspended_scaling_keeps_what_is_there() {
    let suspended = |pods| ObservedQueue { suspend_scaling: true, pods, ..waiting(10_000, 1.0) };
    check(&suspended(0), 0, 0, Reason::Suspended);
    check(&suspended(3), 30, 3, Reason::Suspended);
    check(&suspended(12), 100, 12, Reason::Suspended);
}

#[test]
fn the_unknown_holds() {
    let unknown = |pods| ObservedQueue { stats: None, pods, ..queue() };
    check(&unknown(0), 0, 0, Reason::Unknown);
    check(&unknown(3), 30, 3, Reason::Unknown);
    // What the manifest says is known.
    check(&unknown(12), 100, 10, Reason::Total);
    check(&ObservedQueue { scaling: auto(25), ..unknown(1) }, 25, 3, Reason::MinWorkers);
}

#[test]
fn down_only_to_the_highest_demand_of_the_window() {
    let at = |decision: Decision, queue: &ObservedQueue, now| decide(queue, decision.memory, seconds(now));
    let busy = first(&waiting(500, 0.5));
    assert_eq!(busy.workers_desired, 50);
    let pods = busy.pods_desired;
    let less = at(busy, &ObservedQueue { pods, ..waiting(300, 0.5) }, 1030);
    assert_eq!((less.workers_desired, less.reason), (50, Reason::Stabilization));
    let none = at(less, &ObservedQueue { pods, ..waiting(0, 0.5) }, 1060);
    assert_eq!((none.workers_desired, none.demand), (50, Some(0)));
    let next = at(none, &ObservedQueue { pods, ..waiting(0, 0.5) }, 1061);
    assert_eq!((next.workers_desired, next.reason), (30, Reason::Stabilization));
    let up = at(next.clone(), &ObservedQueue { pods, ..waiting(900, 0.5) }, 1062);
    assert_eq!((up.workers_desired, up.reason), (90, Reason::Backlog));
    let zero = at(next, &ObservedQueue { pods, ..waiting(0, 0.5) }, 1091);
    assert_eq!((zero.workers_desired, zero.reason), (0, Reason::MinWorkers));
}

#[test]
fn a_restart_of_the_operator_drops_no_pods() {
    let idle = ObservedQueue { pods: 4, ..waiting(0, 0.5) };
    let decision = check(&idle, 40, 4, Reason::Stabilization);
    assert_eq!(decide(&idle, decision.memory, seconds(1061)).workers_desired, 0);
}

#[test]
fn what_was_held_blindly_is_held_a_window_longer() {
    let unknown = first(&ObservedQueue { stats: None, pods: 4, ..queue() });
    let idle = ObservedQueue { pods: 4, ..waiting(0, 0.5) };
    let next = decide(&idle, unknown.memory, seconds(1060));
    assert_eq!((next.pods_desired, next.reason), (4, Reason::Stabilization));
    assert_eq!(decide(&idle, next.memory, seconds(1061)).pods_desired, 0);
}

#[test]
fn a_lowered_total_holds_at_once() {
    let busy = first(&waiting(10_000, 1.0));
    let lowered = ObservedQueue { total: 20, pods: 10, ..waiting(0, 1.0) };
    assert_eq!(decide(&lowered, busy.memory, seconds(1001)).pods_desired, 2);
}

#[test]
fn a_decision_explains_itself_in_one_line() {
    assert_eq!(
        first(&waiting(100, 0.5)).to_string(),
        "10 workers on 1 pods: Backlog (demand 10: 100 waiting, 0 running, 0.0/s arriving, 0.500 s each, \
         5.0 s left to start; 0.0 workers for the rate and 10.0 for the backlog)"
    );
    let unknown = ObservedQueue { stats: None, pods: 3, ..queue() };
    assert_eq!(first(&unknown).to_string(), "30 workers on 3 pods: Unknown");
}

#[test]
fn a_spec_becomes_what_is_decided_about() {
    let mut spec = TaskQueueSpec::with_workers(40);
    assert_eq!(ObservedQueue::of(&spec).scaling, Scaling::Fixed);
    let scaled_by = |scaling, replicas| {
        let mut spec = spec.clone();
        (spec.workers.scaling, spec.workers.replicas) = (Some(scaling), replicas);
        ObservedQueue::of(&spec).scaling
    };
    assert_eq!(scaled_by(ScalingMode::Auto, None), auto(0));
    assert_eq!(scaled_by(ScalingMode::Fixed, None), Scaling::Fixed);
    assert_eq!(scaled_by(ScalingMode::External, Some(7)), Scaling::External { replicas: Some(7) });
    spec.workers.autoscaling = Some(AutoscalingSpec { min: 2, ..AutoscalingSpec::default() });
    spec.paused = true;
    let observed = ObservedQueue::of(&spec);
    assert_eq!((observed.total, observed.per_pod, observed.paused), (40, 10, true));
    assert_eq!(observed.scaling, auto(2));
    assert_eq!(first(&observed).reason, Reason::MinWorkers);
}

#[test]
fn a_fleet_is_instances_with_their_environment() {
    let mut spec = TaskQueueSpec::with_workers(40);
    spec.queue_name = Some("mails".to_owned());
    spec.timeout = Dur::from_secs(90);
    let manifest = Manifest::new("emails", spec);
    let ports = |index| Ports { handler_port: 9000 + index, worker_port: 9464 + index };
    let three = fleet(&manifest, 3, ports);
    assert_eq!((three.queue.as_str(), three.instances.len()), ("mails", 3));
    let env: Vec<(&str, &str)> =
        three.instances[2].worker_env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let expected = [
        (env::DRAIN_GRACE, "1m30s"),
        (env::HANDLER_URL, "http://127.0.0.1:9002/tasks"),
        (env::INSTANCE_NAME, "emails-2"),
        (env::LISTEN, "127.0.0.1:9466"),
        (env::QUEUE, "mails"),
        (env::SLOTS, "10"),
    ];
    assert_eq!(env, expected);
    assert_eq!(three.instances[2].grace, seconds(95));
    // A smaller fleet is the front of a larger one, so that scaling touches nobody else.
    assert_eq!(fleet(&manifest, 2, ports).instances, three.instances[..2]);
    assert_eq!(decide(&ObservedQueue::of(&manifest.spec), Memory::default(), seconds(0)).pods_desired, 4);
}
