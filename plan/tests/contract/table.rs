//! Decisions, as tables: what is observed, and how many workers and pods come of it.

use std::time::Duration;

use rowlock_crds::ScalingPreference;
use rowlock_plan::{Arrivals, Backlog, Decision, Memory, ObservedQueue, Reason, Runs, Scaling, decide};

use crate::{auto, first, queue, runs, seconds, steadily};

fn check(queue: &ObservedQueue, workers: u32, pods: u32, reason: Reason) -> Decision {
    let decision = first(queue);
    let found = (decision.workers_desired, decision.pods_desired, decision.reason);
    assert_eq!(found, (workers, pods, reason), "{decision}\nfor {queue:?}");
    decision
}

/// This many tasks wait, each takes `service` seconds.
fn waiting(available: u64, service: f64) -> ObservedQueue {
    with(Backlog { available, runs: runs(service), ..Backlog::default() })
}

/// This many tasks arrive in each second, each takes `service` seconds.
fn coming(per_second: u64, service: f64) -> ObservedQueue {
    with(Backlog { arrivals: steadily(per_second), runs: runs(service), ..Backlog::default() })
}

fn with(stats: Backlog) -> ObservedQueue {
    ObservedQueue { stats: Some(stats), ..queue() }
}

/// The same queue with `pods` pods, of which `ready` are ready and all workers run a task.
fn on(pods: u32, ready: u32, queue: &ObservedQueue) -> ObservedQueue {
    let running = u64::from(ready * queue.per_pod);
    let stats = queue.stats.map(|stats| Backlog { running, ..stats });
    ObservedQueue { pods, ready, stats, ..queue.clone() }
}

#[test]
fn a_backlog_starts_within_two_fifths_of_the_wait_target() {
    // A new worker begins a task when it is ready, and in two seconds four more of half a second: five.
    check(&waiting(100, 0.5), 20, 2, Reason::Backlog);
    check(&waiting(101, 0.5), 21, 3, Reason::Backlog);
    check(&waiting(1, 0.001), 1, 1, Reason::Backlog);
    check(&waiting(1, 0.0), 1, 1, Reason::Backlog);
    // One worker per task is all that helps.
    check(&waiting(7, 3600.0), 7, 1, Reason::Backlog);
    check(&waiting(10_000, 1.0), 100, 10, Reason::Total);
    check(&waiting(u64::MAX, f64::MAX), 100, 10, Reason::Total);
    check(&waiting(0, 1.0), 0, 0, Reason::Idle);
}

#[test]
fn what_is_due_soon_counts_like_what_waits() {
    let stats = Backlog { due_soon: 100, runs: runs(0.5), ..Backlog::default() };
    check(&with(stats), 20, 2, Reason::Backlog);
}

#[test]
fn pods_on_their_way_count_for_what_they_will_do() {
    let asked = waiting(100, 0.5);
    check(&asked, 20, 2, Reason::Backlog);
    // Two pods start: they will be ready in a second and a half, on average, and begin four tasks each by
    // then.
    check(&on(2, 0, &asked), 20, 2, Reason::Backlog);
    // However late the tasks are: more pods would come after these have done the work.
    let late = Backlog { oldest_available_seconds: Some(1e9), ..asked.stats.unwrap() };
    check(&on(2, 0, &with(late)), 20, 2, Reason::Backlog);
    // One of them is not enough.
    check(&on(1, 0, &asked), 14, 2, Reason::Backlog);
    // Two that are busy begin four tasks a second: 120 in three seconds. Fewer will do until then.
    check(&on(2, 2, &asked), 20, 2, Reason::Backlog);
    // A backlog that they do not begin before a new pod is ready takes more.
    check(&on(2, 2, &waiting(1000, 0.5)), 100, 10, Reason::Total);
    check(&on(2, 2, &waiting(300, 0.5)), 40, 4, Reason::Backlog);
}

#[test]
fn idle_workers_begin_a_task_each_at_once() {
    let idle = |available: u64| ObservedQueue { pods: 2, ready: 2, ..waiting(available, 60.0) };
    check(&idle(20), 20, 2, Reason::Backlog);
    check(&idle(40), 38, 4, Reason::Backlog);
}

#[test]
fn slow_pods_start_the_backlog_while_another_one_would_start() {
    // Two seconds are a fifteenth of what a pod takes here. In half of it a worker begins 31 tasks.
    let slow = ObservedQueue { pod_start: seconds(30), ..waiting(620, 0.5) };
    check(&slow, 20, 2, Reason::Backlog);
    check(&waiting(620, 0.5), 100, 10, Reason::Total);
}

#[test]
fn arrivals_are_kept_up_with() {
    // 20/s of half a second keep 10 workers busy. With 11, one task in twenty waits longer than a second.
    check(&coming(20, 0.5), 11, 2, Reason::Rate);
    // However short tasks are, workers are at most 92 % busy: the rate is an estimate.
    check(&coming(1000, 0.01), 11, 2, Reason::Rate);
    check(&coming(1, 0.001), 1, 1, Reason::Rate);
    // Long tasks: nobody can wait for one to end.
    check(&coming(1, 30.0), 39, 4, Reason::Rate);
    check(&coming(1000, 3.0), 100, 10, Reason::Total);
    check(&coming(u64::MAX, f64::MAX), 100, 10, Reason::Total);
}

#[test]
fn a_rate_below_one_task_in_the_window_keeps_no_worker() {
    let rarely = |every: usize| {
        let mut memory = Memory::default();
        let mut last = None;
        for second in (0..600).step_by(2) {
            let mut arrivals = Arrivals { second, ..steadily(0) };
            for (count, back) in arrivals.counts.iter_mut().zip(0..) {
                *count = u64::from((second - back).rem_euclid(i64::try_from(every).unwrap()) == 0);
            }
            let queue = with(Backlog { arrivals, runs: runs(0.5), ..Backlog::default() });
            let decision = decide(&queue, memory, seconds(1000 + u64::try_from(second).unwrap()));
            memory = decision.memory.clone();
            last = Some((decision.workers_desired, decision.reason));
        }
        last.unwrap()
    };
    assert_eq!(rarely(20), (1, Reason::Rate));
    assert_eq!(rarely(90), (0, Reason::Idle));
}

#[test]
fn who_prefers_cost_lets_tasks_wait_for_it() {
    let pods = |prefer, queue: &ObservedQueue| {
        let Scaling::Auto { min, wait_target, scale_down_after, .. } = queue.scaling else { return 0 };
        let scaling = Scaling::Auto { min, wait_target, scale_down_after, prefer };
        first(&ObservedQueue { scaling, ..queue.clone() }).workers_desired
    };
    let each = |queue: ObservedQueue| {
        [ScalingPreference::ShortWaits, ScalingPreference::Balanced, ScalingPreference::LowCost]
            .map(|prefer| pods(prefer, &queue))
    };
    assert_eq!(each(waiting(100, 0.5)), [34, 20, 12]);
    assert_eq!(each(coming(10, 3.0)), [43, 33, 32]);
}

#[test]
fn a_service_time_nobody_knows_is_assumed_and_then_remembered() {
    let known = waiting(100, 0.5);
    let decision = first(&known);
    let unknown = with(Backlog { available: 100, ..Backlog::default() });
    assert!(check(&unknown, 60, 6, Reason::Backlog).inputs.unwrap().service_assumed);
    let next = decide(&unknown, decision.memory, seconds(1100));
    assert_eq!((next.workers_desired, next.inputs.unwrap().service_assumed), (20, false));
    // While none has ended, what runs is not expected to.
    check(&on(5, 5, &unknown), 100, 10, Reason::Total);
    let old = Backlog { mean_running_seconds: Some(60.0), ..unknown.stats.unwrap() };
    check(&with(Backlog { available: 30, ..old }), 30, 3, Reason::Backlog);
}

#[test]
fn long_tasks_that_run_do_not_hide_one_that_waits() {
    let stats = Backlog { available: 1, runs: runs(3600.0), ..Backlog::default() };
    check(&on(1, 1, &with(stats)), 11, 2, Reason::Backlog);
}

/// Before the fix, a burst of longer tasks than before got one pod at a time.
#[test]
fn running_tasks_that_take_much_longer_than_others_did_count() {
    let burst = Backlog { available: 90, runs: runs(0.05), ..Backlog::default() };
    check(&on(1, 1, &with(burst)), 10, 1, Reason::Running);
    let longer = Backlog { mean_running_seconds: Some(4.0), ..burst };
    check(&on(1, 1, &with(longer)), 77, 8, Reason::Backlog);
}

#[test]
fn rare_tasks_that_take_long_keep_their_workers() {
    let stats = Backlog { arrivals: steadily(1), runs: runs(10.0), ..Backlog::default() };
    let Scaling::Auto { min, wait_target, prefer, .. } = queue().scaling else { panic!("{:?}", queue()) };
    let scaling = Scaling::Auto { min, wait_target, scale_down_after: Duration::from_millis(500), prefer };
    check(&ObservedQueue { scaling, ..with(stats) }, 15, 2, Reason::Rate);
}

#[test]
fn a_start_that_took_minutes_is_not_waited_for() {
    let stuck = |pod_start| on(1, 1, &ObservedQueue { pod_start, ..waiting(1000, 1.0) });
    check(&stuck(seconds(600)), 14, 2, Reason::Backlog);
    assert_eq!(first(&stuck(seconds(60))).pods_desired, 2);
}

#[test]
fn while_nearly_all_runs_fail_no_pods_are_added() {
    let failing = |completed: u64, failed: u64| {
        let runs = Runs { completed, failed, ..runs(0.5) };
        with(Backlog { available: 1000, runs, ..Backlog::default() })
    };
    check(&failing(0, 10), 10, 1, Reason::Failing);
    check(&on(3, 3, &failing(0, 1000)), 30, 3, Reason::Failing);
    check(&failing(0, 9), 100, 10, Reason::Total);
    check(&failing(25, 100), 100, 10, Reason::Total);
    check(&failing(24, 100), 10, 1, Reason::Failing);
    // Fewer than there are may go.
    let few = with(Backlog { available: 5, runs: Runs { failed: 10, ..runs(0.5) }, ..Backlog::default() });
    check(&few, 1, 1, Reason::Backlog);
}

#[test]
fn what_runs_keeps_its_workers() {
    let stats = Backlog { running: 1, runs: runs(0.1), ..Backlog::default() };
    check(&ObservedQueue { stats: Some(stats), ..queue() }, 1, 1, Reason::Running);
    let stats = Backlog { running: 42, runs: runs(0.1), ..Backlog::default() };
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
        let runs = Runs { seconds: absurd, ..runs(1.0) };
        let stats = Backlog { available: 1, runs, mean_running_seconds: Some(absurd), ..Backlog::default() };
        let inputs = first(&with(stats)).inputs.unwrap();
        assert_eq!((inputs.service_seconds, inputs.service_assumed), (3.0, true), "{absurd}");
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
    check(&idle, 0, 0, Reason::Idle);
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
    let stalled = |pods| ObservedQueue { stalled: true, pods, ..waiting(10_000, 1.0) };
    check(&stalled(3), 30, 3, Reason::Stalled);
    check(&ObservedQueue { stalled: true, ..suspended(3) }, 30, 3, Reason::Suspended);
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

/// A queue with five pods, in the given second, with this many tasks in each second until then.
fn later(second: i64, per_second: u64) -> ObservedQueue {
    let arrivals = Arrivals { second, ..steadily(per_second) };
    let stats = Backlog { arrivals, runs: runs(0.5), ..Backlog::default() };
    ObservedQueue { pods: 5, ready: 5, ..with(stats) }
}

#[test]
fn workers_for_a_rate_stay_for_the_window() {
    let busy = first(&coming(80, 0.5));
    assert_eq!((busy.workers_desired, busy.reason), (44, Reason::Rate));
    let at = |decision: &Decision, queue: &ObservedQueue, now| {
        let next = decide(queue, decision.memory.clone(), seconds(now));
        (next.workers_desired, next.reason)
    };
    // Two tasks a second fewer are noise.
    assert_eq!(at(&busy, &later(1011, 77), 1060), (44, Reason::Stabilization));
    assert_eq!(at(&busy, &later(1011, 77), 1061), (43, Reason::Rate));
    assert_eq!(at(&busy, &later(1011, 100), 1011), (54, Reason::Rate));
}

#[test]
fn workers_for_a_rate_that_has_fallen_stay_for_a_third_of_it() {
    let at = |decision: Decision, queue: &ObservedQueue, now| decide(queue, decision.memory, seconds(now));
    let busy = first(&coming(80, 0.5));
    let none = at(busy, &later(1012, 0), 1012);
    assert_eq!((none.workers_desired, none.reason, none.demand), (44, Reason::Stabilization, Some(0)));
    let last = at(none, &later(1020, 0), 1020);
    assert_eq!(last.workers_desired, 44);
    let zero = at(last, &later(1021, 0), 1021);
    assert_eq!((zero.workers_desired, zero.reason), (0, Reason::Idle));
}

/// Before, a pod came and went with each small backlog beside a steady rate.
#[test]
fn a_small_backlog_beside_a_rate_brings_a_pod_that_stays() {
    let decide_at = |memory, queue: &ObservedQueue, now| decide(queue, memory, seconds(now));
    let with_backlog = |available| {
        let mut queue = on(5, 5, &coming(80, 0.5));
        queue.stats.as_mut().unwrap().available = available;
        queue
    };
    let more = decide_at(Memory::default(), &with_backlog(130), 1000);
    assert_eq!((more.workers_desired, more.reason), (56, Reason::Backlog));
    let kept = decide_at(more.memory, &with_backlog(0), 1060);
    assert_eq!((kept.workers_desired, kept.reason), (56, Reason::Stabilization));
}

/// Before, workers for a burst were kept for as long as those for a rate.
#[test]
fn workers_for_a_backlog_stay_for_twice_a_start() {
    let at = |decision: Decision, queue: &ObservedQueue, now| decide(queue, decision.memory, seconds(now));
    let busy = first(&waiting(200, 0.5));
    assert_eq!(busy.workers_desired, 40);
    let idle = ObservedQueue { pods: 4, ready: 4, ..waiting(0, 0.5) };
    let none = at(busy.clone(), &idle, 1006);
    assert_eq!((none.workers_desired, none.reason), (40, Reason::Stabilization));
    assert_eq!(at(none, &idle, 1007).workers_desired, 0);
    let slow = |queue: &ObservedQueue| ObservedQueue { pod_start: seconds(20), ..queue.clone() };
    assert_eq!(at(busy.clone(), &slow(&idle), 1040).workers_desired, 40);
    assert_eq!(at(busy.clone(), &slow(&idle), 1041).workers_desired, 0);
    // Never for longer than `scaleDownAfter`.
    let slower = ObservedQueue { pod_start: seconds(300), ..idle };
    assert_eq!(at(busy, &slower, 1061).workers_desired, 0);
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
        "20 slots on 2 pods: Backlog (demand 20: 100 waiting, 0 running, 0.0/s arriving, 0.500 s each, \
         a pod starts in 3.0 s; 0.0 slots for the rate and 20.0 for the backlog)"
    );
    let unknown = ObservedQueue { stats: None, pods: 3, ..queue() };
    assert_eq!(first(&unknown).to_string(), "30 slots on 3 pods: Unknown");
}
