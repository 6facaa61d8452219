//! Spreads what hundreds of loops do at the same interval.

use std::time::Duration;

/// Up to a tenth shorter or longer, so that loops that were woken at the same time do not stay together.
pub(crate) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + fastrand::f64() / 5.0)
}

/// A random part of the interval, before something that all loops would do at once.
#[cfg(feature = "kube")]
pub(crate) fn part_of(interval: Duration) -> Duration {
    interval.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_with_the_same_interval_drift_apart() {
        let interval = Duration::from_secs(2);
        let all: Vec<Duration> = (0..100).map(|_| jittered(interval)).collect();
        assert!(all.iter().all(|one| (1800..=2200).contains(&one.as_millis())), "{all:?}");
        assert!(all.iter().any(|one| *one != all[0]));
    }
}
