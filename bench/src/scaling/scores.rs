//! What replays measured, as it is written to `target/bench/scaling.json` and read from it again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rowlock_simulation::{LawKind, Score};
use serde::{Deserialize, Serialize};

use super::families::Kind;

/// The scores of all laws for one family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scored {
    pub(crate) family: String,
    pub(crate) kind: Kind,
    pub(crate) loads: Vec<ScoredLoad>,
}

/// The scores of all laws for one load, by the names of the laws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScoredLoad {
    pub(crate) seed: u64,
    pub(crate) tasks: usize,
    pub(crate) laws: BTreeMap<String, Figures>,
}

/// What one law does with one load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// How long tasks wait to start.
    pub(crate) p50_seconds: f64,
    pub(crate) p95_seconds: f64,
    pub(crate) p99_seconds: f64,
    pub(crate) max_seconds: f64,
    /// The slots of all pods times the hours from being asked for until they were gone.
    pub(crate) worker_hours: f64,
    /// The share of them that ran a task.
    pub(crate) busy_share: f64,
    /// How often the number of pods turned, of the queue where it did most often: the mean, and the most.
    pub(crate) reversals_per_minute: f64,
    pub(crate) most_reversals_in_a_minute: u32,
    /// Tasks that had not started at the end.
    pub(crate) not_started: u64,
    /// The longest time for which a queue with available tasks had no pod while idle pods of others held the
    /// budget.
    pub(crate) longest_starvation_seconds: f64,
}

impl From<Score> for Figures {
    fn from(score: Score) -> Self {
        Self {
            p50_seconds: score.p50_wait,
            p95_seconds: score.p95_wait,
            p99_seconds: score.p99_wait,
            max_seconds: score.max_wait,
            worker_hours: score.worker_hours,
            busy_share: score.busy_share,
            reversals_per_minute: score.reversals_per_minute,
            most_reversals_in_a_minute: u32::try_from(score.most_reversals_in_a_minute).unwrap_or(u32::MAX),
            not_started: score.not_started,
            longest_starvation_seconds: score.starved_seconds,
        }
    }
}

impl ScoredLoad {
    pub(crate) fn of(&self, law: LawKind) -> Option<&Figures> {
        self.laws.get(law.name())
    }
}

impl Scored {
    /// The mean of a figure over the loads that a law replayed.
    pub(crate) fn mean(&self, law: LawKind, figure: impl Fn(&Figures) -> f64) -> Option<f64> {
        let figures: Vec<f64> = self.loads.iter().filter_map(|load| load.of(law)).map(figure).collect();
        (!figures.is_empty()).then(|| figures.iter().sum::<f64>() / count(figures.len()))
    }
}

/// The geometric mean; none of nothing.
pub(crate) fn geometric_mean(values: &[f64]) -> Option<f64> {
    let logarithms: f64 = values.iter().map(|value| value.ln()).sum();
    (!values.is_empty()).then(|| (logarithms / count(values.len())).exp())
}

#[expect(clippy::cast_precision_loss, reason = "there are less than a million of anything")]
fn count(number: usize) -> f64 {
    number as f64
}

/// The scores in the JSON of an earlier run.
pub(crate) fn read(path: &Path) -> Result<Vec<Scored>> {
    #[derive(Deserialize)]
    struct Written {
        families: Vec<Scored>,
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let written: Written = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a result of `rowlock-bench scaling`", path.display()))?;
    Ok(written.families)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_geometric_mean_of_a_half_and_two_is_one() {
        assert!((geometric_mean(&[0.5, 2.0]).unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(geometric_mean(&[]), None);
    }

    #[test]
    fn scores_are_read_as_they_are_written() {
        let laws = BTreeMap::from([(LawKind::Rowlock.name().to_owned(), Figures::default())]);
        let loads = vec![ScoredLoad { seed: 1, tasks: 10, laws }];
        let scored = vec![Scored { family: "wave".to_owned(), kind: Kind::Changing, loads }];
        let text = serde_json::json!({ "rows": [], "families": scored }).to_string();
        let path = std::env::temp_dir().join(format!("rowlock-scores-{}.json", std::process::id()));
        fs::write(&path, text).unwrap();
        let read = read(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap(), scored);
    }
}
