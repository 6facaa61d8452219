//! The metrics of queues and of their database. The operator and `rowlock dev` export the same, computed for
//! each request, so that nothing stays of a queue that is gone.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, Opts, Registry};
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

/// Gauges, with the same labels for all views: those of a [`Place`] if `is_cluster`.
#[derive(Debug)]
pub struct ViewMetrics {
    is_cluster: bool,
    tasks: GaugeVec,
    oldest: GaugeVec,
    by_priority: GaugeVec,
    workers: GaugeVec,
    pods: GaugeVec,
    reason: GaugeVec,
    limited: GaugeVec,
    wait_target: GaugeVec,
    total: GaugeVec,
    paused: GaugeVec,
    connections: GaugeVec,
    partitions_left: GaugeVec,
    snapshot_at: GaugeVec,
    snapshot_took: GaugeVec,
}

impl ViewMetrics {
    /// # Errors
    /// A name is taken in this registry.
    pub fn new(registry: &Registry, is_cluster: bool) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let queue = |name: &str, help: &str, more: &[&str]| {
            let place: &[&str] = if is_cluster { &["namespace"] } else { &[] };
            gauge(&format!("rowlock_queue_{name}"), help, &[place, &["queue"], more].concat())
        };
        let database = |name: &str, help: &str, more: &[&str]| {
            let place: &[&str] = if is_cluster { &["namespace", "secret"] } else { &[] };
            gauge(&format!("rowlock_database_{name}"), help, &[place, more].concat())
        };
        let tasks = "Tasks that are not finished, and dead ones; estimated from a sample above 50,000.";
        let oldest = "How long the oldest available task has waited.";
        let by_priority = "How long the oldest available task of each priority has waited.";
        let workers = "Worker slots: desired, allocated, busy.";
        let pods = "Pods: desired, ready, starting, draining.";
        let limited = "1 if this limit keeps the number of slots below what the tasks need.";
        let target = "How long a task should wait at most; without autoscaling, a minute.";
        let connections = "Connections of the database: the limit, the most that others used lately, the \
                           reserve, and those of operators and workers now.";
        let left = "Time until the last existing partition ends.";
        let seen = "When the last answered poll of the database was sent.";
        let took = "How long the database took to answer that poll.";
        Ok(Self {
            is_cluster,
            tasks: queue("tasks", tasks, &["state"])?,
            oldest: queue("oldest_available_seconds", oldest, &[])?,
            by_priority: queue("oldest_by_priority_seconds", by_priority, &["priority"])?,
            workers: queue("workers", workers, &["kind"])?,
            pods: queue("pods", pods, &["kind"])?,
            reason: queue("scaling_reason", "1 for the reason that decided the number.", &["reason"])?,
            limited: queue("scaling_limited", limited, &["reason"])?,
            wait_target: queue("wait_target_seconds", target, &[])?,
            total: queue("total_workers", "The most worker slots of all pods: workers.total.", &[])?,
            paused: queue("paused", "1: spec.paused is set, so no task starts.", &[])?,
            connections: database("connections", connections, &["kind"])?,
            partitions_left: database("partitions_left_seconds", left, &[])?,
            snapshot_at: database("last_snapshot_timestamp_seconds", seen, &[])?,
            snapshot_took: database("last_snapshot_duration_seconds", took, &[])?,
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
        set(&self.oldest, &[], stats.oldest_available_seconds.unwrap_or(0.0));
        for (priority, oldest) in ["0", "1", "2", "3"].iter().zip(stats.oldest_by_priority) {
            set(&self.by_priority, &[priority], oldest.unwrap_or(0.0));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, Instant};

    use prometheus::TextEncoder;
    use rowlock_plan::{Connections, Decision, Memory};
    use rowlock_queue::PartitionStats;

    use super::*;
    use crate::shared_poller::declared;
    use crate::view::QueueSettings;

    /// The most series of a queue without those of its conditions, and of a database.
    const SERIES_PER_QUEUE: usize = 35;
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
            settings: QueueSettings { wait_target: Duration::from_secs(5), total_workers: 20, paused: true },
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
