//! The metrics of queues and of their database. The operator and `rowlock dev` export the same, computed for
//! each request, so that nothing stays of a queue that is gone.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{CounterVec, GaugeVec, Opts, Registry};
use rowlock_plan::Reason;

use crate::connection_limit::Limit;
use crate::view::{QueueView, View};

/// Where a view comes from in a cluster. Its parts become labels.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The namespace of the `TaskQueues`.
    pub namespace: &'a str,
    /// The Secret with the URL of the database.
    pub secret: &'a str,
}

/// Gauges and counters, with the same labels for all views: those of a [`Place`] if `is_cluster`.
#[derive(Debug)]
pub struct ViewMetrics {
    is_cluster: bool,
    tasks: GaugeVec,
    oldest: GaugeVec,
    by_priority: GaugeVec,
    suspects: GaugeVec,
    oldest_suspect: GaugeVec,
    workers: GaugeVec,
    pods: GaugeVec,
    reason: GaugeVec,
    limited: GaugeVec,
    wait_target: GaugeVec,
    total: GaugeVec,
    paused: GaugeVec,
    backlog_limit: GaugeVec,
    backlog_full: GaugeVec,
    newly_dead: GaugeVec,
    enqueued: CounterVec,
    connections: GaugeVec,
    partitions_left: GaugeVec,
    horizon: GaugeVec,
    snapshot_at: GaugeVec,
    snapshot_took: GaugeVec,
    polls: CounterVec,
    poll_seconds: CounterVec,
}

impl ViewMetrics {
    /// # Errors
    /// A name is taken in this registry.
    pub fn new(registry: &Registry, is_cluster: bool) -> prometheus::Result<Self> {
        let queue: &[&str] = if is_cluster { &["namespace", "queue"] } else { &["queue"] };
        let database: &[&str] = if is_cluster { &["namespace", "secret"] } else { &[] };
        let of_queue = |name: &str, help: &str, more: &[&str]| {
            gauge(registry, &format!("rowlock_queue_{name}"), help, &[queue, more].concat())
        };
        let of_database = |name: &str, help: &str, more: &[&str]| {
            gauge(registry, &format!("rowlock_database_{name}"), help, &[database, more].concat())
        };
        let tasks = "Tasks that are not finished, and dead ones; estimated from a sample above 50,000.";
        let oldest = "How long the oldest available task has waited.";
        let by_priority = "How long the oldest available task of each priority has waited.";
        let suspects = "Tasks whose handler ended while they ran, and that wait to run alone.";
        let oldest_suspect = "How long the oldest of these suspects has waited.";
        let workers = "Worker slots: desired, allocated, busy.";
        let pods = "Pods: desired, ready, starting, draining.";
        let limited = "1 if this limit keeps the number of slots below what the tasks need.";
        let target = "How long a task should wait at most; without autoscaling, a minute.";
        let connections = "Connections of the database: the limit, the most that others used lately, the \
                           reserve, and those of operators and workers now.";
        let left = "Time until the last existing partition ends.";
        let seen = "When the last answered poll of the database was sent.";
        let took = "How long the database took to answer that poll.";
        let backlog = "Enqueue refuses tasks above this backlog: limits.backlog.";
        let full = "1: enqueue refuses tasks, because limits.backlog is reached.";
        let dead = "Tasks that died within the last 15 minutes, up to 1,000.";
        let enqueued = "Tasks that were enqueued, as this replica has seen since it began to lead.";
        let horizon = "How old the oldest transaction is that keeps dead rows, by the kind of its holder.";
        let polls = "Polls of the database, by result.";
        let poll_seconds = "How long the database took for all polls.";
        Ok(Self {
            is_cluster,
            tasks: of_queue("tasks", tasks, &["state"])?,
            oldest: of_queue("oldest_available_seconds", oldest, &[])?,
            by_priority: of_queue("oldest_by_priority_seconds", by_priority, &["priority"])?,
            suspects: of_queue("suspects", suspects, &[])?,
            oldest_suspect: of_queue("oldest_suspect_seconds", oldest_suspect, &[])?,
            workers: of_queue("workers", workers, &["kind"])?,
            pods: of_queue("pods", pods, &["kind"])?,
            reason: of_queue("scaling_reason", "1 for the reason that decided the number.", &["reason"])?,
            limited: of_queue("scaling_limited", limited, &["reason"])?,
            wait_target: of_queue("wait_target_seconds", target, &[])?,
            total: of_queue("total_workers", "The most worker slots of all pods: workers.total.", &[])?,
            paused: of_queue("paused", "1: spec.paused is set, so no task starts.", &[])?,
            backlog_limit: of_queue("backlog_limit_tasks", backlog, &[])?,
            backlog_full: of_queue("backlog_full", full, &[])?,
            newly_dead: of_queue("newly_dead_tasks", dead, &[])?,
            enqueued: counter(registry, "rowlock_queue_enqueued_tasks_total", enqueued, queue)?,
            connections: of_database("connections", connections, &["kind"])?,
            partitions_left: of_database("partitions_left_seconds", left, &[])?,
            horizon: of_database("horizon_age_seconds", horizon, &["kind"])?,
            snapshot_at: of_database("last_snapshot_timestamp_seconds", seen, &[])?,
            snapshot_took: of_database("last_snapshot_duration_seconds", took, &[])?,
            polls: counter(
                registry,
                "rowlock_database_polls_total",
                polls,
                &[database, &["result"]].concat(),
            )?,
            poll_seconds: counter(registry, "rowlock_database_poll_seconds_total", poll_seconds, database)?,
        })
    }

    /// Adds a view. `place`: where it comes from, in a cluster.
    pub fn set(&self, place: Option<Place<'_>>, view: &View) {
        let place = place.unwrap_or(Place { namespace: "", secret: "" });
        for queue in &view.queues {
            self.set_queue(place.namespace, queue);
        }
        self.set_database(place, view);
    }

    fn set_database(&self, place: Place<'_>, view: &View) {
        let Place { namespace, secret } = place;
        let labels: &[&str] = if self.is_cluster { &[namespace, secret] } else { &[] };
        if let Some(limit) = view.queues.first().and_then(|queue| queue.limit.as_ref()) {
            let Limit { connections, operators, workers, .. } = limit;
            for (kind, count) in [
                ("limit", connections.limit),
                ("others", connections.others),
                ("reserved", connections.reserve()),
                ("operators", *operators),
                ("workers", *workers),
            ] {
                self.connections.with_label_values(&[labels, &[kind]].concat()).set(count.into());
            }
        }
        if let Some((at, partitions)) = view.partitions {
            let left = partitions.left_seconds - at.elapsed().as_secs_f64();
            self.partitions_left.with_label_values(labels).set(left);
        }
        for (kind, age) in view.horizon.iter().flatten() {
            self.horizon.with_label_values(&[labels, &[kind]].concat()).set(age.as_secs_f64());
        }
        #[expect(clippy::cast_precision_loss, reason = "a counter is a float, which is exact up to 2⁵³")]
        for (result, polls) in [("answered", view.polls.answered), ("failed", view.polls.failed)] {
            self.polls.with_label_values(&[labels, &[result]].concat()).inc_by(polls as f64);
        }
        self.poll_seconds.with_label_values(labels).inc_by(view.polls.took.as_secs_f64());
        if let Some(at) = view.snapshot_at {
            let time = SystemTime::now() - at.elapsed();
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            self.snapshot_at.with_label_values(labels).set(since.as_secs_f64());
        }
        if let Some(took) = view.snapshot_took {
            self.snapshot_took.with_label_values(labels).set(took.as_secs_f64());
        }
    }

    fn set_queue(&self, namespace: &str, queue: &QueueView) {
        let name = queue.name.as_str();
        let labels: &[&str] = if self.is_cluster { &[namespace, name] } else { &[name] };
        let set = |gauge: &GaugeVec, more: &[&str], value: f64| {
            gauge.with_label_values(&[labels, more].concat()).set(value);
        };
        let decision = &queue.decision;
        set(&self.wait_target, &[], queue.settings.wait_target.as_secs_f64());
        set(&self.total, &[], queue.settings.total_workers.into());
        set(&self.paused, &[], u8::from(queue.settings.paused).into());
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, which is exact up to 2⁵³")]
        set(&self.backlog_limit, &[], queue.settings.backlog_limit as f64);
        #[expect(clippy::cast_precision_loss, reason = "the same")]
        self.enqueued.with_label_values(labels).inc_by(queue.enqueued as f64);
        set(&self.reason, &[decision.reason.as_str()], 1.0);
        for reason in Reason::ALL.into_iter().filter(|reason| reason.is_limit()) {
            set(&self.limited, &[reason.as_str()], u8::from(reason == decision.reason).into());
        }
        for (kind, pods) in [
            ("desired", decision.pods_desired),
            ("ready", queue.ready),
            ("starting", queue.instances.saturating_sub(queue.ready)),
            ("draining", queue.draining),
        ] {
            set(&self.pods, &[kind], pods.into());
        }
        set(&self.workers, &["desired"], decision.workers_desired.into());
        self.set_statistics(queue, set);
    }

    /// What the database says. Nothing, if it could not be read.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, which is exact up to 2⁵³")]
    fn set_statistics(&self, queue: &QueueView, set: impl Fn(&GaugeVec, &[&str], f64)) {
        let Some(stats) = &queue.stats else { return };
        for (state, count) in [
            ("available", stats.available),
            ("scheduled", stats.scheduled),
            ("retryable", stats.retryable),
            ("running", stats.running),
            ("dead", stats.dead),
        ] {
            set(&self.tasks, &[state], count as f64);
        }
        for (kind, count) in [("allocated", stats.allocated), ("busy", stats.busy)] {
            set(&self.workers, &[kind], count as f64);
        }
        set(&self.backlog_full, &[], u8::from(queue.backlog_full).into());
        set(&self.newly_dead, &[], stats.newly_dead.max(0) as f64);
        set(&self.oldest, &[], stats.oldest_available_seconds.unwrap_or(0.0));
        for (priority, oldest) in ["0", "1", "2", "3"].iter().zip(stats.oldest_by_priority) {
            set(&self.by_priority, &[priority], oldest.unwrap_or(0.0));
        }
        set(&self.suspects, &[], stats.suspects as f64);
        set(&self.oldest_suspect, &[], stats.oldest_suspect_seconds.unwrap_or(0.0));
    }
}

fn gauge(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
    let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<CounterVec> {
    let counter = CounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, Instant};

    use prometheus::TextEncoder;
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
            limit: Some(Limit {
                of: "max_connections",
                is_own: false,
                connections,
                operators: 3,
                workers: 4,
            }),
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

    fn series(place: Option<Place<'_>>, view: &View) -> Vec<String> {
        let registry = Registry::new();
        ViewMetrics::new(&registry, place.is_some()).unwrap().set(place, view);
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn configuration_pods_limits_and_connections_are_metrics() {
        let place = Place { namespace: "shop", secret: "db" };
        let series = series(Some(place), &view(&["mail"]));
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
        for place in [None, Some(Place { namespace: "shop", secret: "db" })] {
            let count = |names: &[&str]| series(place, &view(names)).len();
            let per_queue = count(&["a", "b"]) - count(&["a"]);
            assert!(per_queue <= SERIES_PER_QUEUE, "{per_queue}");
            let database = count(&["a"]) - per_queue;
            assert!((1..=SERIES_PER_DATABASE).contains(&database), "{database}");
        }
    }

    #[test]
    fn names_are_the_same_with_and_without_a_cluster() {
        let place = Place { namespace: "shop", secret: "db" };
        let names = |place| {
            let series = series(place, &view(&["mail"]));
            let name = |line: &String| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
            series.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(None), names(Some(place)));
    }
}
