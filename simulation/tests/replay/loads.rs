//! Loads for tests.

use rowlock_simulation::{Fault, FaultKind, Load, PodStart, QueueLoad, Task};

/// A load of one queue, whose pods take two seconds to start.
pub(crate) fn load(seconds: f64, total: u32, per_pod: u32, tasks: Vec<Task>) -> Load {
    Load {
        name: "test".into(),
        seconds,
        budget: None,
        pod_start: PodStart { least: 2.0, most: 2.0 },
        queues: vec![queue("tasks", total, per_pod, tasks)],
    }
}

/// A queue whose tasks should wait for five seconds at most.
pub(crate) fn queue(name: &str, total: u32, per_pod: u32, tasks: Vec<Task>) -> QueueLoad {
    let name = name.to_owned();
    QueueLoad { name, total, per_pod, min: 0, wait_target: 5.0, tasks, faults: Vec::new() }
}

/// Tasks at a steady rate, at random moments.
pub(crate) fn steady(seconds: f64, per_second: f64, service: f64, seed: u64) -> Vec<Task> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut at, mut tasks) = (0.0, Vec::new());
    loop {
        at -= (1.0 - rng.f64()).ln() / per_second;
        if at >= seconds {
            return tasks;
        }
        tasks.push(Task { enqueued: at, delay: 0.0, service });
    }
}

/// Many tasks at once.
pub(crate) fn burst(at: f64, count: usize, service: f64) -> Vec<Task> {
    vec![Task { enqueued: at, delay: 0.0, service }; count]
}

/// A small queue with something of everything: steady tasks, a burst, delayed tasks and each kind of fault.
pub(crate) fn faulty(name: &str, seed: u64) -> QueueLoad {
    let mut tasks = steady(900.0, 2.0, 1.5, seed);
    tasks.extend(burst(200.0, 100, 4.0));
    tasks.extend((0..50).map(|number| Task {
        enqueued: 20.0 + f64::from(number),
        delay: 120.0,
        service: 0.2,
    }));
    tasks.sort_by(|one, other| one.enqueued.total_cmp(&other.enqueued));
    let fault = |from, until, kind| Fault { from, until, kind };
    let faults = vec![
        fault(300.0, 360.0, FaultKind::RunsFail { after: 0.5 }),
        fault(450.0, 500.0, FaultKind::DatabaseGone),
        fault(600.0, 660.0, FaultKind::PodsDoNotStart),
    ];
    QueueLoad { faults, ..queue(name, 40, 4, tasks) }
}
