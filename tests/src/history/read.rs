//! Parses lines into one history per task.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
    io::{BufRead, BufReader},
    path::Path,
};

use anyhow::{Context, Result};

use super::{Event, Final, Violation};

/// One run of a task in a handler.
#[derive(Debug, Clone)]
pub struct Run {
    pub attempt: u16,
    pub token: i64,
    pub started: u64,
    /// The time of its answer or of its handler's end; `None`: it never ended.
    pub ended: Option<u64>,
    pub status: Option<u16>,
    pub cut_off: bool,
    /// Sent before it started, see [`Event::InstanceResumed`] and [`Event::HandlerResumed`].
    pub stale: bool,
}

/// How long after an instance or the handler resumes an older request may still start, in nanoseconds.
const INSTANCE_GRACE: u64 = 1_000_000_000;
const HANDLER_GRACE: u64 = 3_000_000_000;

/// A history by task.
#[derive(Debug, Default)]
pub struct Log {
    /// Every id that a producer got, with the earliest time it may start.
    pub enqueued: HashMap<i64, u64>,
    pub committed: HashSet<i64>,
    pub rolled_back: HashSet<i64>,
    /// Sorted by start.
    pub runs: HashMap<i64, Vec<Run>>,
    pub failed_instances: HashSet<String>,
    pub contradictions: Vec<Violation>,
}

impl Log {
    /// The readable history of a task. Times are milliseconds since it was enqueued.
    #[must_use]
    pub fn tell(&self, id: i64, end: &Final) -> String {
        let due = self.enqueued.get(&id).copied();
        let since = |at: u64| at.abs_diff(due.unwrap_or_default()) / 1_000_000;
        let mut told = format!(
            "  enqueued: {}, committed: {}, rolled back: {}",
            due.is_some(),
            self.committed.contains(&id),
            self.rolled_back.contains(&id)
        );
        for run in self.runs.get(&id).into_iter().flatten() {
            let ended = run.ended.map(since);
            let _ = write!(
                told,
                "\n  run of attempt {} from {} ms to {ended:?} ms, status {:?}, cut off: {}, stale: {}, \
                    token {}",
                run.attempt,
                since(run.started),
                run.status,
                run.cut_off,
                run.stale,
                run.token
            );
        }
        for failure in end.failures.iter().filter(|failure| failure.id == id) {
            let _ = write!(told, "\n  attempt {} failed: {}", failure.attempt, failure.error);
        }
        let known = end.tasks.iter().find(|task| task.id == id);
        told + &format!("\n  the database: {known:?}")
    }
}

/// The lines of every file. An incomplete last line, after a kill, is left out.
pub fn read_all<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut lines = BufReader::new(file).lines().peekable();
        while let Some(line) = lines.next() {
            let line = line?;
            match serde_json::from_str(&line) {
                Ok(event) => events.push(event),
                Err(_) if lines.peek().is_none() => (),
                Err(error) => return Err(error).with_context(|| format!("{}: {line}", path.display())),
            }
        }
    }
    Ok(events)
}

/// Combines the events in any order of files.
#[must_use]
pub fn parse(events: &[Event]) -> Log {
    let mut log = Log::default();
    let mut ended: HashMap<&str, (u64, u16)> = HashMap::new();
    let mut cut: HashSet<&str> = HashSet::new();
    let mut handlers: HashMap<u32, Vec<u64>> = HashMap::new();
    let mut resumed: Vec<(u32, std::ops::Range<u64>)> = Vec::new();
    for event in events {
        match event {
            Event::Enqueued { ids, at, delay_ms } => {
                log.enqueued.extend(ids.iter().map(|id| (*id, at + delay_ms * 1_000_000)));
            }
            Event::Committed { ids } => log.committed.extend(ids),
            Event::RolledBack { ids } => log.rolled_back.extend(ids),
            Event::Finished { run, status, at } => {
                if ended.insert(run, (*at, *status)).is_some() {
                    log.contradictions.push(Violation::Log(format!("run {run} finished twice")));
                }
            }
            Event::CutOff { run, .. } => {
                cut.insert(run);
            }
            Event::HandlerEnded { handler, at } => handlers.entry(*handler).or_default().push(*at),
            Event::InstanceResumed { handler, at } => resumed.push((*handler, *at..at + INSTANCE_GRACE)),
            Event::HandlerResumed { handler, at } => resumed.push((*handler, *at..at + HANDLER_GRACE)),
            Event::InstanceFailed { name } => {
                log.failed_instances.insert(name.clone());
            }
            Event::Started { .. } => (),
        }
    }
    for event in events {
        let Event::Started { run, handler, id, attempt, token, at } = event else { continue };
        let answer = ended.remove(run.as_str());
        // A process id may be reused: the first end after the start counts.
        let killed = handlers.get(handler).and_then(|ends| ends.iter().filter(|end| at <= *end).min());
        log.runs.entry(*id).or_default().push(Run {
            attempt: *attempt,
            token: *token,
            started: *at,
            ended: answer.map(|(at, _)| at).or(killed.copied()),
            status: answer.map(|(_, status)| status),
            cut_off: cut.contains(run.as_str()),
            stale: resumed.iter().any(|(by, within)| by == handler && within.contains(at)),
        });
    }
    for run in ended.keys() {
        log.contradictions.push(Violation::Log(format!("run {run} finished and never started")));
    }
    for id in log.committed.intersection(&log.rolled_back) {
        log.contradictions.push(Violation::Log(format!("task {id} was committed and rolled back")));
    }
    for runs in log.runs.values_mut() {
        runs.sort_by_key(|run| run.started);
    }
    log
}
