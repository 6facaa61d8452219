//! The results as a table and as JSON.

use super::curve::{Curve, Measure};
use crate::table::table;
use rowlock_simulation::{LawKind, Score};
use serde_json::{Value, json};

const HEADER: [&str; 8] =
    ["LAW", "P50-S", "P95-S", "P99-S", "MAX-S", "WORKER-HOURS", "BUSY-%", "NOT-STARTED"];

/// What a law made of the load.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) law: LawKind,
    pub(super) score: Score,
    pub(super) curve: Curve,
}

/// A line per law: the waits in seconds, and the cost.
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
        "law": one.law.name(),
        "tasks": score.tasks,
        "waitSeconds": {
            "p50": score.p50_wait,
            "p95": score.p95_wait,
            "p99": score.p99_wait,
            "max": score.max_wait,
        },
        "workerHours": score.worker_hours,
        "busyShare": score.busy_share,
        "completed": score.completed,
        "notStarted": score.not_started,
        "reversalsPerMinute": score.reversals_per_minute,
        "curve": {
            "backlog": points(Measure::Backlog),
            "workers": points(Measure::Workers),
            "oldestWaitSeconds": points(Measure::Wait),
        },
    })
}

/// Three digits or so.
pub(super) fn rounded(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Whole seconds as people write them, with the two largest units.
pub(super) fn duration(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s")];
    let (mut rest, mut parts) = (seconds.round(), Vec::new());
    for (length, name) in units {
        let whole = (rest / length).floor();
        rest -= whole * length;
        if whole > 0.0 || !parts.is_empty() {
            parts.push((whole, name));
        }
    }
    let shown = parts.iter().take(2).filter(|(whole, _)| *whole > 0.0);
    let text = shown.map(|(whole, name)| format!("{whole:.0}{name}")).collect::<Vec<_>>().concat();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        let shown = [0.0, 59.6, 600.0, 3661.0, 90_061.0].map(duration);
        assert_eq!(shown, ["0s", "1m", "10m", "1h1m", "1d1h"]);
    }

    #[test]
    fn peaks_have_few_digits() {
        assert_eq!([0.0, 3.0, 3.123, 1234.5].map(rounded), ["0", "3", "3.1", "1234"]);
    }
}
