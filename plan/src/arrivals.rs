//! How many tasks a second come, from counts that are noisy.

use std::collections::VecDeque;

use crate::{ARRIVAL_SECONDS, Arrivals};

/// How many seconds are remembered: the count of a minute is too noisy for tasks that take a minute.
const REMEMBERED: u16 = 300;

/// Windows that are shorter than all that is remembered, in seconds. Each replaces the estimate of the longer
/// one before it where it differs by more than noise does.
const WINDOWS: [usize; 5] = [120, 60, 30, 20, 10];

/// A window differs by more than noise if it differs by more than this many standard deviations. Chance does
/// that once in 370 looks, for each of the windows.
const SIGNIFICANT: f64 = 3.0;

/// This many of the busiest seconds of a window count as the next busiest one: a bulk is a backlog, not a
/// rate.
const BULK_SECONDS: usize = 3;

/// Stands for a second whose count is not known.
const UNKNOWN: u32 = u32::MAX;

/// The counts of the last minutes, kept between decisions.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ArrivalHistory {
    /// The second of the first entry.
    second: i64,
    /// Newest first. Empty while no task has come.
    counts: VecDeque<u32>,
}

impl ArrivalHistory {
    /// Adds what was seen. A task that was committed late is seen late, so the higher count of a second
    /// holds.
    pub(crate) fn note(&mut self, seen: &Arrivals) {
        let known = seen.known.min(ARRIVAL_SECONDS);
        let idle = seen.counts[..known].iter().all(|count| *count == 0);
        if self.counts.is_empty() && idle {
            return;
        }
        let gap = seen.second.saturating_sub(self.second);
        if self.counts.is_empty() || gap < 0 || gap > i64::from(REMEMBERED) {
            // The first ones, or the clock was set: what was before cannot be placed.
            self.counts.clear();
            self.counts.push_front(UNKNOWN);
        } else {
            for _ in 0..gap {
                self.counts.push_front(UNKNOWN);
            }
        }
        self.second = seen.second;
        self.counts.resize(self.counts.len().max(known).min(usize::from(REMEMBERED) + 1), UNKNOWN);
        for (kept, count) in self.counts.iter_mut().zip(&seen.counts[..known]) {
            let count = u32::try_from(*count).unwrap_or(UNKNOWN - 1).min(UNKNOWN - 1);
            *kept = if *kept == UNKNOWN { count } else { count.max(*kept) };
        }
        if self.counts.iter().all(|count| *count == 0 || *count == UNKNOWN) {
            self.counts.clear();
        }
    }

    /// The mean of the longest window, unless a shorter one differs significantly.
    pub(crate) fn rate(&self) -> Rate {
        // The newest second is not over.
        let complete: Vec<u32> = self.counts.iter().skip(1).copied().collect();
        let dispersion = dispersion(&complete);
        let longest = mean(&complete).map_or(0.0, |(mean, _)| mean);
        let mut rate = longest;
        for (mean, seconds) in WINDOWS.iter().filter_map(|length| mean(complete.get(..*length)?)) {
            let noise = (f64::max(rate * seconds, 1.0) * dispersion).sqrt();
            if ((mean - rate) * seconds).abs() > SIGNIFICANT * noise {
                rate = mean;
            }
        }
        Rate { per_second: rate, falling: rate < longest }
    }
}

/// How many tasks come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    /// Tasks a second.
    pub(crate) per_second: f64,
    /// Whether these are significantly fewer than in the longest window.
    pub(crate) falling: bool,
}

/// The mean of the known seconds and how many these are. Bulks are left out.
fn mean(window: &[u32]) -> Option<(f64, f64)> {
    let mut counts = Sum::<{ BULK_SECONDS + 1 }>::default();
    window.iter().filter(|count| **count != UNKNOWN).for_each(|count| counts.add(f64::from(*count)));
    let most = counts.largest().last()?;
    let ordinary: f64 = counts.largest().iter().map(|_| most).sum();
    Some(((counts.rest + ordinary) / f64::from(counts.count), f64::from(counts.count)))
}

/// The variance of a count relative to its mean: 1 if tasks arrive one by one and independently, more if they
/// arrive in groups. From the differences of neighbouring seconds, so that a rate that changes once does not
/// count.
fn dispersion(counts: &[u32]) -> f64 {
    // Bulks and changes of the rate are the largest differences.
    let mut squares = Sum::<{ 2 * BULK_SECONDS }>::default();
    let (mut known, mut before) = (Sum::<0>::default(), None);
    for count in counts.iter().filter(|count| **count != UNKNOWN).map(|count| f64::from(*count)) {
        known.add(count);
        if let Some(before) = before.replace(count) {
            squares.add((count - before).powi(2) / 2.0);
        }
    }
    let (variance, mean) = (squares.mean_without_largest(), known.mean_without_largest());
    if mean > 0.0 { (variance / mean).max(1.0) } else { 1.0 }
}

/// The `N` largest of some terms, the largest first, and the sum of the rest. Every queue needs it with every
/// decision, so nothing is sorted.
#[derive(Debug)]
struct Sum<const N: usize> {
    count: u32,
    largest: [f64; N],
    rest: f64,
}

impl<const N: usize> Default for Sum<N> {
    fn default() -> Self {
        Self { count: 0, largest: [f64::NEG_INFINITY; N], rest: 0.0 }
    }
}

impl<const N: usize> Sum<N> {
    fn add(&mut self, mut term: f64) {
        self.count += 1;
        // Most terms, so it is quick.
        if self.largest.last().is_some_and(|least| term.total_cmp(least).is_le()) {
            self.rest += term;
            return;
        }
        for larger in &mut self.largest {
            (*larger, term) = (larger.max(term), larger.min(term));
        }
        // There are no more than `N` terms so far.
        if term > f64::NEG_INFINITY {
            self.rest += term;
        }
    }

    fn largest(&self) -> &[f64] {
        &self.largest[..N.min(usize::try_from(self.count).unwrap_or(N))]
    }

    fn mean_without_largest(&self) -> f64 {
        let largest = u32::try_from(self.largest().len()).unwrap_or(self.count);
        self.rest / f64::from((self.count - largest).max(1))
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the numbers are exact")]
mod tests {
    use super::*;

    /// Polls every two seconds from the second `from` to `until`, with this many tasks in each second.
    fn polled(history: &mut ArrivalHistory, from: i64, until: i64, count: impl Fn(i64) -> u64) -> f64 {
        for second in (from..until).step_by(2) {
            let mut seen = Arrivals { second, counts: [0; ARRIVAL_SECONDS], known: ARRIVAL_SECONDS };
            for (slot, back) in seen.counts.iter_mut().zip(0..) {
                *slot = count(second - back);
            }
            history.note(&seen);
        }
        history.rate().per_second
    }

    fn rate(until: i64, count: impl Fn(i64) -> u64) -> f64 {
        polled(&mut ArrivalHistory::default(), 0, until, count)
    }

    /// 20 on average, with the variance of independent tasks.
    fn noisy(second: i64) -> u64 {
        20_u64.saturating_add_signed(
            [0, 4, -4, 5, -5, 1, -1, 8, -8, 0][usize::try_from((second * 7).rem_euclid(10)).unwrap()],
        )
    }

    #[test]
    fn a_steady_rate_is_its_mean() {
        let rate = rate(400, noisy);
        assert!((19.0..20.5).contains(&rate), "{rate}");
        // Two looks are enough to begin with.
        let early = super::tests::rate(2, |second| if second < 0 { 20 } else { 0 });
        assert!((15.0..25.0).contains(&early), "{early}");
    }

    #[test]
    fn a_step_is_seen_within_ten_seconds_and_so_is_its_end() {
        let step = |second| if (300..600).contains(&second) { noisy(second) } else { 0 };
        let mut history = ArrivalHistory::default();
        assert_eq!(polled(&mut history, 0, 300, step), 0.0);
        let begun = polled(&mut history, 300, 314, step);
        assert!((15.0..25.0).contains(&begun), "{begun}");
        polled(&mut history, 314, 600, step);
        assert_eq!(polled(&mut history, 600, 614, step), 0.0);
    }

    #[test]
    fn a_bulk_is_no_rate() {
        assert_eq!(rate(60, |second| if second == 50 { 10_000 } else { 0 }), 0.0);
        assert_eq!(rate(60, |second| if (50..53).contains(&second) { 3_000 } else { 0 }), 0.0);
        let beside = rate(300, |second| noisy(second) + if second == 290 { 10_000 } else { 0 });
        assert!((19.0..21.0).contains(&beside), "{beside}");
    }

    #[test]
    fn a_task_now_and_then_is_a_small_rate() {
        let rate = rate(400, |second| u64::from(second % 20 == 0));
        assert!((0.04..0.06).contains(&rate), "{rate}");
        assert_eq!(super::tests::rate(400, |second| u64::from(second % 150 == 0)), 0.0);
    }

    #[test]
    fn a_task_that_commits_late_counts_for_the_second_in_which_it_came() {
        let mut history = ArrivalHistory::default();
        history.note(&Arrivals { second: 100, counts: [1; ARRIVAL_SECONDS], known: ARRIVAL_SECONDS });
        history.note(&Arrivals { second: 102, counts: [9; ARRIVAL_SECONDS], known: ARRIVAL_SECONDS });
        history.note(&Arrivals { second: 102, counts: [5; ARRIVAL_SECONDS], known: ARRIVAL_SECONDS });
        assert_eq!(history.rate().per_second, (9.0 * 10.0 + 2.0) / 12.0);
    }

    #[test]
    fn what_was_not_seen_is_not_zero() {
        let mut history = ArrivalHistory::default();
        polled(&mut history, 0, 100, |_| 10);
        // No poll for a minute, and one of which only the last three seconds could be counted.
        let mut counts = [0; ARRIVAL_SECONDS];
        counts[..3].fill(10);
        history.note(&Arrivals { second: 160, counts, known: 3 });
        assert_eq!(history.rate().per_second, 10.0);
        // A clock that was set, either way.
        history.note(&Arrivals { second: 10, counts: [4; ARRIVAL_SECONDS], known: ARRIVAL_SECONDS });
        assert_eq!(history.rate().per_second, 4.0);
        history.note(&Arrivals { second: i64::MAX, counts: [u64::MAX; ARRIVAL_SECONDS], known: 99 });
        assert!(history.rate().per_second > 1e9);
        history.note(&Arrivals { second: i64::MIN, counts: [0; ARRIVAL_SECONDS], known: ARRIVAL_SECONDS });
        assert!(history.counts.is_empty(), "nothing is kept of an idle queue");
    }
}
