//! How long the pods of a queue take to start, by those that started lately.

use std::collections::VecDeque;
use std::time::Duration;

/// How many starts are remembered: enough that a few odd ones do not matter, few enough that a faster or
/// slower image shows after some starts.
const STARTS: usize = 10;

/// No start counts for less. Kubernetes' timestamps are whole seconds, and two of them may be the same.
const LEAST_START: Duration = Duration::from_millis(500);

/// No start counts for more. A pod that waited longer waited for a node or for its image, and decisions that
/// look further ahead would be guesses.
const LONGEST_START: Duration = Duration::from_mins(10);

/// The last starts of one queue's pods: from when a pod was asked for until it was ready for the first time.
#[derive(Debug, Clone, Default)]
pub struct PodStarts {
    last: VecDeque<Duration>,
}

impl PodStarts {
    /// A pod became ready for the first time, after this long.
    pub fn note(&mut self, took: Duration) {
        if self.last.len() == STARTS {
            self.last.pop_front();
        }
        self.last.push_back(took.clamp(LEAST_START, LONGEST_START));
    }

    /// Their median: half a second to ten minutes; the shorter of two in the middle. `None` before any start.
    #[must_use]
    pub fn usual(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(seconds: &[u64]) -> Option<u64> {
        let mut starts = PodStarts::default();
        for took in seconds {
            starts.note(Duration::from_secs(*took));
        }
        starts.usual().map(|usual| usual.as_secs())
    }

    #[test]
    fn the_median_of_the_last_ten_starts_is_the_usual_one() {
        assert_eq!(usual(&[]), None);
        assert_eq!(usual(&[7]), Some(7));
        assert_eq!(usual(&[300, 7]), Some(7), "one odd start of two does not count");
        assert_eq!(usual(&[3, 4, 300]), Some(4));
        assert_eq!(usual(&[3, 3, 3, 3, 3, 40, 40, 40, 40, 40]), Some(3));
        // A new image is slower.
        assert_eq!(usual(&[3, 3, 3, 3, 3, 40, 40, 40, 40, 40, 40]), Some(40));
        let after_thousands: Vec<u64> = (0..5000).map(|_| 9).chain([5; 10]).collect();
        assert_eq!(usual(&after_thousands), Some(5));
    }

    #[test]
    fn a_start_counts_for_half_a_second_to_ten_minutes() {
        let one = |took| {
            let mut starts = PodStarts::default();
            starts.note(took);
            starts.usual()
        };
        assert_eq!(one(Duration::ZERO), Some(LEAST_START));
        assert_eq!(one(Duration::MAX), Some(LONGEST_START));
    }
}
