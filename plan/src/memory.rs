//! What a decision must know of the ones before it.

use std::collections::VecDeque;
use std::time::Duration;

/// Handed to [`decide`](crate::decide) and handed back changed. Empty at first, and after a restart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Memory {
    /// The wishes that can still be the highest of the window: each is lower than the one before it, since a
    /// higher or equal one makes every earlier one superfluous. So there are never more than `total` of them.
    wishes: VecDeque<Wish>,
    /// How long a task took when that was last known: an idle queue has no recent tasks to measure.
    pub(crate) service_seconds: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Wish {
    at: Duration,
    workers: u32,
}

impl Memory {
    /// Whether nothing was wished yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.wishes.is_empty()
    }

    /// Adds a wish and answers the highest of the window that ends now.
    pub(crate) fn wish(&mut self, now: Duration, workers: u32, window: Duration) -> u32 {
        while self.wishes.back().is_some_and(|last| last.workers <= workers) {
            self.wishes.pop_back();
        }
        self.wishes.push_back(Wish { at: now, workers });
        while self.wishes.front().is_some_and(|first| now.saturating_sub(first.at) > window) {
            self.wishes.pop_front();
        }
        self.wishes.front().map_or(workers, |first| first.workers)
    }
}
