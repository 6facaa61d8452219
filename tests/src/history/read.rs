//! From lines to what happened, by task.

use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, BufReader},
    path::Path,
};

use anyhow::{Context, Result};

use super::{Event, Violation};

/// One run of a task in a handler.
#[derive(Debug, Clone)]
pub struct Run {
    pub attempt: u16,
    pub token: i64,
    pub started: u64,
    /// Of its answer, or of its handler's end; `None`: never ended.
    pub ended: Option<u64>,
    pub status: Option<u16>,
    pub cut_off: bool,
    /// Sent by an instance that was just resumed, see [`Event::InstanceResumed`].
    pub stale: bool,
}

/// How long after its resumption a request of a stopped instance may reach the handler, in nanoseconds.
const STALE_GRACE: u64 = 1_000_000_000;

/// A history by task.
#[derive(Debug, Default)]
pub struct Log {
    /// Every id a producer saw, with the moment from which on it may start.
    pub enqueued: HashMap<i64, u64>,
    pub committed: HashSet<i64>,
    pub rolled_back: HashSet<i64>,
    /// In the order of their starts.
    pub runs: HashMap<i64, Vec<Run>>,
    pub failed_instances: HashSet<String>,
    pub contradictions: Vec<Violation>,
}

/// The lines of every file. A last line cut short by a kill is left out.
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

/// Brings the events together, whatever the order of the files.
#[must_use]
pub fn parse(events: &[Event]) -> Log {
    let mut log = Log::default();
    let mut ended: HashMap<&str, (u64, u16)> = HashMap::new();
    let mut cut: HashSet<&str> = HashSet::new();
    let mut handlers: HashMap<u32, Vec<u64>> = HashMap::new();
    let mut resumed: Vec<(u32, u64)> = Vec::new();
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
            Event::InstanceResumed { handler, at } => resumed.push((*handler, *at)),
            Event::InstanceFailed { name } => {
                log.failed_instances.insert(name.clone());
            }
            Event::Started { .. } => (),
        }
    }
    for event in events {
        let Event::Started { run, handler, id, attempt, token, at } = event else { continue };
        let answer = ended.remove(run.as_str());
        // A process id may be used again: the first end after the start is meant.
        let killed = handlers.get(handler).and_then(|ends| ends.iter().filter(|end| at <= *end).min());
        log.runs.entry(*id).or_default().push(Run {
            attempt: *attempt,
            token: *token,
            started: *at,
            ended: answer.map(|(at, _)| at).or(killed.copied()),
            status: answer.map(|(_, status)| status),
            cut_off: cut.contains(run.as_str()),
            stale: resumed
                .iter()
                .any(|(by, since)| by == handler && since <= at && *at < since + STALE_GRACE),
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
