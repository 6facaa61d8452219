//! What a decision must know of the ones before it.

use std::collections::VecDeque;
use std::time::Duration;

/// Handed to [`decide`](crate::decide) and handed back changed. Empty at first, and after a restart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Memory {
    demands: SlidingMax,
    /// How long a task took when that was last known: an idle queue has no recent tasks to measure.
    pub(crate) service_seconds: Option<f64>,
}

/// The highest of what was noted within a window.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SlidingMax {
    /// Those that can still be the highest: each is lower than the one before it, since a higher or equal one
    /// makes every earlier one superfluous. So there are never more of them than the highest says.
    noted: VecDeque<(Duration, u32)>,
}

impl SlidingMax {
    /// Notes a value and answers the highest of the window that ends now. `now` is a monotonic clock of the
    /// caller's.
    pub fn note(&mut self, now: Duration, value: u32, window: Duration) -> u32 {
        while self.noted.back().is_some_and(|(_, last)| *last <= value) {
            self.noted.pop_back();
        }
        self.noted.push_back((now, value));
        while self.noted.front().is_some_and(|(at, _)| now.saturating_sub(*at) > window) {
            self.noted.pop_front();
        }
        self.noted.front().map_or(value, |(_, highest)| *highest)
    }
}

impl Memory {
    /// Whether nothing was asked for yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.demands.noted.is_empty()
    }

    /// Adds a demand and answers the highest of the window that ends now.
    pub(crate) fn demand(&mut self, now: Duration, workers: u32, window: Duration) -> u32 {
        self.demands.note(now, workers, window)
    }
}
