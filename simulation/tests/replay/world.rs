//! What holds under every autoscaler.

use rowlock_simulation::{
    Fault, FaultKind, LawKind, Load, QueueLoad, Sample, Score, Task, replay, replay_traced,
};

use crate::loads::{burst, faulty, load, queue, steady};

/// Three faulty queues that may have ten pods.
fn shared() -> Load {
    let queues = (0..3).map(|number| faulty(&format!("queue-{number}"), number)).collect();
    Load { budget: Some(10), queues, ..load(1800.0, 1, 1, Vec::new()) }
}

#[test]
fn the_same_seed_gives_the_same_score() {
    for load in [load(600.0, 100, 4, steady(600.0, 20.0, 0.5, 1)), shared()] {
        for law in LawKind::ALL {
            let score = replay(&load, law, 7);
            assert_eq!(score, replay(&load, law, 7), "{}", law.name());
            assert_eq!(score, replay_traced(&load, law, 7).0, "{}", law.name());
        }
    }
}

#[test]
fn every_task_completes() {
    let mut load = load(3600.0, 40, 4, Vec::new());
    load.queues = vec![faulty("faulty", 1)];
    for law in LawKind::ALL {
        let Score { tasks, completed, not_started, .. } = replay(&load, law, 7);
        assert_eq!(tasks, load.queues[0].tasks.len() as u64, "{}", law.name());
        assert_eq!((completed, not_started), (tasks, 0), "{}", law.name());
    }
}

#[test]
fn tasks_that_are_left_over_have_waited_until_the_end() {
    let load = load(100.0, 1, 1, burst(10.0, 5, 1000.0));
    let score = replay(&load, LawKind::Rowlock, 1);
    assert_eq!((score.tasks, score.completed, score.not_started), (5, 0, 4));
    assert!((score.max_wait - 90.0).abs() < 1e-6 && (score.p95_wait - 90.0).abs() < 1e-6, "{score:?}");
}

/// A delayed task waits from the moment when it may start.
#[test]
fn waits_begin_when_a_task_may_start() {
    let task = |delay| Task { enqueued: 10.0, delay, service: 1.0 };
    let load = load(100.0, 1, 1, vec![task(0.0), task(30.0), task(500.0)]);
    let score = replay(&load, LawKind::Fixed, 1);
    assert_eq!((score.tasks, score.completed), (2, 2));
    assert!(score.max_wait.abs() < 1e-6, "{score:?}");
}

#[test]
fn fixed_costs_total_all_the_time() {
    let score = replay(&load(3600.0, 30, 4, steady(3600.0, 5.0, 1.0, 1)), LawKind::Fixed, 1);
    assert!((score.worker_hours - 32.0).abs() < 1e-9, "{score:?}");
}

/// A pod that goes keeps its tasks, and costs until they have ended.
#[test]
fn pods_drain() {
    let load = load(1000.0, 20, 20, burst(10.0, 2, 600.0));
    for law in LawKind::ALL {
        let score = replay(&load, law, 1);
        assert_eq!(score.completed, 2, "{}", law.name());
        assert!(score.worker_hours >= 20.0 * 600.0 / 3600.0, "{}: {score:?}", law.name());
    }
}

#[test]
fn the_budget_is_kept() {
    let load = shared();
    for law in LawKind::ALL.into_iter().filter(|law| *law != LawKind::Oracle) {
        let (_, samples) = replay_traced(&load, law, 3);
        assert_eq!(samples.len(), 1801, "{}", law.name());
        let most = samples.iter().map(|sample| sample.pods_asked).max();
        assert!(most.is_some_and(|most| (1..=10).contains(&most)), "{}: {most:?}", law.name());
    }
}

/// One queue holds all pods there may be and does nothing, another waits.
#[test]
fn starvation_is_noticed() {
    let queues = vec![queue("first", 1, 1, burst(10.0, 1, 1.0)), queue("second", 1, 1, burst(100.0, 1, 1.0))];
    let mut load = Load { budget: Some(1), queues, ..load(300.0, 1, 1, Vec::new()) };
    let starved = |load: &Load| replay(load, LawKind::Fixed, 1).starved_seconds;
    assert!((starved(&load) - 200.0).abs() < 2.0, "{}", starved(&load));
    load.budget = Some(2);
    assert!(starved(&load).abs() < 1e-6);
}

/// The waits of a queue with ready pods and one fault from 100 to 160 s.
fn with_fault(kind: FaultKind, law: LawKind) -> (Score, Vec<Sample>) {
    let faults = vec![Fault { from: 100.0, until: 160.0, kind }];
    let queue = QueueLoad { faults, ..queue("tasks", 20, 20, steady(300.0, 1.0, 0.5, 2)) };
    replay_traced(&Load { queues: vec![queue], ..load(400.0, 1, 1, Vec::new()) }, law, 1)
}

#[test]
fn nothing_is_claimed_while_the_database_is_gone() {
    let (score, samples) = with_fault(FaultKind::DatabaseGone, LawKind::Fixed);
    assert!(samples[111..160].iter().all(|sample| sample.running == 0));
    assert!((50.0..60.0).contains(&score.max_wait), "{score:?}");
}

#[test]
fn failed_runs_are_tried_again() {
    let (score, samples) = with_fault(FaultKind::RunsFail { after: 2.0 }, LawKind::Fixed);
    assert_eq!(score.completed, score.tasks);
    assert!(score.max_wait <= 2.0, "{score:?}");
    // Until the first retries, no task completes, and each run takes long.
    assert!(samples[105..115].iter().any(|sample| sample.running >= 2));
}

#[test]
fn pods_that_do_not_start_are_not_ready_before_it_is_over() {
    let kind = FaultKind::PodsDoNotStart;
    let faults = vec![Fault { from: 0.0, until: 60.0, kind }];
    let queue = QueueLoad { faults, ..queue("tasks", 4, 4, burst(5.0, 1, 0.5)) };
    let load = Load { queues: vec![queue], ..load(200.0, 1, 1, Vec::new()) };
    let (score, samples) = replay_traced(&load, LawKind::Fixed, 1);
    assert!((score.max_wait - 55.0).abs() < 1e-6, "{score:?}");
    assert!(samples[..60].iter().all(|sample| (sample.pods_asked, sample.pods_ready) == (1, 0)));
}
