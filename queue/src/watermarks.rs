//! Watermarks: the `k` at which a claim starts to search (R3, R6).
//!
//! A claim must not read the dead rows before the first live one: while the xmin horizon is pinned they stay
//! for hours. So it starts at a watermark, one for each of the four shards of the four priorities. The
//! watermark lags behind: it is never above the newest `k` that was drawn before [`LAG`], because a
//! transaction that drew a `k` may commit up to 50 ms later without getting a new one.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How far the watermark stays behind the newest `k`. It is five times the age at which a committing
/// transaction gives its rows a new `k` (50 ms), which leaves time for a slow flush. Each dead row in between
/// costs a claim 0.16 µs.
const LAG: Duration = Duration::from_millis(250);

/// Four priorities, each in four shards, in this order.
pub(crate) const PARTS: usize = 16;

/// The most notes that wait to become old enough, at one per [`NOTE_EVERY`].
const NOTES: usize = 64;
const NOTE_EVERY: Duration = Duration::from_millis(10);

/// What a claim or heartbeat observed in the queue.
#[derive(Debug, Clone)]
pub struct WatermarkObservation {
    /// When the statement was sent.
    pub sent: Instant,
    /// The newest `k` that was drawn; 0: the statement did not look.
    pub newest: i64,
    /// For each shard of each priority the least available `k` at or above the watermark that was sent;
    /// `None`: none.
    pub least: Vec<Option<i64>>,
}

/// The watermark of each shard of each priority.
#[derive(Debug, Clone, Default)]
pub struct Watermarks {
    watermarks: [i64; PARTS],
    notes: VecDeque<(Instant, i64)>,
}

impl Watermarks {
    /// Starts from published watermarks, or from zero. From zero, the first claim reads all dead rows once.
    #[must_use]
    pub fn starting_at(watermarks: Option<Vec<i64>>) -> Self {
        let watermarks = watermarks.and_then(|watermarks| watermarks.try_into().ok()).unwrap_or_default();
        Self { watermarks, notes: VecDeque::new() }
    }

    /// The watermarks, as a claim or heartbeat sends them.
    #[must_use]
    pub fn as_slice(&self) -> &[i64] {
        &self.watermarks
    }

    /// Takes the observation of a claim or heartbeat that was sent with these watermarks or older ones. The
    /// time of sending counts: a late answer does not include what became available in between.
    pub fn advance(&mut self, seen: &WatermarkObservation) {
        let now = seen.sent;
        if seen.newest == 0 || seen.least.len() != self.watermarks.len() {
            return;
        }
        let mut old_enough = None;
        while self.notes.front().is_some_and(|(at, _)| *at + LAG <= now) {
            old_enough = self.notes.pop_front();
        }
        if let Some((_, newest)) = old_enough {
            for (watermark, least) in self.watermarks.iter_mut().zip(&seen.least) {
                *watermark = (*watermark).max(least.map_or(newest, |least| least.min(newest)));
            }
        }
        if self.notes.back().is_none_or(|(at, _)| *at + NOTE_EVERY <= now) && self.notes.len() < NOTES {
            self.notes.push_back((now, seen.newest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sent: Instant, newest: i64, least: Option<i64>) -> WatermarkObservation {
        let mut parts = vec![None; PARTS];
        parts[5] = least;
        WatermarkObservation { sent, newest, least: parts }
    }

    #[test]
    fn a_watermark_stays_behind_the_newest_k_and_never_passes_an_available_task() {
        let start = Instant::now();
        let mut watermarks = Watermarks::default();
        watermarks.advance(&seen(start, 100, None));
        watermarks.advance(&seen(start + LAG / 2, 200, None));
        assert_eq!(watermarks.as_slice(), [0; PARTS], "nothing is old enough yet");
        watermarks.advance(&seen(start + LAG, 300, Some(40)));
        assert_eq!(watermarks.as_slice()[4..7], [100, 40, 100], "40 is available, so its shard stops there");
        watermarks.advance(&seen(start + 3 * LAG, 400, None));
        assert_eq!(watermarks.as_slice(), [300; PARTS], "the watermarks of an empty queue advance too");
    }

    #[test]
    fn a_watermark_never_goes_back() {
        let start = Instant::now();
        let mut watermarks = Watermarks::starting_at(Some(vec![500; PARTS]));
        watermarks.advance(&seen(start, 100, Some(10)));
        watermarks.advance(&seen(start + LAG, 100, Some(10)));
        assert_eq!(watermarks.as_slice(), [500; PARTS]);
    }
}
