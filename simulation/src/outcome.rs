//! What a simulation counts.

use crate::time::Micros;

/// What came of a load, or of one queue of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// How long each task has waited for its first start; those not started, until the end.
    pub(crate) waits: Vec<Micros>,
    /// Worker-microseconds that pods held, from being asked for until they were gone.
    pub(crate) workers: u128,
    /// Worker-microseconds in which a task ran.
    pub(crate) busy: u128,
    /// For each queue, when the number of its pods that were asked for turned.
    pub(crate) reversals: Vec<Vec<Micros>>,
    /// Tasks that have completed.
    pub(crate) completed: u64,
    /// Tasks that could start and have not.
    pub(crate) not_started: u64,
    /// Tasks that have waited for longer than the limit says.
    pub(crate) late: u64,
    /// The longest time for which a queue had waiting tasks and no pod, and another an idle one.
    pub(crate) starved: Micros,
    /// How long the load was.
    pub(crate) lasted: Micros,
}

impl Outcome {
    /// Adds another queue's.
    pub(crate) fn add(&mut self, other: Self) {
        self.waits.extend(other.waits);
        self.workers += other.workers;
        self.busy += other.busy;
        self.reversals.extend(other.reversals);
        self.completed += other.completed;
        self.not_started += other.not_started;
        self.late += other.late;
        self.starved = self.starved.max(other.starved);
        self.lasted = self.lasted.max(other.lasted);
    }
}

/// From where on an outcome is of no interest any more.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// When a task is late, and how many may be.
    pub(crate) late: Option<(Micros, u64)>,
    /// Worker-microseconds of pods that are gone.
    pub(crate) workers: Option<u128>,
}

impl Limits {
    pub(crate) fn is_late(&self, wait: Micros) -> bool {
        self.late.is_some_and(|(after, _)| wait > after)
    }

    pub(crate) fn are_exceeded(&self, outcome: &Outcome) -> bool {
        self.late.is_some_and(|(_, most)| outcome.late > most)
            || self.workers.is_some_and(|most| outcome.workers >= most)
    }
}
