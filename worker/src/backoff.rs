//! Exponential back-off with jitter and an upper bound.

use std::time::Duration;

/// How long to wait before the next try of an operation that may succeed later.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, next: shortest }
    }

    /// Between attempts to reach the database. The longest wait is shorter than the fence's margin.
    pub(crate) const DATABASE: Self = Self::new(Duration::from_millis(50), Duration::from_secs(2));

    pub(crate) fn reset(&mut self) {
        self.next = self.shortest;
    }

    /// The next wait: between half of the current step and all of it, so that instances do not retry all at
    /// once.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.longest);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// A few milliseconds with jitter, for a claim that found its rows locked by other claims.
pub(crate) fn contention_delay() -> Duration {
    const LEAST_MILLIS: u64 = 2;
    const MOST_MILLIS: u64 = 20;
    Duration::from_millis(fastrand::u64(LEAST_MILLIS..=MOST_MILLIS))
}

/// Up to a twentieth shorter or longer: a server that stalled answers all instances at once, and they would
/// stay together.
pub(crate) fn with_jitter(interval: Duration) -> Duration {
    interval.mul_f64(0.95 + fastrand::f64() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_with_the_same_interval_drift_apart() {
        let all: Vec<u128> = (0..100).map(|_| with_jitter(Duration::from_secs(1)).as_millis()).collect();
        assert!(all.iter().all(|one| (950..=1050).contains(one)), "{all:?}");
        assert!(all.iter().any(|one| *one != all[0]));
    }

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_restarts_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        for bound in [50, 100, 200, 400, 800, 1000, 1000] {
            let step = backoff.next_delay().as_millis();
            assert!((bound / 2..=bound).contains(&step), "{step} of {bound}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(50));
    }
}
