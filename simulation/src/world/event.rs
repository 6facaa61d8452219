//! What happens at which moment.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::time::Micros;

/// A pod, by its position in [`Pods`](super::pods::Pods).
pub(crate) type PodId = u32;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A pod is started.
    PodStarted(PodId),
    /// A delayed task or a retry is due within seconds.
    DueSoon {
        /// Its queue.
        queue: u32,
    },
    /// A delayed task or a retry may start now.
    Due {
        /// Its queue.
        queue: u32,
        /// Its position among the tasks of the queue.
        task: u32,
    },
    /// A run is over.
    RunEnded(Run),
    /// The database of a queue answers again.
    DatabaseBack {
        /// The queue.
        queue: u32,
    },
    /// The law has asked to be woken.
    Wake {
        /// What it has called this timer.
        timer: u32,
    },
}

/// A run of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Where it runs.
    pub(crate) pod: PodId,
    /// The position of its task among the tasks of the queue.
    pub(crate) task: u32,
    /// When it began.
    pub(crate) began: Micros,
    /// Whether it fails.
    pub(crate) fails: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    at: Micros,
    sequence: u64,
    event: Event,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The events to come, in the order of their moments; those of one moment in the order in which they were
/// added.
#[derive(Debug, Default)]
pub(crate) struct Events {
    heap: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
}

impl Events {
    pub(crate) fn push(&mut self, at: Micros, event: Event) {
        self.sequence += 1;
        self.heap.push(Reverse(Entry { at, sequence: self.sequence, event }));
    }

    /// When the next one happens.
    pub(crate) fn next_at(&self) -> Option<Micros> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.heap.pop().map(|Reverse(entry)| entry.event)
    }
}
