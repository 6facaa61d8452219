//! Prometheus metrics of an instance. Every series has the label `queue`, and every label has a bounded
//! number of values.

mod partitions;
mod task_types;

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{
    Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder,
    register_gauge_with_registry as float_gauge, register_histogram_with_registry as histogram,
    register_int_counter_vec_with_registry as counters, register_int_counter_with_registry as counter,
    register_int_gauge_with_registry as gauge,
};
use rowlock_daemon::program_metrics;
use rowlock_queue::{Error, MaintenanceReport};

use self::partitions::Partitions;
use self::task_types::TaskTypes;
pub(crate) use self::task_types::TypeLabel;
use crate::handler::outcome::Answer;

/// Buckets from a cache lookup to the longest sensible attempt.
const TASK_SECONDS: &[f64] = &[0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];
/// Buckets from the precision of `ready.since`, which is a second, to a backlog of an hour.
const WAIT_SECONDS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
/// `ready.since` is the beginning of a second, so a task may have waited for up to this much less. A task in
/// doubt is not late.
const WAIT_PRECISION: Duration = Duration::from_secs(1);
/// Buckets from a statement over loopback to the statement timeout.
const STATEMENT_SECONDS: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 5.0];
const BATCH_SIZES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

/// Errors that are not of the database's connection.
const OTHER_ERRORS: [&str; 3] = ["handler_unreachable", "payload_missing", "payload_unreadable"];
const MAINTENANCE_OPERATIONS: [&str; 4] = ["move_due", "move_missed", "rescue", "drop_partition"];

/// What becomes of a span.
const EXPORTED: &str = "exported";
const LOST: &str = "lost";
const REJECTED: &str = "rejected";

pub(crate) struct Metrics {
    registry: Registry,
    program: Registry,
    pub(crate) types: TaskTypes,
    task_seconds: Histogram,
    wait_seconds: Histogram,
    started_late: IntCounter,
    claim_seconds: Histogram,
    claimed: IntCounter,
    settle_seconds: Histogram,
    batch: Histogram,
    unwritten: IntGauge,
    running: IntGauge,
    ahead: IntGauge,
    allocated: IntGauge,
    capacity: IntGauge,
    draining: IntGauge,
    handler_reachable: IntGauge,
    heartbeats_failed: IntCounter,
    last_heartbeat: Gauge,
    lease_lost: IntCounter,
    handler_ended: IntCounter,
    errors: IntCounterVec,
    maintenance: IntCounterVec,
    locks_held: IntGauge,
    spans: IntCounterVec,
    partitions: Partitions,
}

fn with_buckets(
    name: &str,
    help: &str,
    buckets: &[f64],
    r: &Registry,
) -> Result<Histogram, prometheus::Error> {
    histogram!(name, help, buckets.to_vec(), r)
}

impl Metrics {
    pub(crate) fn new(queue: &str) -> Result<Self, prometheus::Error> {
        let labels = HashMap::from([("queue".to_owned(), queue.to_owned())]);
        let registry = Registry::new_custom(Some("rowlock_worker".to_owned()), Some(labels))?;
        let r = &registry;
        let task = "Time that the handler took for one attempt";
        let wait = "Time from when a task became available until its handler was called, to the second";
        let late = "Calls of the handler for tasks that had waited for longer than the queue's wait target";
        let claim = "Time that the database took for one claim, with payloads";
        let reachable = "1: the port of the handler accepts connections, so that tasks are claimed";
        let settle = "Time that the database took for one settlement";
        let heartbeat = "When the last heartbeat was answered; before the first one, when the worker started";
        let ended = "Ends of the handler's process while tasks ran";
        let errors = "Errors of the database and the handler, by kind";
        let spans = "Spans for the collector of traces, by result";
        let operations = "Tasks and partitions that maintenance processed, by operation";
        let metrics = Self {
            program: program_metrics("worker", &[("queue", queue)])?,
            types: TaskTypes::new(r)?,
            task_seconds: with_buckets("task_duration_seconds", task, TASK_SECONDS, r)?,
            wait_seconds: with_buckets("task_wait_seconds", wait, WAIT_SECONDS, r)?,
            started_late: counter!("tasks_started_late_total", late, r)?,
            claim_seconds: with_buckets("claim_duration_seconds", claim, STATEMENT_SECONDS, r)?,
            claimed: counter!("tasks_claimed_total", "Tasks claimed", r)?,
            settle_seconds: with_buckets("settle_duration_seconds", settle, STATEMENT_SECONDS, r)?,
            batch: with_buckets("settle_batch_size", "Outcomes per settlement", BATCH_SIZES, r)?,
            unwritten: gauge!("unwritten_outcomes", "Outcomes that are not yet in the database", r)?,
            running: gauge!("running_tasks", "Tasks that run now", r)?,
            ahead: gauge!("claimed_ahead_tasks", "Tasks that are claimed and wait for a slot", r)?,
            allocated: gauge!("allocated_slots", "Slots that this instance may use now", r)?,
            capacity: gauge!("capacity_slots", "Slots that this instance has", r)?,
            draining: gauge!("draining", "1: this worker finishes its tasks and claims no more", r)?,
            handler_reachable: gauge!("handler_reachable", reachable, r)?,
            heartbeats_failed: counter!("heartbeats_failed_total", "Heartbeats that failed", r)?,
            last_heartbeat: float_gauge!("last_heartbeat_timestamp_seconds", heartbeat, r)?,
            lease_lost: counter!("lease_lost_total", "Outcomes discarded because the lease was lost", r)?,
            handler_ended: counter!("handler_ended_total", ended, r)?,
            errors: counters!("errors_total", errors, &["kind"], r)?,
            maintenance: counters!("maintenance_operations_total", operations, &["operation"], r)?,
            locks_held: gauge!("locks_held", "Rowlock locks that another session has held for over 30 s", r)?,
            spans: counters!("spans_total", spans, &["result"], r)?,
            partitions: Partitions::new()?,
            registry,
        };
        // Present from the start, so that a rate includes the first event.
        for kind in Error::METRIC_LABELS.into_iter().chain(OTHER_ERRORS) {
            metrics.errors.with_label_values(&[kind]);
        }
        for operation in MAINTENANCE_OPERATIONS {
            metrics.maintenance.with_label_values(&[operation]);
        }
        for result in [EXPORTED, LOST, REJECTED] {
            metrics.spans.with_label_values(&[result]);
        }
        metrics.heartbeat_answered();
        Ok(metrics)
    }

    /// The metrics in Prometheus' text format.
    pub(crate) fn render(&self) -> Result<String, prometheus::Error> {
        self.partitions.update(&self.registry);
        let mut text = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        TextEncoder::new().encode_utf8(&self.program.gather(), &mut text)?;
        Ok(text)
    }

    pub(crate) fn set_slots(&self, running: usize, ahead: usize, allocated: u32, capacity: u32) {
        self.running.set(signed(running));
        self.ahead.set(signed(ahead));
        self.allocated.set(i64::from(allocated));
        self.capacity.set(i64::from(capacity));
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.draining.set(i64::from(draining));
    }

    /// The collector took these spans.
    pub(crate) fn spans_exported(&self, spans: usize) {
        self.spans.with_label_values(&[EXPORTED]).inc_by(count(spans));
    }

    /// The collector refused these spans.
    pub(crate) fn spans_rejected(&self, spans: usize) {
        self.spans.with_label_values(&[REJECTED]).inc_by(count(spans));
    }

    /// The collector was away or too slow for these spans.
    pub(crate) fn spans_lost(&self, spans: usize) {
        self.spans.with_label_values(&[LOST]).inc_by(count(spans));
    }

    /// Whether the handler's port accepts connections.
    pub(crate) fn set_handler_reachable(&self, reachable: bool) {
        self.handler_reachable.set(i64::from(reachable));
    }

    /// The handler is about to be called. `waited`: since the task was available, if that is known. `target`:
    /// how long it should have waited at most.
    pub(crate) fn attempt_started(&self, task_type: &TypeLabel, waited: Option<Duration>, target: Duration) {
        self.types.started(task_type);
        let Some(waited) = waited else { return };
        self.wait_seconds.observe(waited.as_secs_f64());
        if target + WAIT_PRECISION <= waited {
            self.started_late.inc();
        }
    }

    /// An attempt ended. `answer`: the handler's, unless the attempt was interrupted.
    pub(crate) fn attempt_ended(&self, task_type: &TypeLabel, answer: Option<&Answer>, took: Duration) {
        self.types.busy(task_type, took);
        let Some(answer) = answer else { return };
        if let Some(reason) = answer.failure_reason() {
            self.types.failed(task_type, reason);
        }
        if !matches!(answer, Answer::Unreachable { .. }) {
            self.task_seconds.observe(took.as_secs_f64());
        }
    }

    pub(crate) fn claimed(&self, took: Duration, tasks: usize) {
        self.claim_seconds.observe(took.as_secs_f64());
        self.claimed.inc_by(count(tasks));
    }

    /// An attempt has an outcome, which is to be written.
    pub(crate) fn outcome_known(&self) {
        self.unwritten.inc();
    }

    /// These outcomes were written, or given up.
    pub(crate) fn outcomes_written(&self, outcomes: usize) {
        self.unwritten.sub(signed(outcomes));
    }

    pub(crate) fn settle_batch(&self, took: Duration, tasks: usize) {
        self.settle_seconds.observe(took.as_secs_f64());
        self.batch.observe(f64::from(u32::try_from(tasks).unwrap_or(u32::MAX)));
    }

    pub(crate) fn settled(&self, task_type: &TypeLabel, outcome: &'static str) {
        self.types.settled(task_type, outcome);
    }

    pub(crate) fn lease_lost(&self) {
        self.lease_lost.inc();
    }

    pub(crate) fn handler_ended(&self) {
        self.handler_ended.inc();
    }

    pub(crate) fn heartbeat_answered(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_heartbeat.set(now.as_secs_f64());
    }

    pub(crate) fn heartbeat_failed(&self) {
        self.heartbeats_failed.inc();
    }

    pub(crate) fn error(&self, kind: &'static str) {
        self.errors.with_label_values(&[kind]).inc();
    }

    pub(crate) fn record_maintenance(&self, report: &MaintenanceReport) {
        let done = [report.due_moved, report.missed_moved, report.rescued, report.partitions_dropped];
        for (operation, done) in MAINTENANCE_OPERATIONS.into_iter().zip(done) {
            self.maintenance.with_label_values(&[operation]).inc_by(done);
        }
        if let Some(locks) = report.locks_held {
            self.locks_held.set(i64::try_from(locks).unwrap_or(i64::MAX));
        }
        if let Some(stats) = report.partitions {
            self.partitions.note(stats);
        }
    }

    #[cfg(test)]
    pub(crate) fn settled_so_far(&self, outcome: &'static str) -> u64 {
        self.types.settled_so_far(outcome)
    }

    #[cfg(test)]
    pub(crate) fn handler_ended_so_far(&self) -> u64 {
        self.handler_ended.get()
    }

    #[cfg(test)]
    pub(crate) fn lease_lost_so_far(&self) -> u64 {
        self.lease_lost.get()
    }

    #[cfg(test)]
    pub(crate) fn unwritten_now(&self) -> i64 {
        self.unwritten.get()
    }
}

fn count(tasks: usize) -> u64 {
    u64::try_from(tasks).unwrap_or(u64::MAX)
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
