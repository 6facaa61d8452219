//! Families of loads. A family stands for one kind of load; a seed picks one load of it. Loads of different
//! seeds differ in their rates (up to a quarter), in when things happen, and in every arrival.

mod bursts;
mod draw;
mod faults;
mod fleets;
mod scheduled;
mod services;
mod spikes;
mod steady;
mod waves;

use rowlock_simulation::{Load, PodStart, QueueLoad, Task};
use serde::{Deserialize, Serialize};

/// A family of loads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// What it stands for, in a line.
    pub(crate) about: &'static str,
    build: fn(u64) -> Load,
}

/// What goals apply to a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A constant rate that keeps several pods busy.
    Steady,
    /// Work that appears while nothing runs, which only an oracle has pods for.
    BurstsFromZero,
    /// Everything else.
    Changing,
}

impl Family {
    const fn new(name: &'static str, kind: Kind, about: &'static str, build: fn(u64) -> Load) -> Self {
        Self { name, kind, about, build }
    }

    /// The load of a seed. The same seed gives the same load.
    pub(crate) fn load(&self, seed: u64) -> Load {
        Load { name: self.name.to_owned(), ..(self.build)(mix(self.name, seed)) }
    }
}

/// All families, in the order of the table.
pub(crate) fn all() -> Vec<Family> {
    let files = [
        steady::FAMILIES,
        bursts::FAMILIES,
        spikes::FAMILIES,
        waves::FAMILIES,
        services::FAMILIES,
        faults::FAMILIES,
        scheduled::FAMILIES,
        fleets::FAMILIES,
    ];
    files.concat()
}

/// Gives families different random numbers for the same seed (FNV-1a).
fn mix(name: &str, seed: u64) -> u64 {
    let bytes = name.bytes().chain(seed.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The seconds of a minute.
const MINUTE: f64 = 60.0;

/// How long pods take to start unless a family is about that.
const POD_START: PodStart = PodStart { least: 2.0, most: 4.0 };

/// A load without a budget.
fn load(minutes: f64, queues: Vec<QueueLoad>) -> Load {
    Load { name: String::new(), seconds: minutes * MINUTE, budget: None, pod_start: POD_START, queues }
}

/// A load of one queue with the usual manifest.
fn one_queue(minutes: f64, tasks: Vec<Task>) -> Load {
    load(minutes, vec![queue("orders", tasks)])
}

/// A queue with the usual manifest: 100 workers, 10 per pod, and a wait target of 5 s.
fn queue(name: &str, mut tasks: Vec<Task>) -> QueueLoad {
    tasks.sort_by(|one, other| one.enqueued.total_cmp(&other.enqueued));
    QueueLoad {
        name: name.to_owned(),
        total: 100,
        per_pod: 10,
        min: 0,
        wait_target: 5.0,
        tasks,
        faults: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
