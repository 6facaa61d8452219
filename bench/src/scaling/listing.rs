//! The table of families: a line each, with the means of their loads.

use std::fmt::Write as _;
use std::io::{self, Write};

use anyhow::Result;
use rowlock_simulation::LawKind;

use super::families::{Family, Kind};
use super::goals::is_worse;
use super::scores::{Figures, Scored};

/// The columns of waits and of costs.
const COLUMNS: [(LawKind, &str); 5] = [
    (LawKind::Rowlock, "rowlock"),
    (LawKind::KedaDefault, "keda"),
    (LawKind::KedaTuned, "tuned"),
    (LawKind::Knative, "knative"),
    (LawKind::Oracle, "oracle"),
];

/// Prints what each family stands for.
pub(super) fn print_families(families: &[Family], seed: u64) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{:<20} {:<8} {:>7} {:>6}  stands for", "family", "kind", "tasks", "busy")?;
    for family in families {
        let load = family.load(seed);
        let tasks = load.queues.iter().flat_map(|queue| &queue.tasks);
        let (count, work) = tasks.fold((0, 0.0), |(count, work), task| (count + 1, work + task.service));
        let (name, kind, about) = (family.name, word(family.kind), family.about);
        writeln!(out, "{name:<20} {kind:<8} {count:>7} {:>6.1}  {about}", work / load.seconds)?;
    }
    Ok(())
}

/// Prints the scores: p95 waits in seconds, then slot-hours.
pub(super) fn print_scores(scored: &[Scored]) -> Result<()> {
    let mut out = io::stdout().lock();
    let header = columns(|_, name| name.to_owned());
    writeln!(out, "\n{:<20} {:<8} {:<40}  slot-hours", "", "", " p95 wait in seconds")?;
    writeln!(
        out,
        "{:<20} {:<8}{header} {header} {:>7} {:>5} {:>6} {:>7}",
        "family", "kind", "/oracle", "busy", "turns", "starved"
    )?;
    for family in scored {
        writeln!(out, "{}", line(family))?;
    }
    Ok(())
}

fn line(family: &Scored) -> String {
    let means = |figure: fn(&Figures) -> f64| columns(|law, _| show(family.mean(law, figure)));
    let ours = |figure: fn(&Figures) -> f64| family.mean(LawKind::Rowlock, figure).unwrap_or_default();
    let hours = |law| family.mean(law, |figures| figures.worker_hours);
    let beside_oracle = hours(LawKind::Rowlock).zip(hours(LawKind::Oracle)).map(|(ours, best)| ours / best);
    format!(
        "{:<20} {:<8}{} {} {:>7} {:>4.0}% {:>6.1} {:>7.0}{}",
        family.family,
        word(family.kind),
        means(|figures| figures.p95_seconds),
        means(|figures| figures.worker_hours),
        show(beside_oracle),
        100.0 * ours(|figures| figures.busy_share),
        ours(|figures| f64::from(figures.most_reversals_in_a_minute)),
        ours(|figures| figures.longest_starvation_seconds),
        if is_worse(family) { "  worse than KEDA in both" } else { "" },
    )
}

/// A cell per law.
fn columns(cell: impl Fn(LawKind, &str) -> String) -> String {
    let mut line = String::new();
    for (law, name) in COLUMNS {
        // Writing to a `String` cannot fail.
        let _ = write!(line, " {:>7}", cell(law, name));
    }
    line
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Steady => "steady",
        Kind::BurstsFromZero => "bursts",
        Kind::Changing => "",
    }
}

/// Three digits or so.
fn show(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}
