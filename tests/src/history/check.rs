//! The invariants, one function each.

use std::collections::{HashMap, HashSet};

use super::{Demands, Final, Log, State, TaskEnd, Violation, read::Run};

/// Counts of a history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    pub committed: usize,
    /// The answer to the commit was lost; the database decides.
    pub unknown_committed: usize,
    pub rolled_back: usize,
    pub runs: usize,
    /// Runs sent by an instance or to a handler before it was stopped, which may have started after it
    /// resumed.
    pub stale: usize,
    pub completed: usize,
    pub dead: usize,
    pub cancelled: usize,
    pub open: usize,
    pub failures: usize,
    pub leases_lost: usize,
    /// Failures that used no attempt: their instance was killed while draining.
    pub interruptions: usize,
    pub rescued_instances: usize,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} committed (and {} with a lost answer), {} rolled back, {} runs ({} stale), {} completed, {} \
                dead, {} cancelled, {} open, \
             {} failures of which {} lost leases and {} interruptions, {} instances rescued",
            self.committed,
            self.unknown_committed,
            self.rolled_back,
            self.runs,
            self.stale,
            self.completed,
            self.dead,
            self.cancelled,
            self.open,
            self.failures,
            self.leases_lost,
            self.interruptions,
            self.rescued_instances
        )
    }
}

/// All violations, in no particular order.
#[must_use]
pub fn check(log: &Log, end: &Final, demands: Demands) -> (Summary, Vec<Violation>) {
    let mut found = log.contradictions.clone();
    let known: HashMap<i64, &TaskEnd> = end.tasks.iter().map(|task| (task.id, task)).collect();
    presence(log, &known, &mut found);
    let failures = count_failures(end, &mut found);
    for task in &end.tasks {
        let runs = log.runs.get(&task.id).map_or(&[][..], Vec::as_slice);
        one_state(task, demands, &mut found);
        attempts(task, runs, &failures, &mut found);
        if let Some(done) = task.evidence.iter().find(|evidence| evidence.state == State::Completed) {
            completion(task.id, done.attempt, runs, &mut found);
        }
    }
    let interrupted: HashSet<i64> =
        end.failures.iter().filter(|failure| failure.attempt == 0).map(|failure| failure.id).collect();
    for (id, runs) in &log.runs {
        order(*id, runs, interrupted.contains(id), &mut found);
        if log.enqueued.get(id).is_some_and(|due| runs.first().is_some_and(|run| run.started < *due)) {
            found.push(Violation::TooEarly(*id));
        }
        if demands.undisturbed {
            undisturbed(*id, runs, &mut found);
        }
    }
    for name in &end.rescued {
        if !log.failed_instances.contains(name) {
            found.push(Violation::RescuedAlive(name.clone()));
        }
    }
    let summary = summarize(log, end);
    audit(end, &summary, &mut found);
    (summary, found)
}

/// No task vanishes, none appears without being enqueued, none runs before its commit.
fn presence(log: &Log, known: &HashMap<i64, &TaskEnd>, found: &mut Vec<Violation>) {
    found
        .extend(log.committed.iter().filter(|id| !known.contains_key(id)).map(|id| Violation::Vanished(*id)));
    for id in known.keys() {
        if log.rolled_back.contains(id) || !log.enqueued.contains_key(id) {
            found.push(Violation::Uncommitted(*id));
        }
    }
    // Tasks in the database were committed, even if the answer to the commit was lost.
    found.extend(
        log.runs.keys().filter(|id| !known.contains_key(id)).map(|id| Violation::RanUncommitted(*id)),
    );
}

/// Each task has exactly one state, by positive evidence.
fn one_state(task: &TaskEnd, demands: Demands, found: &mut Vec<Violation>) {
    let id = task.id;
    let one = match task.evidence.as_slice() {
        [] => return found.push(Violation::Untraced(id)),
        [one] => one,
        several => return found.push(Violation::InSeveralStates { id, places: several.len() }),
    };
    if demands.drained && one.state == State::Open {
        found.push(Violation::StillOpen(id));
    }
    if let Some(reported) = &task.state {
        let fits = match one.state {
            State::Open => matches!(reported.as_str(), "scheduled" | "available" | "running" | "retryable"),
            State::Completed => reported == "completed",
            State::Dead => reported == "dead",
            State::Cancelled => reported == "cancelled",
        };
        if !fits {
            found.push(Violation::WrongState { id, reported: reported.clone() });
        }
    }
}

/// How often each attempt of a task failed.
type Failures = HashMap<i64, HashMap<u16, usize>>;

fn count_failures(end: &Final, found: &mut Vec<Violation>) -> Failures {
    let mut failures = Failures::new();
    for failure in end.failures.iter().filter(|failure| 0 < failure.attempt) {
        *failures.entry(failure.id).or_default().entry(failure.attempt).or_default() += 1;
    }
    for (id, attempts) in &failures {
        for (attempt, times) in attempts.iter().filter(|(_, times)| 1 < **times) {
            found.push(Violation::FailedTwice { id: *id, attempt: *attempt, times: *times });
        }
    }
    failures
}

/// Attempts stay within the limit, and one failure explains each attempt used: a release, a snooze or a drain
/// used none.
fn attempts(task: &TaskEnd, runs: &[Run], failures: &Failures, found: &mut Vec<Violation>) {
    let id = task.id;
    let ran = runs.iter().map(|run| run.attempt).max().unwrap_or_default();
    let reported = task.evidence.iter().map(|evidence| evidence.attempt).max().unwrap_or_default();
    let attempt = ran.max(reported);
    if task.max_attempts < attempt {
        found.push(Violation::TooManyAttempts { id, attempt, max: task.max_attempts });
    }
    // The attempt that completes has no failure. An open or dead task has used the attempts it reports; a
    // running one, those before the current one.
    let used = task.evidence.first().map_or(0, |one| {
        if one.state == State::Completed { one.attempt.saturating_sub(1) } else { one.attempt }
    });
    let failed = failures.get(&id);
    for attempt in 1..=used.max(ran.saturating_sub(1)) {
        if failed.is_none_or(|failed| !failed.contains_key(&attempt)) {
            found.push(Violation::Unexplained { id, attempt });
        }
    }
}

/// A task is completed only by an attempt that a handler ran, and no later attempt ran after that.
fn completion(id: i64, attempt: u16, runs: &[Run], found: &mut Vec<Violation>) {
    let done = |run: &&Run| run.attempt == attempt && run.status.is_some_and(|status| status / 100 == 2);
    if !runs.iter().any(|run| done(&run)) {
        found.push(Violation::CompletedUndone { id, attempt });
    }
    if runs.iter().any(|run| attempt < run.attempt) {
        found.push(Violation::RanAfterCompletion { id, attempt });
    }
}

/// Two runs never overlap, unless the earlier one had lost its lease or was given up: then the later has a
/// higher attempt. Or unless it was stopped and released (after a second SIGTERM): then the request was
/// aborted, and the later run may have the same attempt. The same holds if its instance was killed while
/// draining and its handler survived.
fn order(id: i64, runs: &[Run], interrupted: bool, found: &mut Vec<Violation>) {
    for (place, later) in runs.iter().enumerate() {
        for earlier in &runs[..place] {
            if later.stale || (earlier.stale && later.attempt == earlier.attempt) {
                continue;
            }
            if later.attempt < earlier.attempt {
                found.push(Violation::WentBack { id, earlier: earlier.attempt, later: later.attempt });
            } else if later.attempt == earlier.attempt
                && !interrupted
                && !earlier.cut_off
                && earlier.ended.is_none_or(|ended| later.started < ended)
            {
                found.push(Violation::Overlap { id, earlier: earlier.attempt, later: later.attempt });
            }
        }
    }
}

fn undisturbed(id: i64, runs: &[Run], found: &mut Vec<Violation>) {
    if runs.iter().any(|run| run.cut_off || run.status.is_none()) {
        found.push(Violation::CutOff(id));
    }
    let attempts: HashSet<u16> = runs.iter().map(|run| run.attempt).collect();
    for attempt in attempts {
        let times = runs.iter().filter(|run| run.attempt == attempt).count();
        if 1 < times {
            found.push(Violation::RanTwice { id, attempt, times });
        }
    }
}

fn summarize(log: &Log, end: &Final) -> Summary {
    let count = |state| {
        end.tasks.iter().filter(|task| task.evidence.first().is_some_and(|one| one.state == state)).count()
    };
    Summary {
        committed: log.committed.len(),
        unknown_committed: end.tasks.iter().filter(|task| !log.committed.contains(&task.id)).count(),
        rolled_back: log.rolled_back.len(),
        runs: log.runs.values().map(Vec::len).sum(),
        stale: log.runs.values().flatten().filter(|run| run.stale).count(),
        completed: count(State::Completed),
        dead: count(State::Dead),
        cancelled: count(State::Cancelled),
        open: count(State::Open),
        failures: end.failures.len(),
        interruptions: end.failures.iter().filter(|failure| failure.attempt == 0).count(),
        leases_lost: end.failures.iter().filter(|failure| failure.error.starts_with("lease lost")).count(),
        rescued_instances: end.rescued.len(),
    }
}

/// `rowlock.audit()` reports the counted numbers, and its sum is right.
fn audit(end: &Final, summary: &Summary, found: &mut Vec<Violation>) {
    let t = &end.totals;
    if t.enqueued != t.completed + t.dead + t.cancelled + t.open || t.untraced != 0 {
        found.push(Violation::Audit(format!("{t:?} does not add up")));
    }
    let counted = [end.tasks.len(), summary.completed, summary.dead, summary.cancelled, summary.open];
    let reported = [t.enqueued, t.completed, t.dead, t.cancelled, t.open];
    if counted.iter().zip(reported).any(|(counted, reported)| usize::try_from(reported) != Ok(*counted)) {
        found.push(Violation::Audit(format!("{t:?} differs from the counted tasks: {summary}")));
    }
}
