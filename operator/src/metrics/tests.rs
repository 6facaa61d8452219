use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rowlock_plan::{Connections, Decision, Memory};
use rowlock_queue::{HORIZON_KINDS, PartitionStats};

use super::*;
use crate::shared_poller::declared;
use crate::view::{Polls, QueueSettings};

/// The most series of a queue without those of its conditions, and of a database.
const SERIES_PER_QUEUE: usize = 42;
const SERIES_PER_DATABASE: usize = 30;

fn queue(name: &str) -> QueueView {
    let decision = Decision {
        workers_desired: 20,
        pods_desired: 2,
        reason: Reason::Total,
        demand: None,
        inputs: None,
        memory: Memory::default(),
    };
    let connections = Connections { limit: 100, others: 20, others_steady: 10, leaving: 0 };
    QueueView {
        name: name.to_owned(),
        refused: None,
        owner: None,
        stats: Some(declared(name, "o", 1).stats),
        instances: 3,
        ready: 2,
        draining: 1,
        backlog_full: true,
        enqueued: 7,
        settings: QueueSettings {
            wait_target: Duration::from_secs(5),
            total_workers: 20,
            backlog_limit: 1000,
            paused: true,
        },
        decision,
        limit: Some(Limit { of: "max_connections", is_own: false, connections, operators: 3, workers: 4 }),
        shortage: None,
        metrics: Vec::new(),
    }
}

pub(crate) fn view(names: &[&str]) -> View {
    let partitions = PartitionStats { left_seconds: 1000.0, oldest_seconds: 10.0 };
    View {
        queues: names.iter().map(|name| queue(name)).collect(),
        snapshot_at: Some(Instant::now()),
        snapshot_took: Some(Duration::from_millis(20)),
        partitions: Some((Instant::now(), partitions)),
        polls: Polls { answered: 8, failed: 2, took: Duration::from_millis(500) },
        horizon: Some(HORIZON_KINDS.map(|kind| (kind, Duration::from_mins(1)))),
        ..View::default()
    }
}

pub(crate) fn place() -> Place {
    Place { namespace: "shop".to_owned(), secret: "db".to_owned() }
}

fn series(views: Vec<(Place, View)>) -> Vec<String> {
    let mut page = Page::default();
    page.add_views(views.into_iter().map(|(place, view)| (place, Arc::new(view))).collect());
    page.text().lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn configuration_pods_limits_and_connections_are_metrics() {
    let series = series(vec![(place(), view(&["mail"]))]);
    for line in [
        "rowlock_queue_wait_target_seconds{namespace=\"shop\",queue=\"mail\"} 5",
        "rowlock_queue_total_workers{namespace=\"shop\",queue=\"mail\"} 20",
        "rowlock_queue_paused{namespace=\"shop\",queue=\"mail\"} 1",
        "rowlock_queue_pods{kind=\"desired\",namespace=\"shop\",queue=\"mail\"} 2",
        "rowlock_queue_pods{kind=\"ready\",namespace=\"shop\",queue=\"mail\"} 2",
        "rowlock_queue_pods{kind=\"starting\",namespace=\"shop\",queue=\"mail\"} 1",
        "rowlock_queue_pods{kind=\"draining\",namespace=\"shop\",queue=\"mail\"} 1",
        "rowlock_queue_scaling_limited{namespace=\"shop\",queue=\"mail\",reason=\"Total\"} 1",
        "rowlock_queue_scaling_limited{namespace=\"shop\",queue=\"mail\",reason=\"Connections\"} 0",
        "rowlock_queue_backlog_limit_tasks{namespace=\"shop\",queue=\"mail\"} 1000",
        "rowlock_queue_backlog_full{namespace=\"shop\",queue=\"mail\"} 1",
        "rowlock_queue_newly_dead_tasks{namespace=\"shop\",queue=\"mail\"} 0",
        "rowlock_queue_enqueued_tasks_total{namespace=\"shop\",queue=\"mail\"} 7",
        "rowlock_database_horizon_age_seconds{kind=\"session\",namespace=\"shop\",secret=\"db\"} 60",
        "rowlock_database_horizon_age_seconds{kind=\"standby\",namespace=\"shop\",secret=\"db\"} 60",
        "rowlock_database_polls_total{namespace=\"shop\",result=\"answered\",secret=\"db\"} 8",
        "rowlock_database_polls_total{namespace=\"shop\",result=\"failed\",secret=\"db\"} 2",
        "rowlock_database_poll_seconds_total{namespace=\"shop\",secret=\"db\"} 0.5",
        "rowlock_database_last_snapshot_duration_seconds{namespace=\"shop\",secret=\"db\"} 0.02",
        "rowlock_database_connections{kind=\"operators\",namespace=\"shop\",secret=\"db\"} 3",
        "rowlock_database_connections{kind=\"workers\",namespace=\"shop\",secret=\"db\"} 4",
    ] {
        assert!(series.iter().any(|one| one == line), "{line}: {series:?}");
    }
    let is_there = |name: &str| series.iter().any(|line| line.starts_with(name));
    assert!(is_there("rowlock_database_partitions_left_seconds{namespace=\"shop\",secret=\"db\"} 9"));
    assert!(is_there("rowlock_database_last_snapshot_timestamp_seconds{namespace=\"shop\","));
}

#[test]
fn the_number_of_series_per_queue_and_database_is_bounded() {
    for place in [Place::default(), place()] {
        let count = |names: &[&str]| series(vec![(place.clone(), view(names))]).len();
        let per_queue = count(&["a", "b"]) - count(&["a"]);
        assert!(per_queue <= SERIES_PER_QUEUE, "{per_queue}");
        let database = count(&["a"]) - per_queue;
        assert!((1..=SERIES_PER_DATABASE).contains(&database), "{database}");
    }
}

#[test]
fn names_are_the_same_with_and_without_a_cluster() {
    let names = |place| {
        let series = series(vec![(place, view(&["mail"]))]);
        let name = |line: &String| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
        series.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names(Place::default()), names(place()));
}

/// Prometheus drops the whole page if two series have the same labels.
#[test]
fn queues_of_the_same_name_in_two_databases_have_one_series_each() {
    let other = Place { secret: "other".to_owned(), ..place() };
    let mut last = view(&["mail"]);
    last.queues[0].ready = 7;
    let views = vec![(place(), view(&["mail"])), (other.clone(), view(&["mail"])), (other, last)];
    let series = series(views);
    let labels = |line: &String| line.rsplit_once(' ').map(|(labels, _)| labels.to_owned());
    let different: BTreeSet<_> = series.iter().map(labels).collect();
    assert_eq!(different.len(), series.len(), "{series:?}");
    let ready = "rowlock_queue_pods{kind=\"ready\",namespace=\"shop\",queue=\"mail\"} 7";
    assert!(series.iter().any(|line| line == ready), "{series:?}");
}
