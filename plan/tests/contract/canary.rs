//! When a new template goes to all pods, and when the old one comes back.

use std::time::Duration;

use proptest::prelude::*;
use rowlock_crds::{CanarySpec, Dur};
use rowlock_plan::{CanaryFault, CanaryStep, Compared, ObservedCanary, Runs, canary_step};

use crate::seconds;

/// 100 runs, at least two minutes and at most half an hour, 5 more failures of a hundred, half as long again.
fn terms() -> CanarySpec {
    CanarySpec { min_runs: 100, ..CanarySpec::default() }
}

/// Completed runs of a second each, and failed ones.
fn of(completed: u64, failed: u64) -> Runs {
    lasting(completed, 1.0, failed)
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn lasting(completed: u64, mean: f64, failed: u64) -> Runs {
    let seconds = completed as f64 * mean;
    // As much variation as exponentially distributed times.
    Runs { completed, seconds, seconds_squared: 2.0 * seconds * mean, failed }
}

/// One of one pod is ready, and has been for a minute; nothing has run.
fn canary() -> ObservedCanary {
    ObservedCanary {
        pods: 1,
        ready: 1,
        start_longest: seconds(600),
        watched: seconds(60),
        wants_pods: true,
        ..ObservedCanary::default()
    }
}

fn ran(new: Runs, old: Runs) -> ObservedCanary {
    ObservedCanary { total: Compared { new, old }, ..canary() }
}

fn step(seen: &ObservedCanary) -> &'static str {
    match canary_step(&terms(), seen) {
        CanaryStep::Wait => "wait",
        CanaryStep::GoOn => "on",
        CanaryStep::GoBack(CanaryFault::NotReady { .. }) => "not ready",
        CanaryStep::GoBack(CanaryFault::Ends { .. }) => "ends",
        CanaryStep::GoBack(CanaryFault::Failures(_)) => "failures",
        CanaryStep::GoBack(CanaryFault::Slower(_)) => "slower",
    }
}

#[test]
fn the_next_step() {
    let after =
        |minutes: u64, seen: ObservedCanary| ObservedCanary { watched: seconds(60 * minutes), ..seen };
    let starting = || ObservedCanary { ready: 0, watched: seconds(0), ..canary() };
    let old = || of(2000, 20);
    let table = [
        ("it starts", starting(), "wait"),
        ("it takes ten minutes", ObservedCanary { unready_for: seconds(600), ..starting() }, "not ready"),
        ("less than that", ObservedCanary { unready_for: seconds(599), ..starting() }, "wait"),
        ("it crashes for a minute", ObservedCanary { broken_for: seconds(60), ..starting() }, "not ready"),
        ("for less", ObservedCanary { broken_for: seconds(59), ..starting() }, "wait"),
        ("its handler ends", ObservedCanary { restarts: 3, ..canary() }, "ends"),
        ("seldom", ObservedCanary { restarts: 2, ..canary() }, "wait"),
        ("nothing has run", canary(), "wait"),
        ("too early", ran(of(100, 0), old()), "wait"),
        ("too few runs", after(29, ran(of(99, 0), old())), "wait"),
        ("enough of both", after(2, ran(of(100, 0), old())), "on"),
        ("failed runs count", after(2, ran(of(99, 1), old())), "on"),
        // Without traffic.
        ("the time is over", after(30, canary()), "on"),
        (
            "the queue wants no pods",
            ObservedCanary { wants_pods: false, ready: 0, pods: 0, ..canary() },
            "on",
        ),
        ("one of two is ready", after(2, ObservedCanary { pods: 2, ..ran(of(100, 0), old()) }), "wait"),
        ("at the end", after(30, ObservedCanary { pods: 2, ..ran(of(100, 0), old()) }), "not ready"),
        ("none is ready at the end", after(30, ObservedCanary { ready: 0, ..canary() }), "not ready"),
        ("all fail", ran(of(0, 5), old()), "failures"),
        ("a few bad tasks", ran(of(0, 4), old()), "wait"),
        ("all fail, as before", after(2, ran(of(0, 100), of(0, 1000))), "on"),
        ("all fail, and the old ones run nothing", ran(of(0, 5), of(0, 0)), "failures"),
        ("a third fails", ran(of(20, 10), old()), "failures"),
        ("chance", ran(of(45, 5), of(450, 20)), "wait"),
        ("chance, at the end", after(30, ran(of(85, 15), of(450, 20))), "failures"),
        ("4 points more", after(2, ran(of(9500, 500), of(99_000, 1000))), "on"),
        ("6 points more", after(2, ran(of(9300, 700), of(99_000, 1000))), "failures"),
        ("one failure at the end", after(30, ran(of(2, 1), old())), "on"),
        ("two", after(30, ran(of(2, 2), old())), "failures"),
        ("twice as slow", ran(lasting(200, 2.0, 0), old()), "slower"),
        ("too few runs to say", ran(lasting(19, 20.0, 0), old()), "wait"),
        ("a fifth slower", after(2, ran(lasting(100, 1.2, 0), old())), "on"),
        ("much slower, and few runs", after(30, ran(lasting(10, 5.0, 0), old())), "slower"),
        ("old pods ran little", after(30, ran(lasting(100, 4.0, 0), of(9, 0))), "on"),
        ("it fails now", ObservedCanary { newest: ran(of(0, 20), old()).total, ..canary() }, "failures"),
    ];
    for (case, seen, expected) in table {
        assert_eq!(step(&seen), expected, "{case}: {seen:?}");
    }
}

#[test]
fn terms_decide() {
    let seen = ObservedCanary { watched: seconds(120), ..ran(lasting(100, 2.0, 0), of(2000, 0)) };
    let slow = CanarySpec { extra_duration_percent: 150, ..terms() };
    assert_eq!(canary_step(&slow, &seen), CanaryStep::GoOn);
    let seen = ObservedCanary { watched: seconds(120), ..ran(of(0, 200), of(2000, 0)) };
    let tolerant = CanarySpec { extra_failure_percent: 100, ..terms() };
    assert_eq!(canary_step(&tolerant, &seen), CanaryStep::GoOn);
    let hasty = CanarySpec { min_runs: 1, min_time: Dur::from_secs(0), ..terms() };
    assert_eq!(canary_step(&hasty, &ran(of(1, 0), of(0, 0))), CanaryStep::GoOn);
}

#[test]
fn a_fault_says_what_was_compared() {
    let words = |seen: &ObservedCanary| match canary_step(&terms(), seen) {
        CanaryStep::GoBack(fault) => fault.to_string(),
        step => panic!("{step:?}"),
    };
    assert_eq!(
        words(&ran(of(18, 7), of(239, 1))),
        "7 of 25 runs (28.0 %) of the new pods failed, and 1 of 240 runs (0.4 %) of the old ones"
    );
    assert_eq!(
        words(&ran(lasting(100, 2.0, 0), lasting(900, 0.25, 0))),
        "a run of the new pods took 2.0 s on average (100 runs), and one of the old pods 250 ms (900 runs)"
    );
    assert_eq!(
        words(&ObservedCanary { ready: 0, broken_for: seconds(60), ..canary() }),
        "0 of 1 new pods became ready"
    );
    assert_eq!(
        words(&ObservedCanary { restarts: 3, ..canary() }),
        "the handler of a new pod ended 3 times while it ran tasks"
    );
}

fn any_runs() -> impl Strategy<Value = Runs> {
    let count = || prop_oneof![Just(0), 0_u64..50, 0_u64..5000];
    (count(), 0.0..100.0, count()).prop_map(|(completed, mean, failed)| lasting(completed, mean, failed))
}

/// Also what cannot be: a database may answer anything.
fn wild_runs() -> impl Strategy<Value = Runs> {
    (any::<u64>(), any::<f64>(), any::<f64>(), any::<u64>()).prop_map(
        |(completed, seconds, seconds_squared, failed)| Runs { completed, seconds, seconds_squared, failed },
    )
}

fn any_canary() -> impl Strategy<Value = ObservedCanary> {
    let runs = || prop_oneof![9 => any_runs(), 1 => wild_runs()];
    let time = || (0_u64..4000).prop_map(Duration::from_secs);
    let pods = (0_u32..9, 0_u32..9, 0_u32..5, prop::bool::weighted(0.9));
    (pods, (runs(), runs(), runs(), runs()), (time(), time(), time())).prop_map(
        |((pods, ready, restarts, wants_pods), (a, b, c, d), (unready_for, broken_for, watched))| {
            ObservedCanary {
                pods,
                ready: ready.min(pods),
                unready_for,
                start_longest: seconds(600),
                broken_for,
                restarts,
                watched,
                wants_pods,
                total: Compared { new: a, old: b },
                newest: Compared { new: c, old: d },
            }
        },
    )
}

/// A canary whose pods are all ready and have not crashed.
fn healthy_canary() -> impl Strategy<Value = ObservedCanary> {
    let ready = |seen: ObservedCanary| ObservedCanary {
        pods: 2,
        ready: 2,
        restarts: 0,
        broken_for: Duration::ZERO,
        ..seen
    };
    any_canary().prop_map(ready)
}

proptest! {
    #[test]
    fn it_ends_in_time(seen in any_canary()) {
        let over = ObservedCanary { watched: terms().max_time.as_duration(), ..seen };
        prop_assert_ne!(canary_step(&terms(), &over), CanaryStep::Wait);
    }

    #[test]
    fn pods_that_run_like_the_old_ones_never_go_back(seen in healthy_canary(), runs in any_runs()) {
        let same = Compared { new: runs, old: runs };
        let seen = ObservedCanary { total: same, newest: same, ..seen };
        let went_back = matches!(canary_step(&terms(), &seen), CanaryStep::GoBack(_));
        prop_assert!(!went_back, "{:?}", canary_step(&terms(), &seen));
    }

    #[test]
    fn more_failures_never_help(
        seen in healthy_canary(), new in any_runs(), old in any_runs(), n in 1_u64..50
    ) {
        prop_assume!(n <= new.completed);
        let with = |new| {
            let total = Compared { new, old };
            canary_step(&terms(), &ObservedCanary { total, newest: Compared::default(), ..seen })
        };
        let fewer = with(lasting(new.completed, 1.0, new.failed));
        let more = with(lasting(new.completed - n, 1.0, new.failed + n));
        if matches!(fewer, CanaryStep::GoBack(CanaryFault::Failures(_))) {
            let went_back = matches!(more, CanaryStep::GoBack(CanaryFault::Failures(_)));
            prop_assert!(went_back, "{fewer:?} {more:?}");
        }
    }

    #[test]
    fn it_goes_on_only_with_enough_runs_or_when_the_time_is_over(seen in any_canary()) {
        if canary_step(&terms(), &seen) == CanaryStep::GoOn {
            let runs = seen.total.new.completed.saturating_add(seen.total.new.failed);
            let over = !seen.wants_pods || terms().max_time.as_duration() <= seen.watched;
            prop_assert!(over || terms().min_runs <= runs && terms().min_time.as_duration() <= seen.watched);
            prop_assert!(!seen.wants_pods || 0 < seen.ready);
        }
    }

    #[test]
    fn its_words_are_never_empty(seen in any_canary()) {
        if let CanaryStep::GoBack(fault) = canary_step(&terms(), &seen) {
            prop_assert!(!fault.to_string().is_empty());
        }
        prop_assert!(seen.total.to_string().contains("of the old pods"));
    }
}
