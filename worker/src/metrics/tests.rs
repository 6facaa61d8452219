//! What a worker exports: names, labels, and how many series.

use std::collections::BTreeSet;

use prometheus::proto::LabelPair;
use rowlock_queue::PartitionStats;

use super::*;

/// The series of a worker without those of task types, and those of one type.
const SERIES_MAX: usize = 130;
const SERIES_PER_TYPE: usize = 16;
/// The wait target of the queue.
const TARGET: Duration = Duration::from_secs(5);

fn metrics() -> Metrics {
    Metrics::new("mail").unwrap()
}

fn series(metrics: &Metrics) -> Vec<String> {
    let text = metrics.render().unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn value(metrics: &Metrics, name: &str) -> Option<f64> {
    series(metrics).iter().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn partitions(left_seconds: f64, oldest_seconds: f64) -> MaintenanceReport {
    let partitions = Some(PartitionStats { left_seconds, oldest_seconds });
    MaintenanceReport { partitions, ..MaintenanceReport::default() }
}

#[test]
fn every_series_has_a_known_prefix_and_the_queue() {
    let metrics = metrics();
    metrics.record_maintenance(&partitions(1.0, 1.0));
    for line in series(&metrics) {
        let known = ["rowlock_worker_", "rowlock_build_info{", "process_"];
        assert!(known.iter().any(|prefix| line.starts_with(prefix)), "{line}");
        assert!(line.contains("queue=\"mail\""), "{line}");
    }
}

#[test]
fn what_an_alert_uses_is_there_with_zero_from_the_start() {
    let metrics = metrics();
    for name in [
        "tasks_started_total{type=\"other\",queue=\"mail\"}",
        "tasks_settled_total{outcome=\"dead\",type=\"other\",queue=\"mail\"}",
        "attempt_errors_total{reason=\"timeout\",type=\"other\",queue=\"mail\"}",
        "task_wait_seconds_count{queue=\"mail\"}",
        "errors_total{kind=\"unreachable\",queue=\"mail\"}",
        "errors_total{kind=\"payload_missing\",queue=\"mail\"}",
        "maintenance_operations_total{operation=\"rescue\",queue=\"mail\"}",
        "unwritten_outcomes{queue=\"mail\"}",
        "draining{queue=\"mail\"}",
        "tasks_started_late_total{queue=\"mail\"}",
    ] {
        assert_eq!(value(&metrics, &format!("rowlock_worker_{name}")), Some(0.0), "{name}");
    }
    for error in [Error::Timeout, Error::Gone, Error::Login(String::new()), Error::SchemaMissing] {
        assert!(Error::METRIC_LABELS.contains(&error.metric_label()), "{error}");
    }
}

#[test]
fn the_number_of_series_is_bounded_and_further_types_count_as_other() {
    let metrics = metrics();
    metrics.record_maintenance(&partitions(1.0, 1.0));
    let at_start = series(&metrics).len();
    assert!(at_start <= SERIES_MAX, "{at_start}");
    metrics.attempt_started(&metrics.types.label("one"), None, TARGET);
    assert_eq!(series(&metrics).len(), at_start + SERIES_PER_TYPE);
    for number in 0..1000 {
        let label = metrics.types.label(&format!("type-{number}"));
        metrics.attempt_started(&label, Some(Duration::from_secs(3)), TARGET);
        metrics.attempt_ended(&label, Some(&Answer::failed("no")), Duration::from_secs(1));
        metrics.settled(&label, "retry");
    }
    assert_eq!(series(&metrics).len(), at_start + 20 * SERIES_PER_TYPE);
    let other = "rowlock_worker_tasks_started_total{type=\"other\",queue=\"mail\"}";
    assert_eq!(value(&metrics, other), Some(1000.0 - 19.0));
    metrics.attempt_started(&metrics.types.label("one"), None, TARGET);
    let one = "rowlock_worker_tasks_started_total{type=\"one\",queue=\"mail\"}";
    assert_eq!(value(&metrics, one), Some(2.0));
}

#[test]
fn a_type_with_quotes_and_newlines_stays_one_line() {
    let metrics = metrics();
    let before = series(&metrics).len();
    metrics.attempt_started(&metrics.types.label("a\"} 1\nb\\"), None, TARGET);
    let after = series(&metrics);
    assert_eq!(after.len(), before + SERIES_PER_TYPE);
    let name = r#"rowlock_worker_tasks_started_total{type="a\"} 1\nb\\",queue="mail"} 1"#;
    assert!(after.iter().any(|line| line == name), "{after:?}");
}

#[test]
fn an_attempt_counts_by_type_with_its_reason_and_its_time() {
    let metrics = metrics();
    let label = metrics.types.label("send");
    metrics.attempt_started(&label, Some(Duration::from_secs(7)), TARGET);
    metrics.attempt_ended(&label, Some(&Answer::Broken { error: "reset".into() }), Duration::from_secs(2));
    metrics.attempt_ended(&label, Some(&Answer::Done { result: None }), Duration::from_secs(3));
    metrics.attempt_ended(&label, None, Duration::from_secs(5));
    for (name, expected) in [
        ("attempt_errors_total{reason=\"broken\",type=\"send\",queue=\"mail\"}", 1.0),
        ("busy_seconds_total{type=\"send\",queue=\"mail\"}", 10.0),
        ("task_duration_seconds_sum{queue=\"mail\"}", 5.0),
        ("task_wait_seconds_bucket{queue=\"mail\",le=\"5\"}", 0.0),
        ("task_wait_seconds_bucket{queue=\"mail\",le=\"10\"}", 1.0),
    ] {
        assert_eq!(value(&metrics, &format!("rowlock_worker_{name}")), Some(expected), "{name}");
    }
}

#[test]
fn a_task_is_late_once_it_has_surely_waited_for_longer_than_the_wait_target() {
    let metrics = metrics();
    let late = "rowlock_worker_tasks_started_late_total{queue=\"mail\"}";
    for (waited, expected) in [(None, 0.0), (Some(5000), 0.0), (Some(5999), 0.0), (Some(6000), 1.0)] {
        metrics.attempt_started(&TypeLabel::default(), waited.map(Duration::from_millis), TARGET);
        assert_eq!(value(&metrics, late), Some(expected), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_left_in_partitions_appears_when_first_read_and_falls_until_read_again() {
    let metrics = metrics();
    let left = "rowlock_worker_partitions_left_seconds{queue=\"mail\"}";
    // Absent instead of 0 before the first reading: a 0 would raise an alarm.
    assert_eq!(value(&metrics, left), None);
    metrics.record_maintenance(&partitions(1000.0, 10.0));
    assert_eq!(value(&metrics, left), Some(1000.0));
    metrics.record_maintenance(&MaintenanceReport::default());
    tokio::time::advance(Duration::from_mins(25)).await;
    assert_eq!(value(&metrics, left), Some(-500.0));
    let oldest = "rowlock_worker_oldest_partition_age_seconds{queue=\"mail\"}";
    assert_eq!(value(&metrics, oldest), Some(1510.0));
    metrics.record_maintenance(&partitions(1000.0, -9550.0));
    assert_eq!(value(&metrics, oldest), Some(0.0), "a young database");
}

/// The tables of the page list exactly what is exported, with type and labels.
#[test]
fn the_page_lists_the_metrics_of_the_worker() {
    let metrics = metrics();
    metrics.record_maintenance(&partitions(1.0, 1.0));
    metrics.render().unwrap();
    let families = metrics.registry.gather().into_iter().chain(metrics.program.gather());
    let rows: BTreeSet<String> = families
        .map(|family| {
            let labels = family.get_metric().first().map_or(&[][..], |metric| metric.get_label());
            let own = labels.iter().map(LabelPair::name).filter(|name| *name != "queue");
            let labels: Vec<&str> = own.collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            format!("| `{}{labels}` | {kind} | ", family.name())
        })
        .collect();
    let page = include_str!("../../../docs/observability.md");
    for row in &rows {
        assert!(page.lines().any(|line| line.starts_with(row)), "docs/observability.md lacks {row}");
    }
    for line in page.lines().filter(|line| line.starts_with("| `rowlock_worker_")) {
        assert!(rows.iter().any(|row| line.starts_with(row)), "not exported: {line}");
    }
}
