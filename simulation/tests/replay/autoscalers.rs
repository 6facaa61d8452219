//! What is known of the autoscalers, from measurements and from their sources.

use rowlock_crds::{AutoscalingSpec, Dur, ScalingMode, TaskQueueSpec};
use rowlock_simulation::{LawKind, Load, PodStart, QueueLoad, Sample, replay, replay_specs, replay_traced};

use crate::loads::{burst, faulty, load, queue, steady};

/// A burst at this moment that keeps a hundred pods busy.
const BURST_AT: f64 = 35.0;

fn large_burst() -> Load {
    load(200.0, 100, 1, burst(BURST_AT, 1000, 3600.0))
}

/// The numbers of pods that were asked for, each with the second in which they were.
fn steps(samples: Vec<Sample>) -> Vec<(f64, u32)> {
    let mut steps: Vec<(f64, u32)> = Vec::new();
    for sample in samples.into_iter().filter(|sample| sample.pods_asked > 0) {
        if steps.last().is_none_or(|last| last.1 != sample.pods_asked) {
            steps.push((sample.at, sample.pods_asked));
        }
    }
    steps
}

/// From a commit on a queue at zero until a hundred pods are asked for, on average over seeds.
fn mean_time_to_hundred(law: LawKind) -> f64 {
    let load = large_burst();
    let times = (0..200).map(|seed| {
        let (_, samples) = replay_traced(&load, law, seed);
        let full = samples.iter().find(|sample| sample.pods_asked == 100);
        full.map_or(f64::INFINITY, |sample| sample.at - BURST_AT)
    });
    times.sum::<f64>() / 200.0
}

/// Measured with KEDA 2.21: 88.7 to 111.6 s, 101.5 s on average.
#[test]
fn keda_doubles_its_pods_each_fifteen_seconds() {
    let load = large_burst();
    for seed in 0..300 {
        let (_, samples) = replay_traced(&load, LawKind::KedaDefault, seed);
        let mut steps = steps(samples);
        // The second step may come within the second of the first.
        steps.retain(|step| step.1 > 1);
        let pods: Vec<u32> = steps.iter().map(|step| step.1).collect();
        assert_eq!(pods, [4, 8, 16, 32, 64, 100], "seed {seed}");
        for pair in steps.windows(2) {
            assert!((14.0..=16.0).contains(&(pair[1].0 - pair[0].0)), "seed {seed}: {steps:?}");
        }
        let took = steps.last().map_or(0.0, |last| last.0 - BURST_AT);
        assert!((74.0..=121.0).contains(&took), "seed {seed}: {took}");
    }
    let mean = mean_time_to_hundred(LawKind::KedaDefault);
    assert!((94.0..=101.0).contains(&mean), "{mean}");
}

/// With a `behavior` that names no policies it is four pods more or the double.
#[test]
fn keda_with_a_behavior_steps_otherwise() {
    let (_, samples) = replay_traced(&large_burst(), LawKind::KedaTuned, 5);
    let pods: Vec<u32> = steps(samples).iter().map(|step| step.1).collect();
    assert_eq!(pods, [1, 5, 10, 20, 40, 80, 100]);
}

/// KEDA keeps its pods for five minutes, tuned for one.
#[test]
fn keda_cools_down() {
    let load = load(900.0, 10, 1, burst(30.0, 1, 1.0));
    for (law, least, most) in [(LawKind::KedaDefault, 300, 335), (LawKind::KedaTuned, 60, 70)] {
        let (_, samples) = replay_traced(&load, law, 1);
        let kept = samples.iter().filter(|sample| sample.pods_asked > 0).count();
        assert!((least..=most).contains(&kept), "{}: {kept}", law.name());
    }
}

#[test]
fn knative_asks_for_a_hundred_pods_in_two_seconds() {
    let mean = mean_time_to_hundred(LawKind::Knative);
    assert!((1.5..=3.0).contains(&mean), "{mean}");
}

/// Seven tenths of the slots are used while the load is steady.
#[test]
fn knative_uses_seven_tenths() {
    let score = replay(&load(3600.0, 200, 1, steady(3600.0, 50.0, 1.0, 1)), LawKind::Knative, 1);
    assert!((0.6..=0.72).contains(&score.busy_share), "{score:?}");
}

#[test]
fn rowlock_asks_within_a_second_of_the_commit() {
    for seed in 0..20 {
        let (_, samples) = replay_traced(&large_burst(), LawKind::Rowlock, seed);
        let asked = steps(samples);
        assert!(asked.first().is_some_and(|first| first.0 <= BURST_AT + 1.0), "seed {seed}: {asked:?}");
    }
}

/// Loads that the oracle can know all about.
fn known() -> Vec<Load> {
    let mut bursts = Vec::new();
    (0..6).for_each(|number| bursts.extend(burst(60.0 + 500.0 * f64::from(number), 300, 0.5)));
    let slow = PodStart { least: 20.0, most: 30.0 };
    vec![
        load(3600.0, 100, 4, steady(3600.0, 10.0, 1.0, 1)),
        load(3600.0, 100, 1, steady(3600.0, 0.3, 60.0, 2)),
        load(3600.0, 100, 2, bursts.clone()),
        Load { pod_start: slow, ..load(3600.0, 100, 2, bursts) },
    ]
}

#[test]
fn the_oracle_is_within_the_target_and_costs_least() {
    for load in known() {
        let oracle = replay(&load, LawKind::Oracle, 1);
        assert!(oracle.p95_wait <= 5.0, "{oracle:?}");
        for law in LawKind::ALL {
            let score = replay(&load, law, 1);
            assert!(oracle.worker_hours <= score.worker_hours, "{}: {score:?} {oracle:?}", law.name());
        }
    }
}

/// Nine tenths of what it pays for are used on a steady load.
#[test]
fn the_oracle_hardly_wastes_anything() {
    let oracle = replay(&load(3600.0, 100, 1, steady(3600.0, 20.0, 1.0, 1)), LawKind::Oracle, 1);
    assert!(oracle.busy_share >= 0.9, "{oracle:?}");
}

/// Where all workers cannot keep the target, it is nearly as fast as they are.
#[test]
fn the_oracle_does_what_it_can() {
    let load = load(3600.0, 10, 1, burst(30.0, 1000, 1.0));
    let (oracle, fixed) = (replay(&load, LawKind::Oracle, 1), replay(&load, LawKind::Fixed, 1));
    assert!(oracle.p95_wait <= fixed.p95_wait * 1.06, "{oracle:?} {fixed:?}");
    assert!(oracle.worker_hours < 0.4, "{oracle:?}");
}

/// Faults are part of what it knows: it pays for hardly more than what it uses.
#[test]
fn the_oracle_knows_of_faults() {
    let mut load = load(1800.0, 1, 1, Vec::new());
    load.queues = vec![faulty("faulty", 1)];
    let (oracle, fixed) = (replay(&load, LawKind::Oracle, 1), replay(&load, LawKind::Fixed, 1));
    assert!(oracle.p95_wait <= (fixed.p95_wait * 1.06).max(5.0), "{oracle:?} {fixed:?}");
    assert!(oracle.busy_share >= 0.6, "{oracle:?}");
}

#[test]
fn the_oracle_takes_each_queue_on_its_own() {
    let one = |name: &str| queue(name, 20, 1, steady(600.0, 2.0, 1.0, 3));
    let alone = Load { queues: vec![one("first")], ..load(600.0, 1, 1, Vec::new()) };
    let both = Load { budget: Some(1), queues: vec![one("first"), one("second")], ..alone.clone() };
    let (alone, both) = (replay_traced(&alone, LawKind::Oracle, 1), replay_traced(&both, LawKind::Oracle, 1));
    assert!((both.0.worker_hours - 2.0 * alone.0.worker_hours).abs() < 1e-9);
    assert_eq!(both.1[300].pods_asked, 2 * alone.1[300].pods_asked);
}

/// `min` is kept, and nobody waits for it.
#[test]
fn min_is_kept_by_all() {
    let queue = QueueLoad { min: 4, ..queue("tasks", 20, 2, burst(600.0, 1, 1.0)) };
    let load = Load { queues: vec![queue], ..load(1200.0, 1, 1, Vec::new()) };
    for law in LawKind::ALL {
        let (score, samples) = replay_traced(&load, law, 1);
        let least = samples.iter().skip(10).map(|sample| sample.pods_asked).min();
        assert!(least >= Some(2), "{}: {least:?}", law.name());
        assert!(score.max_wait.abs() < 1e-6, "{}: {score:?}", law.name());
    }
}

#[test]
fn our_operator_follows_the_whole_spec() {
    let load = load(1200.0, 40, 4, steady(300.0, 8.0, 1.0, 3));
    let hours = |change: fn(&mut TaskQueueSpec)| {
        let mut spec = TaskQueueSpec::with_workers(40);
        spec.workers.per_pod = 4;
        spec.workers.autoscaling = Some(AutoscalingSpec::default());
        change(&mut spec);
        replay_specs(&load, &[spec], LawKind::Rowlock, 1).0.worker_hours
    };
    let usual = hours(|_| ());
    assert!((usual - replay(&load, LawKind::Rowlock, 1).worker_hours).abs() < 1e-9);
    let kept = hours(|spec| {
        let auto = AutoscalingSpec { scale_down_after: Dur::from_secs(600), ..AutoscalingSpec::default() };
        spec.workers.autoscaling = Some(auto);
    });
    assert!(kept > 1.5 * usual, "{kept} {usual}");
    let fixed = hours(|spec| spec.workers.scaling = Some(ScalingMode::Fixed));
    assert!((fixed / (40.0 / 3.0) - 1.0).abs() < 0.01, "{fixed}");
    let external = hours(|spec| {
        spec.workers.scaling = Some(ScalingMode::External);
        spec.workers.replicas = Some(3);
    });
    assert!((external / (12.0 / 3.0) - 1.0).abs() < 0.01, "{external}");
}
