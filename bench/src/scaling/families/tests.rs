//! The loads of the families: their names, seeds, bounds and work.

use std::collections::BTreeSet;

use super::*;

/// A load that the simulator replays in seconds.
const MOST_TASKS: usize = 300_000;

#[test]
fn there_are_enough_families_and_their_names_differ() {
    let families = all();
    let names: BTreeSet<&str> = families.iter().map(|family| family.name).collect();
    assert_eq!(names.len(), families.len());
    assert!(families.len() >= 36, "{}", families.len());
    for kind in [Kind::Steady, Kind::BurstsFromZero, Kind::Changing] {
        assert!(families.iter().filter(|family| family.kind == kind).count() >= 10, "{kind:?}");
    }
}

#[test]
fn a_seed_repeats_its_load_and_others_differ() {
    for family in all() {
        let load = family.load(1);
        assert_eq!(load, family.load(1), "{}", family.name);
        assert_ne!(load, family.load(2), "{}", family.name);
    }
}

#[test]
fn loads_are_within_their_bounds() {
    for (family, seed) in all().into_iter().flat_map(|family| [(family, 1), (family, 2), (family, 3)]) {
        let load = family.load(seed);
        let name = &load.name;
        assert!((20.0 * MINUTE..=90.0 * MINUTE).contains(&load.seconds), "{name}");
        let count: usize = load.queues.iter().map(|queue| queue.tasks.len()).sum();
        assert!((1..=MOST_TASKS).contains(&count), "{name}: {count} tasks");
        assert!(load.queues.is_sorted_by(|one, next| one.name < next.name), "{name}");
        for queue in &load.queues {
            assert!(queue.tasks.is_sorted_by(|one, next| one.enqueued <= next.enqueued), "{name}");
            for task in &queue.tasks {
                assert!(
                    task.enqueued >= 0.0 && task.enqueued + task.delay < load.seconds,
                    "{name}: {task:?}"
                );
                assert!(task.service > 0.0 && task.service.is_finite(), "{name}: {task:?}");
            }
        }
    }
}

/// More work than workers would tell nothing about a law.
#[test]
fn the_workers_can_do_the_work() {
    for (family, seed) in all().into_iter().flat_map(|family| [(family, 1), (family, 2), (family, 3)]) {
        let load = family.load(seed);
        for queue in &load.queues {
            let work: f64 = queue.tasks.iter().map(|task| task.service).sum();
            let busy = work / load.seconds;
            assert!(busy < 0.8 * f64::from(queue.total), "{}: {busy} of {}", load.name, queue.total);
        }
        if let Some(budget) = load.budget {
            let pods: f64 = load.queues.iter().map(pods).sum();
            assert!(pods < 0.9 * f64::from(budget), "{}: {pods} of {budget} pods", load.name);
        }
    }
}

/// The pods that a queue keeps busy on average.
fn pods(queue: &QueueLoad) -> f64 {
    let work: f64 = queue.tasks.iter().map(|task| task.service).sum();
    let last = queue.tasks.last().map_or(1.0, |task| task.enqueued);
    work / last.max(MINUTE) / f64::from(queue.per_pod)
}

#[test]
fn steady_families_keep_several_pods_busy() {
    for family in all().into_iter().filter(|family| family.kind == Kind::Steady) {
        let load = family.load(1);
        let busy: f64 = load.queues.iter().map(pods).sum();
        assert!(busy > 1.5, "{}: {busy}", family.name);
    }
}
