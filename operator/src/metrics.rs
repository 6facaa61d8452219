//! The operator's own metrics.

use crate::view::View;
use prometheus::{Encoder, GaugeVec, Opts, Registry, TextEncoder};

/// Gauges per queue, set after each step.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    tasks: GaugeVec,
    workers: GaugeVec,
    instances: GaugeVec,
    oldest: GaugeVec,
    by_priority: GaugeVec,
}

impl Metrics {
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            tasks: gauge(
                "rowlock_queue_tasks",
                "Tasks that are not finished, and dead ones.",
                &["queue", "state"],
            )?,
            workers: gauge(
                "rowlock_queue_workers",
                "Workers: desired, allocated, busy.",
                &["queue", "kind"],
            )?,
            instances: gauge("rowlock_queue_instances", "Instances that run or start.", &["queue"])?,
            oldest: gauge(
                "rowlock_queue_oldest_available_seconds",
                "How long the oldest available task has waited.",
                &["queue"],
            )?,
            by_priority: gauge(
                "rowlock_queue_oldest_by_priority_seconds",
                "How long the oldest available task of each priority has waited.",
                &["queue", "priority"],
            )?,
            registry,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2⁵³ tasks are not to be expected")]
    pub fn set(&self, view: &View) {
        for gauge in [&self.tasks, &self.workers, &self.instances, &self.oldest, &self.by_priority] {
            gauge.reset();
        }
        for queue in &view.queues {
            let name = queue.name.as_str();
            self.instances.with_label_values(&[name]).set(f64::from(queue.instances));
            let desired = f64::from(queue.decision.workers_desired);
            self.workers.with_label_values(&[name, "desired"]).set(desired);
            let Some(stats) = &queue.stats else { continue };
            for (state, count) in [
                ("available", stats.available),
                ("scheduled", stats.scheduled),
                ("retryable", stats.retryable),
                ("running", stats.running),
                ("dead", stats.dead),
            ] {
                self.tasks.with_label_values(&[name, state]).set(count as f64);
            }
            self.workers.with_label_values(&[name, "allocated"]).set(stats.allocated as f64);
            self.workers.with_label_values(&[name, "busy"]).set(stats.busy as f64);
            self.oldest.with_label_values(&[name]).set(stats.oldest_available_seconds.unwrap_or(0.0));
            for (priority, oldest) in ["0", "1", "2", "3"].iter().zip(stats.oldest_by_priority) {
                self.by_priority.with_label_values(&[name, priority]).set(oldest.unwrap_or(0.0));
            }
        }
    }

    /// In Prometheus' text format.
    pub fn text(&self) -> prometheus::Result<String> {
        let mut bytes = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
