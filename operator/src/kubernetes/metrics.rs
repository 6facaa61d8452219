//! The operator's own metrics, made when somebody asks for them.

use kube::ResourceExt;
use prometheus::{Encoder, GaugeVec, Opts, Registry, TextEncoder};

use crate::connection_limit::Limit;
use crate::kubernetes::context::Context;
use crate::view::QueueView;

struct Gauges {
    registry: Registry,
    tasks: GaugeVec,
    workers: GaugeVec,
    pods: GaugeVec,
    oldest: GaugeVec,
    by_priority: GaugeVec,
    connections: GaugeVec,
}

/// In Prometheus' text format.
pub(crate) fn text(context: &Context) -> prometheus::Result<String> {
    let gauges = Gauges::new()?;
    for (source, view) in context.views() {
        for queue in &view.queues {
            gauges.set(&source.namespace, queue);
        }
        if let Some(limit) = view.queues.first().and_then(|queue| queue.limit.as_ref()) {
            gauges.set_connections(&source.namespace, &source.secret.name, limit);
        }
    }
    let leader = prometheus::Gauge::new("rowlock_operator_leader", "Whether this replica leads.")?;
    leader.set(f64::from(u8::from(context.leadership.may_write())));
    gauges.registry.register(Box::new(leader))?;
    let help =
        "Whether the API server lets this replica see TaskQueues: 0 while their definition is missing.";
    let readable = prometheus::Gauge::new("rowlock_operator_task_queues_readable", help)?;
    let sees = context.task_queues.is_complete() && context.task_queues.refusal().is_none();
    readable.set(f64::from(u8::from(sees)));
    gauges.registry.register(Box::new(readable))?;
    let help = "Queues whose pods are replaced for a release of the operator, and those that wait for it.";
    let rollouts = GaugeVec::new(Opts::new("rowlock_operator_rollouts", help), &["state"])?;
    let (in_progress, waiting) = context.rollouts();
    for (state, count) in [("in_progress", in_progress), ("waiting", waiting)] {
        rollouts.with_label_values(&[state]).set(u32::try_from(count).unwrap_or(u32::MAX).into());
    }
    gauges.registry.register(Box::new(rollouts))?;
    if context.leadership.may_write() {
        gauges.registry.register(Box::new(conditions(context)?))?;
    }
    let mut bytes = Vec::new();
    TextEncoder::new().encode(&gauges.registry.gather(), &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Of every `TaskQueue`, one whose database is away or whose namespace is closed to us too: what an alert is
/// made from.
fn conditions(context: &Context) -> prometheus::Result<GaugeVec> {
    let help = "Conditions of TaskQueues: 1 for the status (True, False or Unknown) that each has.";
    let labels = ["namespace", "task_queue", "type", "status"];
    let gauge = GaugeVec::new(Opts::new("rowlock_task_queue_condition", help), &labels)?;
    for one in context.readable() {
        let (namespace, name) = (one.namespace().unwrap_or_default(), one.name_any());
        for condition in one.status.iter().flat_map(|status| &status.conditions) {
            gauge.with_label_values(&[&namespace, &name, &condition.type_, &condition.status]).set(1.0);
        }
    }
    Ok(gauge)
}

impl Gauges {
    fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str, more: &[&str]| {
            let labels: Vec<&str> = ["namespace", "queue"].iter().chain(more).copied().collect();
            let gauge = GaugeVec::new(Opts::new(name, help), &labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let tasks = gauge("rowlock_queue_tasks", "Tasks that are not finished, and dead ones.", &["state"])?;
        let workers = gauge("rowlock_queue_workers", "Workers: desired, allocated, busy.", &["kind"])?;
        let pods = gauge("rowlock_queue_pods", "Pods: desired.", &["kind"])?;
        let help = "How long the oldest available task has waited.";
        let oldest = gauge("rowlock_queue_oldest_available_seconds", help, &[])?;
        let help = "How long the oldest available task of each priority has waited.";
        let by_priority = gauge("rowlock_queue_oldest_by_priority_seconds", help, &["priority"])?;
        let help = "Connections of the database: at most, held by others at most in the last minutes, kept free for them.";
        let labels = ["namespace", "secret", "kind"];
        let connections = GaugeVec::new(Opts::new("rowlock_database_connections", help), &labels)?;
        registry.register(Box::new(connections.clone()))?;
        Ok(Self { registry, tasks, workers, pods, oldest, by_priority, connections })
    }

    fn set_connections(&self, namespace: &str, secret: &str, limit: &Limit) {
        let connections = &limit.connections;
        for (kind, count) in [
            ("limit", connections.limit),
            ("others", connections.others),
            ("reserved", connections.reserve()),
        ] {
            self.connections.with_label_values(&[namespace, secret, kind]).set(count.into());
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2⁵³ tasks are not to be expected")]
    fn set(&self, namespace: &str, queue: &QueueView) {
        let name = queue.name.as_str();
        let decision = &queue.decision;
        self.pods.with_label_values(&[namespace, name, "desired"]).set(decision.pods_desired.into());
        self.workers.with_label_values(&[namespace, name, "desired"]).set(decision.workers_desired.into());
        let Some(stats) = &queue.stats else { return };
        for (state, count) in [
            ("available", stats.available),
            ("scheduled", stats.scheduled),
            ("retryable", stats.retryable),
            ("running", stats.running),
            ("dead", stats.dead),
        ] {
            self.tasks.with_label_values(&[namespace, name, state]).set(count as f64);
        }
        for (kind, count) in [("allocated", stats.allocated), ("busy", stats.busy)] {
            self.workers.with_label_values(&[namespace, name, kind]).set(count as f64);
        }
        self.oldest.with_label_values(&[namespace, name]).set(stats.oldest_available_seconds.unwrap_or(0.0));
        for (priority, oldest) in ["0", "1", "2", "3"].iter().zip(stats.oldest_by_priority) {
            self.by_priority.with_label_values(&[namespace, name, priority]).set(oldest.unwrap_or(0.0));
        }
    }
}
