//! `rowlock status`

use crate::args::Status;
use crate::database;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::table;
use rowlock_queue::QueueStats;
use serde_json::{Value, json};
use std::time::Duration;

const WATCH_INTERVAL: Duration = Duration::from_secs(1);

const HEADER: [&str; 11] = [
    "QUEUE",
    "AVAILABLE",
    "SCHEDULED",
    "RETRYABLE",
    "SUSPECTS",
    "RUNNING",
    "DEAD",
    "OLDEST",
    "INSTANCES",
    "BUSY",
    "TOTAL-SLOTS",
];

pub(crate) async fn run(args: Status, output: Output) -> Result<(), Failure> {
    let Status { database, watch } = args;
    let db = database::open_to_read(database).await?;
    loop {
        let stats = rowlock_queue::queue_stats(&db).await;
        match stats {
            Ok(stats) => show(&stats, watch, output)?,
            // `--watch` continues after a restart of the database.
            Err(error) if watch && error.is_transient() => output.failure(&error.into()),
            Err(error) => return Err(error.into()),
        }
        if !watch {
            break;
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
    Ok(())
}

fn show(stats: &[QueueStats], watch: bool, output: Output) -> Result<(), Failure> {
    if watch {
        output.clear();
    }
    let text = || {
        if stats.is_empty() {
            return "no queues yet: apply a TaskQueue, or run `rowlock dev -f DIR`".to_owned();
        }
        table(&HEADER, &stats.iter().map(row).collect::<Vec<_>>())
    };
    output.result(text, &Value::Array(stats.iter().map(value).collect()))
}

fn row(queue: &QueueStats) -> Vec<String> {
    let oldest = oldest(queue);
    let name = if queue.paused { format!("{} (paused)", queue.name) } else { queue.name.clone() };
    let mut row = vec![name];
    row.extend([queue.available, queue.scheduled, queue.retryable].map(|n| n.to_string()));
    row.push(suspects(queue));
    row.extend([queue.running, queue.dead].map(|n| n.to_string()));
    row.push(oldest);
    row.extend([queue.instances, queue.busy, queue.total_workers.into()].map(|n| n.to_string()));
    row
}

/// How many wait to run alone, and for how long the first one has waited.
fn suspects(queue: &QueueStats) -> String {
    match queue.oldest_suspect_seconds {
        Some(seconds) => format!("{} for {seconds:.1}", queue.suspects),
        None => queue.suspects.to_string(),
    }
}

/// The longest wait, per priority if tasks of several priorities wait: a short wait of the first priority
/// would hide the longer ones of the others.
fn oldest(queue: &QueueStats) -> String {
    let waits: Vec<String> = (0..)
        .zip(queue.oldest_by_priority)
        .filter_map(|(priority, seconds)| Some(format!("{priority}:{:.1}", seconds?)))
        .collect();
    match (&waits[..], queue.oldest_available_seconds) {
        ([_, _, ..], _) => waits.join(" "),
        (_, Some(seconds)) => format!("{seconds:.1}"),
        (_, None) => "-".to_owned(),
    }
}

fn value(queue: &QueueStats) -> Value {
    json!({
        "queue": queue.name,
        "paused": queue.paused,
        "available": queue.available,
        "scheduled": queue.scheduled,
        "retryable": queue.retryable,
        "suspects": queue.suspects,
        "oldestSuspectSeconds": queue.oldest_suspect_seconds,
        "running": queue.running,
        "dead": queue.dead,
        "oldestAvailableSeconds": queue.oldest_available_seconds,
        "oldestSecondsByPriority": queue.oldest_by_priority,
        "instances": queue.instances,
        "allocated": queue.allocated,
        "busy": queue.busy,
        "workers": queue.total_workers,
        "arrivalsPerSecond": queue.arrivals_per_second(),
        "meanServiceSeconds": queue.mean_service_seconds(),
    })
}
