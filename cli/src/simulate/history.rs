//! The load that a queue had, as its database still knows it.

use super::report::duration;
use super::trace::{Row, USUAL_VARIATION};
use super::{Source, exceeds_timeout};
use crate::args::Database;
use crate::database;
use crate::escape::word;
use crate::failure::Failure;
use rowlock_crds::{Dur, Manifest};
use rowlock_plan::ServiceTime;
use rowlock_queue::{ARRIVALS_READ_MOST, Arrivals, Db, DecidedAt};

/// How many decisions are searched for a measured duration, from the newest.
const DECISIONS: u32 = 100;

/// Within a second, the tasks come at random.
const SPREAD: f64 = 1.0;

/// How long a task takes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct TaskDuration {
    /// On average, in seconds.
    mean: f64,
    /// The standard deviation, divided by the mean.
    variation: f64,
}

/// Reads the tasks that came to a queue within the last `ago`.
pub(super) async fn read(
    database: Database,
    manifest: &Manifest,
    ago: Dur,
    given: Option<Dur>,
) -> Result<Source, Failure> {
    let (queue, timeout) = (manifest.queue_name(), manifest.spec.timeout);
    let db = database::open_to_read(database).await?;
    let arrivals = rowlock_queue::arrivals(&db, queue, ago.as_duration()).await?;
    let takes = match given {
        Some(given) => TaskDuration { mean: given.as_duration().as_secs_f64(), variation: USUAL_VARIATION },
        None => measured(&db, queue).await?,
    };
    if takes.mean > timeout.as_duration().as_secs_f64() {
        let (what, instead) = if let Some(given) = given {
            (format!("--task-duration: {given}"), "write less")
        } else {
            let measured =
                format!("a task of queue {} takes {:.3} s as measured, which", word(queue), takes.mean);
            (measured, "set another value with --task-duration")
        };
        return Err(exceeds_timeout(&what, timeout, instead));
    }
    let rows = rows(&arrivals, takes);
    if rows.is_empty() {
        let problem = format!("no task came to queue {} within {ago} that could start at once", word(queue));
        return Err(Failure::not_found(problem).hint("choose a longer time, or give a file with --load"));
    }
    Ok(Source { rows, spread: SPREAD, notes: notes(&arrivals, ago, takes) })
}

/// As the workers measured in the last two minutes, or else as it was when the number of pods changed last.
async fn measured(db: &Db, queue: &str) -> Result<TaskDuration, Failure> {
    let queues = rowlock_queue::queue_stats(db).await?;
    let known = queues.iter().find(|known| known.name == queue);
    let lately = known.and_then(|known| ServiceTime::of(&rowlock_operator::backlog(known).runs));
    if let Some(ServiceTime { mean, variation, .. }) = lately.filter(|lately| lately.mean > 0.0) {
        return Ok(TaskDuration { mean, variation: variation.sqrt() });
    }
    let decisions = rowlock_queue::scaling_decisions(db, queue, &DecidedAt::Any, DECISIONS).await?;
    let figures = decisions.into_iter().filter_map(|decision| decision.figures);
    let known = figures.into_iter().find(|figures| !figures.service_assumed && figures.service_seconds > 0.0);
    known.map(|known| TaskDuration { mean: known.service_seconds, variation: USUAL_VARIATION }).ok_or_else(
        || {
            let problem =
                format!("nobody has measured lately how long a task of queue {} takes", word(queue));
            Failure::usage(problem).hint("say it, for example --task-duration 500ms")
        },
    )
}

/// One row per second, counted from the first one.
fn rows(arrivals: &Arrivals, takes: TaskDuration) -> Vec<Row> {
    let Some((&first, _)) = arrivals.by_second.first_key_value() else { return Vec::new() };
    let row = |(line, (&second, &tasks))| Row {
        line,
        #[expect(clippy::cast_precision_loss, reason = "at most a month of seconds")]
        at: (second - first) as f64,
        tasks,
        seconds: takes.mean,
        delay: 0.0,
        variation: takes.variation,
    };
    (1..).zip(&arrivals.by_second).map(row).collect()
}

fn notes(arrivals: &Arrivals, ago: Dur, takes: TaskDuration) -> Vec<String> {
    let mut notes = vec![format!(
        "A task takes {:.3} s on average, with a standard deviation of {:.3} s.",
        takes.mean,
        takes.mean * takes.variation
    )];
    if arrivals.cut {
        notes.push(format!(
            "Only the newest {ARRIVALS_READ_MOST} tasks of the database were read: older ones are left out."
        ));
    } else if arrivals.kept_seconds < ago.as_duration().as_secs_f64() {
        notes.push(format!("The database keeps no tasks older than {}.", duration(arrivals.kept_seconds)));
    }
    if arrivals.scheduled > 0 {
        notes.push(format!(
            "{} tasks with a delay are left out: the database does not keep when they became due.",
            arrivals.scheduled
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_count_from_the_first_one() {
        let arrivals = Arrivals { by_second: [(100, 3), (160, 1)].into(), ..Arrivals::default() };
        let rows = rows(&arrivals, TaskDuration { mean: 2.0, variation: 0.5 });
        let brief: Vec<_> = rows.iter().map(|row| (row.at, row.tasks, row.seconds, row.variation)).collect();
        assert_eq!(brief, [(0.0, 3, 2.0, 0.5), (60.0, 1, 2.0, 0.5)]);
    }

    #[test]
    fn what_is_not_known_is_said() {
        let takes = TaskDuration { mean: 2.0, variation: 0.5 };
        let all = Arrivals { kept_seconds: 1e6, ..Arrivals::default() };
        assert_eq!(notes(&all, Dur::from_secs(60), takes).len(), 1);
        let part = Arrivals { scheduled: 7, kept_seconds: 30.0, ..all.clone() };
        let said = notes(&part, Dur::from_secs(60), takes).join(" ");
        assert!(said.contains("no tasks older than 30s") && said.contains("7 tasks with a delay"), "{said}");
        let said = notes(&Arrivals { cut: true, ..all }, Dur::from_secs(60), takes).join(" ");
        assert!(said.contains("Only the newest 2000000 tasks of the database"), "{said}");
    }
}
