//! Prints rows, and writes them to `target/bench/main.json`, `operator.json`, `scaling.json` or
//! `autoscale.json`.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::scaling::Scored;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(".")
}

const MISSED: &str = "MISSED";

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// One row. `goal` applies to `ratio` if the row has a peer, otherwise to `value`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) value: Option<f64>,
    pub(crate) unit: &'static str,
    pub(crate) peer: Option<String>,
    pub(crate) peer_value: Option<f64>,
    pub(crate) ratio: Option<f64>,
    pub(crate) goal: Option<f64>,
    pub(crate) better: Better,
}

impl Row {
    pub(crate) fn without_peer(name: &str, value: f64, unit: &'static str, goal: Option<f64>) -> Self {
        let (name, value) = (name.to_owned(), Some(value));
        Self { name, value, unit, peer: None, peer_value: None, ratio: None, goal, better: Better::Lower }
    }

    pub(crate) fn with_peer(
        name: &str,
        value: f64,
        unit: &'static str,
        peer: &str,
        peer_value: f64,
        goal: f64,
    ) -> Self {
        Self {
            name: name.to_owned(),
            value: Some(value),
            unit,
            peer: Some(peer.to_owned()),
            peer_value: Some(peer_value),
            ratio: Some(value / peer_value),
            goal: Some(goal),
            better: Better::Higher,
        }
    }

    /// A row that this run does not measure.
    pub(crate) fn without_value(name: &str, unit: &'static str, goal: f64) -> Self {
        Self { value: None, ..Self::without_peer(name, 0.0, unit, Some(goal)) }
    }

    pub(crate) fn better(mut self, better: Better) -> Self {
        self.better = better;
        self
    }

    #[cfg(feature = "servers")]
    pub(crate) fn without_goal(self) -> Self {
        Self { goal: None, ..self }
    }

    pub(crate) fn peer_missing(mut self, why: &str) -> Self {
        (self.peer, self.peer_value, self.ratio) = (Some(why.to_owned()), None, None);
        self
    }

    pub(crate) fn is_missed(&self) -> bool {
        self.goal_result() == MISSED
    }

    fn goal_result(&self) -> &'static str {
        let measured = if self.peer.is_some() { self.ratio } else { self.value };
        match (measured, self.goal, self.better) {
            (_, None, _) => "",
            (None, Some(_), _) => "unavailable",
            (Some(measured), Some(goal), Better::Higher) if measured >= goal => "met",
            (Some(measured), Some(goal), Better::Lower) if measured <= goal => "met",
            _ => MISSED,
        }
    }

    fn line(&self) -> String {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), show);
        let goal = match (self.goal, self.better, self.peer.is_some()) {
            (None, ..) => String::new(),
            (Some(goal), Better::Higher, true) => format!("≥ {goal}×"),
            (Some(goal), Better::Lower, true) => format!("≤ {goal}×"),
            (Some(goal), Better::Higher, false) => format!("≥ {goal}"),
            (Some(goal), Better::Lower, false) => format!("≤ {goal}"),
        };
        format!(
            "{:<44} {:>10} {:<13} {:>10} {:>7} {:>8}  {:<11} {}",
            self.name,
            number(self.value),
            self.unit,
            number(self.peer_value),
            number(self.ratio),
            goal,
            self.goal_result(),
            self.peer.as_deref().unwrap_or_default(),
        )
    }
}

/// With two decimals, or without from a thousand up.
fn show(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The table of a run. It is written after every group, so that an interrupted run keeps its rows.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    rows: Vec<Row>,
    /// What the rows of `scaling` are computed from.
    #[serde(skip_serializing_if = "<[Scored]>::is_empty")]
    families: Vec<Scored>,
    /// What the rows of `autoscale` are computed from.
    #[serde(skip_serializing_if = "Value::is_null")]
    course: Value,
    #[serde(skip)]
    path: PathBuf,
}

impl Table {
    /// A partial or scaled run goes to another file, so that it does not replace the numbers of a complete
    /// run.
    pub(crate) fn new(name: &str, complete: bool) -> Result<Self> {
        let folder = root().join("target/bench");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let path = folder.join(if complete { format!("{name}.json") } else { format!("{name}-part.json") });
        Ok(Self { rows: Vec::new(), families: Vec::new(), course: Value::Null, path })
    }

    /// Writes the scores of families together with the rows that are added next.
    pub(crate) fn with_families(self, families: &[Scored]) -> Self {
        Self { families: families.to_vec(), ..self }
    }

    /// Writes how a load went together with the rows that are added next.
    #[cfg(feature = "servers")]
    pub(crate) fn with_course(self, course: Value) -> Self {
        Self { course, ..self }
    }

    /// The file that the table is written to, with another extension.
    #[cfg(feature = "servers")]
    pub(crate) fn beside(&self, extension: &str) -> PathBuf {
        self.path.with_extension(extension)
    }

    pub(crate) fn add(&mut self, rows: Vec<Row>) -> Result<()> {
        for row in &rows {
            eprintln!("{}", row.line());
        }
        self.rows.extend(rows);
        let json = serde_json::to_string_pretty(self)?;
        fs::write(&self.path, json + "\n").with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// The names of the rows whose goal is missed.
    #[cfg(feature = "servers")]
    pub(crate) fn missed(&self) -> Vec<&str> {
        self.rows.iter().filter(|row| row.is_missed()).map(|row| row.name.as_str()).collect()
    }

    pub(crate) fn print(&self) -> Result<()> {
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "\n{:<44} {:>10} {:<13} {:>10} {:>7} {:>8}  {:<11} peer",
            "row", "rowlock", "unit", "peer's", "ratio", "goal", ""
        )?;
        for row in &self.rows {
            writeln!(out, "{}", row.line())?;
        }
        writeln!(out, "\n{}", self.path.display())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_goal_of_a_row_with_a_peer_applies_to_the_ratio() {
        assert_eq!(Row::with_peer("r", 30.0, "tasks/s", "p", 10.0, 2.0).goal_result(), "met");
        assert_eq!(Row::with_peer("r", 15.0, "tasks/s", "p", 10.0, 2.0).goal_result(), "MISSED");
        assert_eq!(
            Row::with_peer("r", 15.0, "tasks/s", "p", 10.0, 2.0).peer_missing("none").goal_result(),
            "unavailable"
        );
        assert_eq!(Row::without_peer("r", 3.0, "ms", Some(3.0)).goal_result(), "met");
        assert_eq!(Row::without_peer("r", 3.1, "ms", Some(3.0)).goal_result(), "MISSED");
    }
}
