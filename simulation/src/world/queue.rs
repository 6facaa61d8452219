//! A queue: its tasks, its pods, and what can be seen of it.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use rowlock_plan::PodStarts;

use super::event::PodId;
use super::pods::FreePods;
use super::statistics::{ArrivalSeconds, Concurrency, RunWindow};
use crate::load::{FaultKind, QueueLoad};
use crate::time::{Micros, micros, seconds};

/// A queue at the present moment.
#[derive(Debug)]
pub(crate) struct Queue<'a> {
    pub(crate) load: &'a QueueLoad,
    faults: Vec<(Range<Micros>, FaultKind)>,
    /// Tasks that could start, with the moment since when, oldest first.
    pub(crate) waiting: VecDeque<(Micros, u32)>,
    /// Tasks that run.
    pub(crate) running: u32,
    /// The sum of the moments at which these began.
    pub(crate) began_sum: Micros,
    /// Delayed tasks and retries that are due within seconds.
    pub(crate) due_soon: u64,
    /// How often tasks have failed, those that have.
    pub(crate) failures: HashMap<u32, u32>,
    /// Pods that the law asked for.
    pub(crate) pods_desired: u32,
    pub(crate) starting: Vec<PodId>,
    pub(crate) ready: Vec<PodId>,
    pub(crate) draining: u32,
    /// Ready pods without a task.
    pub(crate) idle: u32,
    pub(crate) free: FreePods,
    /// Whether it stands in line for a pod that the budget did not allow.
    pub(crate) in_line: bool,
    pub(crate) arrivals: ArrivalSeconds,
    pub(crate) runs: RunWindow,
    pub(crate) concurrency: Concurrency,
    pub(crate) changes: Changes,
    /// Since when it has waiting tasks and no pod while pods of others are idle.
    pub(crate) starving_since: Option<Micros>,
    /// How long its pods took to start.
    pub(crate) starts: PodStarts,
}

/// How the number of pods that are asked for has changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    grows: Option<bool>,
    /// When the direction changed.
    pub(crate) reversals: Vec<Micros>,
}

impl Changes {
    pub(crate) fn note(&mut self, now: Micros, grows: bool) {
        if self.grows.is_some_and(|before| before != grows) {
            self.reversals.push(now);
        }
        self.grows = Some(grows);
    }
}

impl<'a> Queue<'a> {
    pub(crate) fn new(load: &'a QueueLoad) -> Self {
        let faults = load.faults.iter().map(|fault| (micros(fault.from)..micros(fault.until), fault.kind));
        Self {
            load,
            faults: faults.collect(),
            waiting: VecDeque::new(),
            running: 0,
            began_sum: 0,
            due_soon: 0,
            failures: HashMap::new(),
            pods_desired: 0,
            starting: Vec::new(),
            ready: Vec::new(),
            draining: 0,
            idle: 0,
            free: FreePods::default(),
            in_line: false,
            arrivals: ArrivalSeconds::default(),
            runs: RunWindow::default(),
            concurrency: Concurrency::default(),
            changes: Changes::default(),
            starving_since: None,
            starts: PodStarts::default(),
        }
    }

    /// The slots of each pod.
    pub(crate) fn per_pod(&self) -> u32 {
        self.load.per_pod.max(1)
    }

    /// Pods that hold all the workers there may be.
    pub(crate) fn most_pods(&self) -> u32 {
        self.load.total.div_ceil(self.per_pod())
    }

    /// Pods that hold the workers kept when there is nothing to do.
    pub(crate) fn least_pods(&self) -> u32 {
        self.load.min.min(self.load.total).div_ceil(self.per_pod())
    }

    /// Pods that start or are ready.
    pub(crate) fn pods(&self) -> u32 {
        count(self.starting.len()) + count(self.ready.len())
    }

    /// Tasks that wait or run.
    pub(crate) fn waiting_or_running(&self) -> u64 {
        self.waiting.len() as u64 + u64::from(self.running)
    }

    pub(crate) fn note_concurrency(&mut self, now: Micros) {
        self.concurrency.set(now, self.waiting_or_running());
    }

    /// For how long the running tasks have run, on average, in seconds.
    pub(crate) fn mean_running_seconds(&self, now: Micros) -> Option<f64> {
        let sum = seconds((u64::from(self.running) * now).saturating_sub(self.began_sum));
        (self.running > 0).then(|| sum / f64::from(self.running))
    }

    /// How long the oldest waiting task has waited, in seconds.
    pub(crate) fn oldest_seconds(&self, now: Micros) -> Option<f64> {
        self.waiting.front().map(|(since, _)| seconds(now - since))
    }

    /// Whether the database is gone, so that nothing is claimed and no statistics are read.
    pub(crate) fn database_gone(&self, now: Micros) -> bool {
        self.fault(now, |kind| matches!(kind, FaultKind::DatabaseGone).then_some(())).is_some()
    }

    /// How long a run that begins now takes to fail, if it will fail.
    pub(crate) fn fails_after(&self, now: Micros) -> Option<Micros> {
        let after = |kind| match kind {
            FaultKind::RunsFail { after } => Some(after),
            _ => None,
        };
        self.fault(now, after).map(|(after, _)| micros(after))
    }

    /// When a pod that would be ready at that moment really is.
    pub(crate) fn ready_at(&self, mut at: Micros) -> Micros {
        let stuck = |kind| matches!(kind, FaultKind::PodsDoNotStart).then_some(());
        while let Some(((), until)) = self.fault(at, stuck) {
            at = until;
        }
        at
    }

    /// What a fault of that moment says, and when it is over.
    fn fault<T>(&self, now: Micros, of: impl Fn(FaultKind) -> Option<T>) -> Option<(T, Micros)> {
        let mut active = self.faults.iter().filter(|(during, _)| during.contains(&now));
        active.find_map(|(during, kind)| Some((of(*kind)?, during.end)))
    }
}

/// No load has more than 2^32 of anything.
pub(crate) fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
