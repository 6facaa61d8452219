//! The least number of workers with which few tasks wait for long: Erlang's formula C.

/// Where more workers than this are busy, waiting is so rare at any utilisation below 1 that the formula
/// adds nothing; it would take as many steps.
const MOST: f64 = 2000.0;

/// The least number of workers with which a task waits longer than `seconds` with a probability of at most
/// `share`, if `busy` workers are busy on average, and a task takes `mean` seconds with the given squared
/// coefficient of variation.
///
/// The probability that a task waits is Erlang's C. How long it waits falls off exponentially, at the rate at
/// which `workers - busy` workers become free, divided by `(1 + variation) / 2` (the approximation of Allen
/// and Cunneen for tasks whose times are not exponentially distributed).
pub(crate) fn least_workers(busy: f64, mean: f64, variation: f64, seconds: f64, share: f64) -> f64 {
    if busy <= 0.0 || busy > MOST {
        return busy.max(0.0);
    }
    // Erlang's B, the probability that all of `workers` are busy where none may wait.
    let (mut blocked, mut workers) = (1.0, 0.0);
    loop {
        workers += 1.0;
        blocked = busy * blocked / (workers + busy * blocked);
        if workers <= busy {
            continue;
        }
        let waits = blocked / (1.0 - (busy / workers) * (1.0 - blocked));
        let falls = (workers - busy) * seconds / (mean.max(1e-6) * f64::midpoint(1.0, variation));
        if waits * (-falls).exp() <= share || workers > 2.0 * MOST {
            return workers;
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the numbers are exact")]
mod tests {
    use super::*;

    /// Against tables of Erlang's C: 10 busy of 11, 12, 14 and 16 workers wait with a probability of 0.6821,
    /// 0.4494, 0.1741 and 0.0573.
    #[test]
    fn the_formula_is_erlangs() {
        for (share, workers) in [(0.69, 11.0), (0.68, 12.0), (0.45, 12.0), (0.175, 14.0), (0.0574, 16.0)] {
            assert_eq!(least_workers(10.0, 1.0, 1.0, 0.0, share), workers, "{share}");
        }
    }

    #[test]
    fn who_may_wait_longer_needs_fewer_workers() {
        let workers = |seconds| least_workers(10.0, 1.0, 1.0, seconds, 0.05);
        assert_eq!([workers(0.0), workers(0.5), workers(2.5), workers(60.0)], [17.0, 14.0, 12.0, 11.0]);
        // Times that vary more make longer queues.
        assert_eq!(least_workers(10.0, 1.0, 10.0, 2.5, 0.05), 14.0);
        // Long tasks leave no time to wait for one to end.
        assert_eq!(least_workers(10.0, 60.0, 1.0, 2.5, 0.05), 16.0);
    }

    #[test]
    fn the_ends_of_the_scale_end() {
        assert_eq!(least_workers(0.0, 1.0, 1.0, 1.0, 0.05), 0.0);
        assert_eq!(least_workers(-1.0, 1.0, 1.0, 1.0, 0.05), 0.0);
        assert_eq!(least_workers(1e9, 1.0, 1.0, 1.0, 0.05), 1e9);
        assert!(least_workers(MOST, 1e12, 30.0, 0.0, 0.0) > MOST);
        assert_eq!(least_workers(1e-9, 0.0, 0.0, 1.0, 0.05), 1.0);
    }
}
