//! State that is kept from one decision to the next.

use std::collections::VecDeque;
use std::time::Duration;

use crate::arrivals::ArrivalHistory;
use crate::service::ServiceHistory;

/// [`decide`](crate::decide) takes it and returns it changed. Empty at first, and after a restart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Memory {
    rate_demands: SlidingMax,
    backlog_demands: SlidingMax,
    pub(crate) arrivals: ArrivalHistory,
    /// How long tasks took when that was last known: an idle queue has no recent ones.
    pub(crate) service: ServiceHistory,
}

/// The highest of what was noted within a window.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SlidingMax {
    /// Those that can still be the highest: each is lower than the one before it, since a higher or equal one
    /// makes every earlier one superfluous. So there are never more of them than the highest says.
    noted: VecDeque<(Duration, u32)>,
}

impl SlidingMax {
    /// Notes a value and returns the highest of the window that ends now. `now` is a monotonic clock of the
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
        self.rate_demands.noted.is_empty()
    }

    /// Adds a demand that lasts and returns the highest of the window that ends now.
    pub(crate) fn rate_demand(&mut self, now: Duration, workers: u32, window: Duration) -> u32 {
        self.rate_demands.note(now, workers, window)
    }

    /// Adds a demand of tasks that are there and returns the highest of the window that ends now.
    pub(crate) fn backlog_demand(&mut self, now: Duration, workers: u32, window: Duration) -> u32 {
        self.backlog_demands.note(now, workers, window)
    }
}
