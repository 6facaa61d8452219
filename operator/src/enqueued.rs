//! Counts the tasks that are enqueued in a queue, by the seconds in their ids.

use std::collections::BTreeMap;

use rowlock_queue::{ARRIVAL_SECONDS, QueueStats};

/// Each poll says how many tasks have come in each of the last seconds. What a second has more than in the
/// poll before is new, also if its transaction committed some seconds late.
#[derive(Debug, Clone, Default)]
pub(crate) struct Enqueued {
    total: u64,
    /// The seconds of the last poll, with their tasks. Empty before the first poll.
    seconds: BTreeMap<i64, u64>,
}

impl Enqueued {
    /// Takes the statistics of a poll. Those of the first poll were enqueued before, perhaps under another
    /// leader, which has counted them.
    pub(crate) fn note(&mut self, stats: &QueueStats) {
        let known = &stats.enqueued[..stats.arrivals_known.min(ARRIVAL_SECONDS)];
        let newest = self.seconds.last_key_value().map(|(second, _)| *second);
        for (ago, tasks) in (0..).zip(known.iter().copied()) {
            let second = stats.arrivals_second.saturating_sub(ago);
            let before = match (self.seconds.get(&second), newest) {
                (Some(before), _) => *before,
                (None, Some(newest)) if newest < second => 0,
                // The first poll, or the clock of the database has stepped back.
                (None, _) => tasks,
            };
            self.total = self.total.saturating_add(tasks.saturating_sub(before));
            self.seconds.insert(second, tasks.max(before));
        }
        let oldest = stats.arrivals_second.saturating_sub(LAST_SECOND);
        self.seconds.retain(|second, _| (oldest..=stats.arrivals_second).contains(second));
    }

    /// The next poll is the first one of another database.
    pub(crate) fn forget_database(&mut self) {
        self.seconds.clear();
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

/// The oldest second of a poll, counted back from the current one.
const LAST_SECOND: i64 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_poller::declared;

    fn polled(second: i64, known: usize, newest_first: &[u64]) -> QueueStats {
        let mut stats = declared("mail", "o", 1).stats;
        (stats.arrivals_second, stats.arrivals_known) = (second, known);
        stats.enqueued[..newest_first.len()].copy_from_slice(newest_first);
        stats
    }

    #[test]
    fn each_task_counts_once_and_those_before_the_first_poll_do_not() {
        let mut enqueued = Enqueued::default();
        for (second, known, newest_first, expected) in [
            (100, 11, vec![3, 5], 0),
            (100, 11, vec![4, 5], 1),
            (102, 11, vec![0, 7, 4, 6], 9),
            // A second that is not known any more, and one that nobody saw before it was over.
            (104, 3, vec![2, 8, 1], 20),
            (125, 11, vec![1], 21),
            // Another server has another clock.
            (50, 11, vec![9, 9, 9], 21),
            (51, 11, vec![1, 10, 9, 9], 23),
        ] {
            enqueued.note(&polled(second, known, &newest_first));
            assert_eq!(enqueued.total(), expected, "{second}");
        }
        enqueued.forget_database();
        enqueued.note(&polled(52, 11, &[40]));
        assert_eq!(enqueued.total(), 23);
        assert_eq!(usize::try_from(LAST_SECOND + 1), Ok(ARRIVAL_SECONDS));
    }
}
