//! When tasks are enqueued: a burst into an idle queue, then a ramp from nothing to a steep end.

use std::time::Duration;

const BURST_AT: Duration = Duration::from_secs(20);
const BURST_TASKS: usize = 800;

/// The ramp, and its rate at the top.
const RAMP_FROM: f64 = 120.0;
const RAMP_SECONDS: f64 = 180.0;
const TOP_PER_SECOND: f64 = 40.0;

/// Three minutes longer than the ramp, to see what is kept after it.
const LASTS: Duration = Duration::from_mins(8);
const LASTS_WITH_BURST_ONLY: Duration = Duration::from_mins(2);

/// The tasks that each queue gets.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) seed: u64,
    /// In order, from the begin.
    pub(super) arrivals: Vec<Duration>,
    pub(super) lasts: Duration,
}

impl Load {
    pub(super) const BURST_AT: Duration = BURST_AT;

    pub(super) fn new(seed: u64, burst_only: bool) -> Self {
        let mut arrivals = vec![BURST_AT; BURST_TASKS];
        if burst_only {
            return Self { seed, arrivals, lasts: LASTS_WITH_BURST_ONLY };
        }
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut at = 0.0;
        loop {
            // A Poisson process of the highest rate, thinned to the rate of the moment.
            at -= (1.0 - rng.f64()).ln() / TOP_PER_SECOND;
            if at > RAMP_SECONDS {
                return Self { seed, arrivals, lasts: LASTS };
            }
            if rng.f64() < at / RAMP_SECONDS {
                arrivals.push(Duration::from_secs_f64(RAMP_FROM + at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_load_with_a_ramp_that_grows() {
        let load = Load::new(7, false);
        assert_eq!(load.arrivals, Load::new(7, false).arrivals);
        assert_ne!(load.arrivals, Load::new(8, false).arrivals);
        assert!(load.arrivals.is_sorted() && load.arrivals.iter().all(|at| *at < load.lasts));
        let until = |seconds: f64| {
            load.arrivals.iter().filter(|at| at.as_secs_f64() < RAMP_FROM + seconds).count() - BURST_TASKS
        };
        // A quarter of a linear ramp's tasks come in its first half.
        let (half, whole) = (until(RAMP_SECONDS / 2.0), until(RAMP_SECONDS));
        assert!((3_200..4_000).contains(&whole) && (half * 10 / whole) == 2, "{half} of {whole}");
    }
}
