//! Prometheus metrics of an instance. Every label has a bounded number of values.

use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};
use rowlock_queue::{MaintenanceReport, PartitionStats};
use tokio::time::Instant;

/// Buckets from a cache lookup to the longest sensible attempt.
const TASK_SECONDS: &[f64] = &[0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];
/// Buckets from a claim over loopback to the statement timeout.
const CLAIM_SECONDS: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 5.0];
const BATCH_SIZES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

pub(crate) struct Metrics {
    registry: Registry,
    settled: IntCounterVec,
    task_seconds: HistogramVec,
    claim_seconds: Histogram,
    claimed: IntCounter,
    batch: Histogram,
    running: IntGauge,
    allocated: IntGauge,
    capacity: IntGauge,
    heartbeats_failed: IntCounter,
    lease_lost: IntCounter,
    errors: IntCounterVec,
    maintenance: IntCounterVec,
    locks_held: IntGauge,
    partitions: Partitions,
}

/// Ages of partitions as last read, adjusted by the time since. The gauges are absent until the first
/// reading.
struct Partitions {
    left: Gauge,
    oldest: Gauge,
    last_seen: Mutex<Option<(Instant, PartitionStats)>>,
    registered: Once,
}

impl Partitions {
    fn update(&self, registry: &Registry) {
        let Some((at, stats)) = *self.last_seen.lock().unwrap_or_else(PoisonError::into_inner) else {
            return;
        };
        let since = at.elapsed().as_secs_f64();
        self.left.set(stats.left_seconds - since);
        self.oldest.set(stats.oldest_seconds + since);
        self.registered.call_once(|| {
            for gauge in [&self.left, &self.oldest] {
                if let Err(error) = registry.register(Box::new(gauge.clone())) {
                    tracing::error!(%error, "cannot register a metric of partitions");
                }
            }
        });
    }
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("rowlock_worker_{name}"), help);
        let times = |name: &str, help: &str, buckets: &[f64]| {
            HistogramOpts::new(format!("rowlock_worker_{name}"), help).buckets(buckets.to_vec())
        };
        let metrics = Self {
            registry: Registry::new(),
            settled: IntCounterVec::new(
                opts("tasks_settled_total", "Tasks settled, by outcome"),
                &["outcome"],
            )?,
            task_seconds: HistogramVec::new(
                times("task_duration_seconds", "Time that the handler took for one attempt", TASK_SECONDS),
                &["outcome"],
            )?,
            claim_seconds: Histogram::with_opts(times(
                "claim_duration_seconds",
                "Time that the database took for one claim",
                CLAIM_SECONDS,
            ))?,
            claimed: IntCounter::with_opts(opts("tasks_claimed_total", "Tasks claimed"))?,
            batch: Histogram::with_opts(times("settle_batch_size", "Outcomes per settlement", BATCH_SIZES))?,
            running: IntGauge::with_opts(opts("running_tasks", "Tasks that run now"))?,
            allocated: IntGauge::with_opts(opts("allocated_slots", "Slots that this instance may use now"))?,
            capacity: IntGauge::with_opts(opts("capacity_slots", "Slots that this instance has"))?,
            heartbeats_failed: IntCounter::with_opts(opts(
                "heartbeats_failed_total",
                "Heartbeats that failed",
            ))?,
            lease_lost: IntCounter::with_opts(opts(
                "lease_lost_total",
                "Outcomes discarded because the lease was lost",
            ))?,
            errors: IntCounterVec::new(
                opts("errors_total", "Errors of the database and the handler, by kind"),
                &["kind"],
            )?,
            maintenance: IntCounterVec::new(
                opts(
                    "maintenance_operations_total",
                    "Tasks and partitions that maintenance processed, by operation",
                ),
                &["operation"],
            )?,
            locks_held: IntGauge::with_opts(opts(
                "locks_held",
                "Rowlock locks that another session has held for over 30 s",
            ))?,
            partitions: Partitions {
                left: Gauge::with_opts(opts(
                    "partitions_left_seconds",
                    "Time until the last existing partition ends",
                ))?,
                oldest: Gauge::with_opts(opts(
                    "oldest_partition_age_seconds",
                    "Time since the oldest partition of tasks ended",
                ))?,
                last_seen: Mutex::default(),
                registered: Once::new(),
            },
        };
        metrics.register()?;
        // Present from the start, so that a rate includes the first event.
        for outcome in ["complete", "retry", "dead", "snooze", "release", "cancel"] {
            metrics.settled.with_label_values(&[outcome]);
        }
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(self.settled.clone()))?;
        self.registry.register(Box::new(self.task_seconds.clone()))?;
        self.registry.register(Box::new(self.claim_seconds.clone()))?;
        self.registry.register(Box::new(self.claimed.clone()))?;
        self.registry.register(Box::new(self.batch.clone()))?;
        self.registry.register(Box::new(self.running.clone()))?;
        self.registry.register(Box::new(self.allocated.clone()))?;
        self.registry.register(Box::new(self.capacity.clone()))?;
        self.registry.register(Box::new(self.heartbeats_failed.clone()))?;
        self.registry.register(Box::new(self.lease_lost.clone()))?;
        self.registry.register(Box::new(self.errors.clone()))?;
        self.registry.register(Box::new(self.maintenance.clone()))?;
        self.registry.register(Box::new(self.locks_held.clone()))
    }

    /// The metrics in Prometheus' text format.
    pub(crate) fn render(&self) -> Result<String, prometheus::Error> {
        self.partitions.update(&self.registry);
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    pub(crate) fn set_slots(&self, running: usize, allocated: u32, capacity: u32) {
        self.running.set(i64::try_from(running).unwrap_or(i64::MAX));
        self.allocated.set(i64::from(allocated));
        self.capacity.set(i64::from(capacity));
    }

    pub(crate) fn record_attempt(&self, outcome: &'static str, took: Duration) {
        self.task_seconds.with_label_values(&[outcome]).observe(took.as_secs_f64());
    }

    pub(crate) fn claimed(&self, took: Duration, tasks: usize) {
        self.claim_seconds.observe(took.as_secs_f64());
        self.claimed.inc_by(count(tasks));
    }

    pub(crate) fn settle_batch(&self, tasks: usize) {
        self.batch.observe(f64::from(u32::try_from(tasks).unwrap_or(u32::MAX)));
    }

    pub(crate) fn settled(&self, outcome: &'static str) {
        self.settled.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn lease_lost(&self) {
        self.lease_lost.inc();
    }

    pub(crate) fn heartbeat_failed(&self) {
        self.heartbeats_failed.inc();
    }

    pub(crate) fn error(&self, kind: &'static str) {
        self.errors.with_label_values(&[kind]).inc();
    }

    pub(crate) fn record_maintenance(&self, report: &MaintenanceReport) {
        let operations = [
            ("move_due", report.due_moved),
            ("move_missed", report.missed_moved),
            ("rescue", report.rescued),
            ("drop_partition", report.partitions_dropped),
        ];
        for (operation, done) in operations {
            if 0 < done {
                self.maintenance.with_label_values(&[operation]).inc_by(done);
            }
        }
        if let Some(locks) = report.locks_held {
            self.locks_held.set(i64::try_from(locks).unwrap_or(i64::MAX));
        }
        if let Some(stats) = report.partitions {
            *self.partitions.last_seen.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((Instant::now(), stats));
        }
    }

    #[cfg(test)]
    pub(crate) fn settled_so_far(&self, outcome: &'static str) -> u64 {
        self.settled.with_label_values(&[outcome]).get()
    }

    #[cfg(test)]
    pub(crate) fn lease_lost_so_far(&self) -> u64 {
        self.lease_lost.get()
    }
}

fn count(tasks: usize) -> u64 {
    u64::try_from(tasks).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_the_prefix_and_outcomes_are_present_from_the_start() {
        let text = Metrics::new().unwrap().render().unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("rowlock_worker_"), "{line}");
        }
        assert!(text.contains("rowlock_worker_tasks_settled_total{outcome=\"dead\"} 0"), "{text}");
    }

    fn value(metrics: &Metrics, name: &str) -> Option<f64> {
        let text = metrics.render().unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_left_in_partitions_appears_when_first_read_and_falls_until_read_again() {
        let metrics = Metrics::new().unwrap();
        // Not 0 before the first reading: that would raise an alarm.
        assert_eq!(value(&metrics, "rowlock_worker_partitions_left_seconds"), None);
        let partitions = Some(PartitionStats { left_seconds: 1000.0, oldest_seconds: 10.0 });
        metrics.record_maintenance(&MaintenanceReport { partitions, ..MaintenanceReport::default() });
        assert_eq!(value(&metrics, "rowlock_worker_partitions_left_seconds"), Some(1000.0));
        metrics.record_maintenance(&MaintenanceReport::default());
        tokio::time::advance(Duration::from_mins(25)).await;
        assert_eq!(value(&metrics, "rowlock_worker_partitions_left_seconds"), Some(-500.0));
        assert_eq!(value(&metrics, "rowlock_worker_oldest_partition_age_seconds"), Some(1510.0));
    }
}
