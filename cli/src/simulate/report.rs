//! The results as a table and as JSON.

use super::curve::{Curve, Measure};
use crate::table::table;
use rowlock_simulation::{LawKind, Score};
pub(super) use rowlock_simulation::{duration, rounded};
use serde_json::{Value, json};

const HEADER: [&str; 8] =
    ["AUTOSCALER", "P50-S", "P95-S", "P99-S", "MAX-S", "SLOT-HOURS", "BUSY-%", "NOT-STARTED"];

/// What an autoscaler made of the load.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) law: LawKind,
    pub(super) score: Score,
    pub(super) curve: Curve,
}

/// A line per autoscaler: the waits in seconds, and the cost.
pub(super) fn scores(all: &[Replayed]) -> String {
    table(&HEADER, &all.iter().map(row).collect::<Vec<_>>())
}

fn row(one: &Replayed) -> Vec<String> {
    let score = &one.score;
    let mut row = vec![one.law.name().to_owned()];
    let waits = [score.p50_wait, score.p95_wait, score.p99_wait, score.max_wait];
    row.extend(waits.map(|wait| format!("{wait:.2}")));
    row.push(format!("{:.2}", score.worker_hours));
    row.push(format!("{:.0}", 100.0 * score.busy_share));
    row.push(score.not_started.to_string());
    row
}

pub(super) fn value(one: &Replayed) -> Value {
    let score = &one.score;
    let points = |measure| one.curve.points(measure);
    json!({
        "autoscaler": one.law.name(),
        "tasks": score.tasks,
        "waitSeconds": {
            "p50": score.p50_wait,
            "p95": score.p95_wait,
            "p99": score.p99_wait,
            "max": score.max_wait,
        },
        "slotHours": score.worker_hours,
        "busyShare": score.busy_share,
        "completed": score.completed,
        "notStarted": score.not_started,
        "reversalsPerMinute": score.reversals_per_minute,
        "curve": {
            "backlog": points(Measure::Backlog),
            "slots": points(Measure::Slots),
            "oldestWaitSeconds": points(Measure::Wait),
        },
    })
}
