//! The metrics of queues and of their database. The operator and `rowlock dev` export the same, from the last
//! views, so that nothing stays of a queue that is gone.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rowlock_plan::Reason;

use crate::connection_limit::Limit;
use crate::exposition::{Family, Kind, Page, Series};
use crate::view::{QueueView, View};

/// Where a view comes from in a cluster. Its parts become labels. `rowlock dev` has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The namespace of the TaskQueues.
    pub namespace: String,
    /// The Secret with the URL of the database.
    pub secret: String,
}

impl Page {
    /// Adds the metrics of some views, ordered by their places.
    pub fn add_views(&mut self, views: Vec<(Place, Arc<View>)>) {
        let mut databases: Vec<_> =
            views.into_iter().map(|(place, view)| Database { place: Arc::new(place), view }).collect();
        let each = databases.iter().flat_map(|database| {
            let Database { place, view } = database;
            (0..view.queues.len()).map(|at| Queue { place: Arc::clone(place), view: Arc::clone(view), at })
        });
        let mut queues: Vec<Queue> = each.collect();
        // Two Secrets of a namespace may lead to queues of the same name: the last one counts, since no two
        // series may have the same labels.
        queues.sort_by(|one, other| one.key().cmp(&other.key()));
        queues.reverse();
        queues.dedup_by(|one, other| one.key() == other.key());
        queues.reverse();
        databases.reverse();
        databases.dedup_by(|one, other| one.place == other.place);
        databases.reverse();
        self.add(QUEUE_METRICS, queues);
        self.add(DATABASE_METRICS, databases);
    }
}

struct Database {
    place: Arc<Place>,
    view: Arc<View>,
}

struct Queue {
    place: Arc<Place>,
    view: Arc<View>,
    /// Where it is in the view.
    at: usize,
}

impl Queue {
    fn view(&self) -> &QueueView {
        &self.view.queues[self.at]
    }

    fn key(&self) -> (&str, &str) {
        (&self.place.namespace, &self.view().name)
    }

    /// Adds a series without more labels.
    fn add(&self, to: &mut Series<'_>, value: f64) {
        let (namespace, queue) = self.key();
        to.add(&[("namespace", namespace), ("queue", queue)], value);
    }

    fn add_kind(&self, to: &mut Series<'_>, kind: &str, value: f64) {
        let (namespace, queue) = self.key();
        to.add(&[("kind", kind), ("namespace", namespace), ("queue", queue)], value);
    }

    fn add_reason(&self, to: &mut Series<'_>, reason: Reason, value: f64) {
        let (namespace, queue) = self.key();
        to.add(&[("namespace", namespace), ("queue", queue), ("reason", reason.as_str())], value);
    }
}

/// The statistics are missing if the database could not be read.
const QUEUE_METRICS: &[Family<Queue>] = &[
    gauge(
        "rowlock_queue_tasks",
        "Tasks that are not finished, and dead ones; estimated from a sample above 50,000.",
        add_tasks,
    ),
    gauge(
        "rowlock_queue_oldest_available_seconds",
        "How long the oldest available task has waited.",
        |queue, to| {
            if let Some(stats) = &queue.view().stats {
                queue.add(to, stats.oldest_available_seconds.unwrap_or(0.0));
            }
        },
    ),
    gauge(
        "rowlock_queue_oldest_by_priority_seconds",
        "How long the oldest available task of each priority has waited.",
        add_priorities,
    ),
    gauge(
        "rowlock_queue_suspects",
        "Tasks whose handler ended while they ran, and that wait to run alone.",
        add_suspects,
    ),
    gauge(
        "rowlock_queue_oldest_suspect_seconds",
        "How long the oldest of these suspects has waited.",
        |queue, to| {
            if let Some(stats) = &queue.view().stats {
                queue.add(to, stats.oldest_suspect_seconds.unwrap_or(0.0));
            }
        },
    ),
    gauge("rowlock_queue_workers", "Worker slots: desired, allocated, busy.", add_workers),
    gauge("rowlock_queue_pods", "Pods: desired, ready, starting, draining.", add_pods),
    gauge("rowlock_queue_scaling_reason", "1 for the reason that decided the number.", |queue, to| {
        queue.add_reason(to, queue.view().decision.reason, 1.0);
    }),
    gauge(
        "rowlock_queue_scaling_limited",
        "1 if this limit keeps the number of slots below what the tasks need.",
        |queue, to| {
            for reason in Reason::ALL.into_iter().filter(|reason| reason.is_limit()) {
                queue.add_reason(to, reason, u8::from(reason == queue.view().decision.reason).into());
            }
        },
    ),
    gauge(
        "rowlock_queue_wait_target_seconds",
        "How long a task should wait at most; without autoscaling, a minute.",
        |queue, to| queue.add(to, queue.view().settings.wait_target.as_secs_f64()),
    ),
    gauge("rowlock_queue_total_workers", "The most worker slots of all pods: workers.total.", |queue, to| {
        queue.add(to, queue.view().settings.total_workers.into());
    }),
    gauge("rowlock_queue_paused", "1: spec.paused is set, so no task starts.", |queue, to| {
        queue.add(to, u8::from(queue.view().settings.paused).into());
    }),
    gauge(
        "rowlock_queue_backlog_limit_tasks",
        "Enqueue refuses tasks above this backlog: limits.backlog.",
        |queue, to| queue.add(to, exact(queue.view().settings.backlog_limit)),
    ),
    gauge(
        "rowlock_queue_backlog_full",
        "1: enqueue refuses tasks, because limits.backlog is reached.",
        |queue, to| {
            let view = queue.view();
            if view.stats.is_some() {
                queue.add(to, u8::from(view.backlog_full).into());
            }
        },
    ),
    gauge(
        "rowlock_queue_newly_dead_tasks",
        "Tasks that died within the last 15 minutes, up to 1,000.",
        add_newly_dead,
    ),
    counter(
        "rowlock_queue_enqueued_tasks_total",
        "Tasks that were enqueued, as this replica has seen since it began to lead.",
        |queue, to| queue.add(to, exact(queue.view().enqueued)),
    ),
];

const DATABASE_METRICS: &[Family<Database>] = &[
    gauge(
        "rowlock_database_connections",
        "Connections of the database: the limit, the most that others used lately, the reserve, and those of \
         operators and workers now.",
        add_connections,
    ),
    gauge(
        "rowlock_database_partitions_left_seconds",
        "Time until the last existing partition ends.",
        |database, to| {
            if let Some((at, partitions)) = database.view.partitions {
                database.add(to, partitions.left_seconds - at.elapsed().as_secs_f64());
            }
        },
    ),
    gauge(
        "rowlock_database_horizon_age_seconds",
        "How old the oldest transaction is that keeps dead rows, by the kind of its holder.",
        |database, to| {
            for (kind, age) in database.view.horizon.iter().flatten() {
                database.add_first(to, ("kind", kind), age.as_secs_f64());
            }
        },
    ),
    counter("rowlock_database_polls_total", "Polls of the database, by result.", add_polls),
    counter(
        "rowlock_database_poll_seconds_total",
        "How long the database took for all polls.",
        |database, to| database.add(to, database.view.polls.took.as_secs_f64()),
    ),
    gauge(
        "rowlock_database_last_snapshot_timestamp_seconds",
        "When the last answered poll of the database was sent.",
        |database, to| {
            if let Some(at) = database.view.snapshot_at {
                let time = SystemTime::now() - at.elapsed();
                database.add(to, time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
            }
        },
    ),
    gauge(
        "rowlock_database_last_snapshot_duration_seconds",
        "How long the database took to answer that poll.",
        |database, to| {
            if let Some(took) = database.view.snapshot_took {
                database.add(to, took.as_secs_f64());
            }
        },
    ),
];

const fn gauge<T>(name: &'static str, help: &'static str, write: fn(&T, &mut Series<'_>)) -> Family<T> {
    Family { name, kind: Kind::Gauge, help, write }
}

const fn counter<T>(name: &'static str, help: &'static str, write: fn(&T, &mut Series<'_>)) -> Family<T> {
    Family { name, kind: Kind::Counter, help, write }
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float, which is exact up to 2⁵³")]
fn exact(count: u64) -> f64 {
    count as f64
}

fn add_suspects(queue: &Queue, to: &mut Series<'_>) {
    if let Some(stats) = &queue.view().stats {
        queue.add(to, exact(stats.suspects.try_into().unwrap_or_default()));
    }
}

fn add_newly_dead(queue: &Queue, to: &mut Series<'_>) {
    if let Some(stats) = &queue.view().stats {
        queue.add(to, exact(stats.newly_dead.try_into().unwrap_or_default()));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, which is exact up to 2⁵³")]
fn add_tasks(queue: &Queue, to: &mut Series<'_>) {
    let Some(stats) = &queue.view().stats else { return };
    let (namespace, name) = queue.key();
    for (state, count) in [
        ("available", stats.available),
        ("scheduled", stats.scheduled),
        ("retryable", stats.retryable),
        ("running", stats.running),
        ("dead", stats.dead),
    ] {
        to.add(&[("namespace", namespace), ("queue", name), ("state", state)], count as f64);
    }
}

fn add_priorities(queue: &Queue, to: &mut Series<'_>) {
    let Some(stats) = &queue.view().stats else { return };
    let (namespace, name) = queue.key();
    for (priority, oldest) in ["0", "1", "2", "3"].into_iter().zip(stats.oldest_by_priority) {
        let labels = [("namespace", namespace), ("priority", priority), ("queue", name)];
        to.add(&labels, oldest.unwrap_or(0.0));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, which is exact up to 2⁵³")]
fn add_workers(queue: &Queue, to: &mut Series<'_>) {
    queue.add_kind(to, "desired", queue.view().decision.workers_desired.into());
    if let Some(stats) = &queue.view().stats {
        queue.add_kind(to, "allocated", stats.allocated as f64);
        queue.add_kind(to, "busy", stats.busy as f64);
    }
}

fn add_pods(queue: &Queue, to: &mut Series<'_>) {
    let view = queue.view();
    for (kind, pods) in [
        ("desired", view.decision.pods_desired),
        ("ready", view.ready),
        ("starting", view.instances.saturating_sub(view.ready)),
        ("draining", view.draining),
    ] {
        queue.add_kind(to, kind, pods.into());
    }
}

impl Database {
    fn add(&self, to: &mut Series<'_>, value: f64) {
        let Place { namespace, secret } = &*self.place;
        to.add(&[("namespace", namespace), ("secret", secret)], value);
    }

    /// Adds a series with a label whose name comes before those of the place.
    fn add_first(&self, to: &mut Series<'_>, label: (&str, &str), value: f64) {
        let Place { namespace, secret } = &*self.place;
        to.add(&[label, ("namespace", namespace), ("secret", secret)], value);
    }
}

fn add_connections(database: &Database, to: &mut Series<'_>) {
    let limit = database.view.queues.first().and_then(|queue| queue.limit.as_ref());
    let Some(Limit { connections, operators, workers, .. }) = limit else { return };
    for (kind, count) in [
        ("limit", connections.limit),
        ("others", connections.others),
        ("reserved", connections.reserve()),
        ("operators", *operators),
        ("workers", *workers),
    ] {
        database.add_first(to, ("kind", kind), count.into());
    }
}

fn add_polls(database: &Database, to: &mut Series<'_>) {
    let Place { namespace, secret } = &*database.place;
    let polls = &database.view.polls;
    for (result, polls) in [("answered", polls.answered), ("failed", polls.failed)] {
        to.add(&[("namespace", namespace), ("result", result), ("secret", secret)], exact(polls));
    }
}

#[cfg(test)]
pub(crate) mod tests;
