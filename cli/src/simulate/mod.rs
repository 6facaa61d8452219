//! `rowlock simulate`: replays a load through the decisions of the operator, beside other autoscalers.
//!
//! Modules in reading order: what to replay ([`manifest`], [`trace`] or [`history`], [`load`]) and what came
//! of it ([`curve`], [`report`], [`chart`], [`svg`]).

mod chart;
mod curve;
mod history;
mod load;
mod manifest;
mod report;
mod svg;
mod trace;

use crate::args::Simulate;
use crate::failure::Failure;
use crate::output::Output;
use curve::Curve;
use load::Setting;
use report::{Replayed, duration};
use rowlock_crds::{Dur, Manifest, ScalingMode};
use rowlock_simulation::{LawKind, Load, replay_specs};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use trace::Row;

/// Pods that take longer are not autoscaled for waits.
const LONGEST_POD_START: Duration = Duration::from_hours(1);

/// A line stands for a day at most.
const LONGEST_SPREAD: Duration = Duration::from_hours(24);

/// As long as the longest load of a file.
const LONGEST_HISTORY: Duration = Duration::from_hours(31 * 24);

/// The width without a terminal.
const PIPED_WIDTH: usize = 100;

/// A load as it was read.
struct Source {
    rows: Vec<Row>,
    /// Over how many seconds the tasks of a row come, evenly at random.
    spread: f64,
    /// Sentences for who reads the result.
    notes: Vec<String>,
}

pub(crate) async fn run(args: Simulate, output: Output) -> Result<(), Failure> {
    let manifest = manifest::choose(&args.file, args.queue.as_deref(), &args.set)?;
    let pod_start = within("--pod-start", args.pod_start, LONGEST_POD_START)?;
    let Source { rows, spread, notes } = match (args.source.load, args.source.from_db) {
        (Some(file), _) => from_file(&file, args.spread, manifest.spec.timeout)?,
        (None, Some(ago)) => {
            within("--from-db", ago, LONGEST_HISTORY)?;
            history::read(args.database, &manifest, ago, args.task_duration).await?
        }
        // The arguments require one of the two.
        (None, None) => return Err(Failure::usage("no load is given").hint("add --load or --from-db")),
    };
    let setting = Setting { pod_start, spread, seed: args.seed };
    let load = load::load(manifest.queue_name(), &manifest.spec, &rows, setting);
    let all = replay_all(&manifest, &load, args.seed, args.no_oracle, output)?;
    let title = title(&manifest, &load, args.pod_start, args.seed);
    let head = [std::slice::from_ref(&title), &notes].concat().join("\n");
    if let Some(path) = &args.svg {
        let picture = svg::picture(&title, &all, load.seconds);
        let failed = |error| Failure::new(format!("--svg {}: {error}", path.display()));
        std::fs::write(path, picture).map_err(failed)?;
    }
    let text = || {
        let charts = chart::charts(&all, load.seconds, width());
        format!("{head}\n\n{}\n\n{charts}", report::scores(&all))
    };
    let value = json!({
        "queue": manifest.queue_name(),
        "scaling": manifest.spec.workers.scaling().as_str(),
        "seconds": load.seconds,
        "seed": args.seed,
        "notes": notes,
        "autoscalers": all.iter().map(report::value).collect::<Vec<_>>(),
    });
    output.result(text, &value)
}

fn from_file(path: &Path, spread: Dur, timeout: Dur) -> Result<Source, Failure> {
    let spread = within("--spread", spread, LONGEST_SPREAD)?;
    let rows = trace::read(path).map_err(|errors| Failure::usage(errors.join("\n")))?;
    if let Some(row) = rows.iter().find(|row| row.seconds > timeout.as_duration().as_secs_f64()) {
        let place = format!("{}:{}: seconds: {}", path.display(), row.line, row.seconds);
        return Err(exceeds_timeout(&place, timeout, "write less"));
    }
    Ok(Source { rows, spread, notes: Vec::new() })
}

/// Replays the load through each autoscaler.
fn replay_all(
    manifest: &Manifest,
    load: &Load,
    seed: u64,
    no_oracle: bool,
    output: Output,
) -> Result<Vec<Replayed>, Failure> {
    use LawKind::{KedaDefault, KedaTuned, Knative, Oracle, Rowlock};
    let laws = [Rowlock, KedaDefault, KedaTuned, Knative, Oracle];
    let laws: Vec<LawKind> = laws.into_iter().filter(|law| *law != Oracle || !no_oracle).collect();
    // A bar in a terminal; elsewhere only the result is printed.
    let mut progress = output.draws().then(|| output.progress(laws.len() as u64));
    let mut all = Vec::with_capacity(laws.len());
    for (done, law) in (0..).zip(laws) {
        if let Some(progress) = &mut progress {
            progress.set(done, law.name())?;
        }
        let (score, samples) = replay_specs(load, std::slice::from_ref(&manifest.spec), law, seed);
        all.push(Replayed { law, score, curve: Curve::of(&samples, manifest.spec.workers.per_pod) });
    }
    if let Some(progress) = progress {
        progress.finish();
    }
    Ok(all)
}

/// One line that says what was replayed.
fn title(manifest: &Manifest, load: &Load, pod_start: Dur, seed: u64) -> String {
    let workers = &manifest.spec.workers;
    let tasks: usize = load.queues.iter().map(|queue| queue.tasks.len()).sum();
    let mode = match workers.scaling() {
        ScalingMode::Auto => {
            let target = workers.autoscaling.clone().unwrap_or_default().wait_target;
            format!(", wait target {target}")
        }
        ScalingMode::Fixed => " (Fixed: the operator always keeps them)".to_owned(),
        ScalingMode::External => " (External: the operator keeps spec.workers.replicas)".to_owned(),
    };
    format!(
        "queue {}: up to {} slots, {} per pod{mode}; {tasks} tasks in {}; a pod starts in {}; seed {}",
        manifest.queue_name(),
        workers.total,
        workers.per_pod,
        duration(load.seconds),
        pod_start,
        seed,
    )
}

fn within(flag: &str, value: Dur, most: Duration) -> Result<f64, Failure> {
    if value.as_duration() > most {
        let hint = format!("choose at most {}", Dur::from(most));
        return Err(Failure::usage(format!("{flag}: {value} is too long")).hint(hint));
    }
    Ok(value.as_duration().as_secs_f64())
}

/// Runs of such tasks would all end by their timeout.
fn exceeds_timeout(what: &str, timeout: Dur, instead: &str) -> Failure {
    let problem = format!("{what} is longer than spec.timeout ({timeout})");
    Failure::usage(problem).hint(format!("{instead}, or allow more with --set spec.timeout=…"))
}

/// The width of the terminal.
fn width() -> usize {
    let size = console::Term::stdout().size_checked();
    size.map_or(PIPED_WIDTH, |(_, columns)| usize::from(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_durations_are_documented() {
        let page = std::fs::read_to_string("../docs/limits.md").unwrap();
        for (flag, most) in
            [("pod-start", LONGEST_POD_START), ("spread", LONGEST_SPREAD), ("from-db", LONGEST_HISTORY)]
        {
            let row = format!("| `rowlock simulate --{flag}` | at most {} |\n", Dur::from(most));
            assert!(page.contains(&row), "{row}");
        }
    }
}
