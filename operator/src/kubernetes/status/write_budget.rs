//! Limits how often the status of one `TaskQueue` is written because of its conditions. No I/O.
//!
//! A database server may report another error every two seconds, and a tenant chooses the server. Each report
//! would be a write to etcd, and often an event.

use std::time::{Duration, Instant};

/// How many writes are possible in succession: more than the conditions of a sound queue need while it
/// starts, fails and recovers.
const BURST: u32 = 20;

/// How often there is one more write.
const REFILL_INTERVAL: Duration = Duration::from_secs(30);

/// The writes that are left.
#[derive(Debug)]
pub(crate) struct WriteBudget {
    left: u32,
    /// When `left` was last increased, or was complete.
    refilled_at: Instant,
}

impl WriteBudget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: BURST, refilled_at: now }
    }

    /// Whether there is a write left.
    pub(crate) fn has_left(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.duration_since(self.refilled_at) >= REFILL_INTERVAL {
            self.left += 1;
            self.refilled_at += REFILL_INTERVAL;
        }
        if self.left == BURST {
            self.refilled_at = now;
        }
        0 < self.left
    }

    pub(crate) fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before the fix, a server with another error at each connection cost a write every second, for ever.
    #[test]
    fn a_flapping_condition_is_written_twenty_times_and_then_twice_a_minute() {
        let start = Instant::now();
        let mut budget = WriteBudget::new(start);
        let mut written = |seconds: std::ops::Range<u64>| {
            seconds
                .filter(|second| {
                    let has_left = budget.has_left(start + Duration::from_secs(*second));
                    if has_left {
                        budget.spend();
                    }
                    has_left
                })
                .count()
        };
        assert_eq!(written(0..60), 21);
        assert_eq!(written(60..660), 20);
        // After ten quiet minutes all are there again.
        assert_eq!(written(1260..1280), 20);
    }
}
