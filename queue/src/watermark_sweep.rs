//! The sweep: finds tasks that lie below the watermark and gives them a new `k` (R6).
//!
//! A task is there if its transaction committed late. Every instance computes an exact watermark of its queue
//! from the notes of its heartbeats, and the instances of a queue take turns at sweeping. So the delay of
//! such a task depends neither on the number of queues nor on the number of instances.

use std::time::{Duration, Instant};

use sqlx::Row;

use crate::{Db, QueueId, Result, Watermarks, db::query, watermarks::PARTS};

/// The most rows of one statement.
const SWEEP_MOST: i32 = 1000;
/// The most statements of one pass. Many late commits are moved at some thousands a second, and other
/// maintenance is delayed no longer than by due tasks.
const SWEEP_ROUNDS: usize = 10;
/// How often the log warns about many late commits.
const LOG_EVERY: Duration = Duration::from_mins(10);
/// How often a queue is swept, by all its instances together.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// The same while an old transaction is open. Then the exact watermark cannot advance, for days if a prepared
/// transaction was forgotten, and each sweep reads all rows that died since. Late commits of other
/// transactions are still found, but less often.
const SWEEP_BLOCKED_EVERY: Duration = Duration::from_secs(10);
/// How often a queue is swept from the very beginning, by all its instances together: a failover may rewind
/// the sequence of `k` below the exact watermark.
const FULL_SWEEP_EVERY: Duration = Duration::from_mins(10);

/// The note of a heartbeat for the exact watermark: the next `k`, and a transaction id drawn after it. Once
/// no older transaction is open, no task can appear below that `k`.
#[derive(Debug, Clone, Copy, Default)]
pub struct HorizonNote {
    pub(crate) k: i64,
    pub(crate) xid: i64,
    /// The oldest transaction that was open at that time.
    pub(crate) xmin: i64,
    /// The number of live instances of the queue.
    pub(crate) peers: i32,
}

/// Moves missed rows, and reads the least `k` that remains in each shard.
const MOVE_MISSED: &str =
    "select rowlock.move_missed($1, $2, $3, $4) as moved, rowlock.least_k($1, $2) as least_ks";

pub(crate) struct WatermarkSweeper {
    queue: QueueId,
    exact: [i64; PARTS],
    /// The newest `k` that was seen, and a note whose older transactions may still be open.
    newest: i64,
    note: Option<(i64, i64)>,
    /// The `k` of a note whose older transactions have ended, for the next sweep.
    confirmed: Option<i64>,
    /// Whether heartbeats bring notes. Then notes of maintenance passes are ignored: they could arrive out of
    /// order.
    heartbeats: bool,
    peers: u32,
    swept: Option<Instant>,
    swept_fully: Instant,
    logged: Option<Instant>,
}

impl WatermarkSweeper {
    pub(crate) fn new(queue: QueueId) -> Self {
        let now = Instant::now();
        Self {
            queue,
            exact: [0; PARTS],
            newest: 0,
            note: None,
            confirmed: None,
            heartbeats: false,
            peers: 1,
            swept: None,
            swept_fully: now,
            logged: None,
        }
    }

    pub(crate) fn note(&mut self, noted: &HorizonNote) {
        (self.heartbeats, self.peers) = (true, noted.peers.unsigned_abs().max(1));
        self.see(noted.k, noted.xid, noted.xmin);
    }

    /// The same for a maintainer that sends no heartbeats.
    pub(crate) fn note_without_heartbeats(&mut self, k: i64, xid: i64, xmin: i64) {
        if !self.heartbeats {
            self.see(k, xid, xmin);
        }
    }

    /// Takes a note, and checks whether the last one is confirmed.
    fn see(&mut self, k: i64, xid: i64, xmin: i64) {
        if k < self.newest {
            // A failover rewound the sequence, so older notes are void.
            (self.exact, self.note, self.confirmed) = ([0; PARTS], None, None);
        }
        self.newest = k;
        if let Some((k, _)) = self.note.take_if(|(_, noted)| *noted <= xmin) {
            self.confirmed = Some(k);
        }
        self.note.get_or_insert((k, xid));
    }

    /// Sweeps from the exact watermark up to where claims start, if it is this instance's turn. Returns the
    /// number of moved rows.
    pub(crate) async fn run_once(&mut self, db: &Db, watermarks: &Watermarks) -> Result<u64> {
        if !self.is_due() {
            return Ok(0);
        }
        if FULL_SWEEP_EVERY * self.peers <= self.swept_fully.elapsed() {
            self.swept_fully = Instant::now();
            self.exact = [0; PARTS];
        }
        // In a quiet queue both watermarks are the same.
        if self.exact.iter().zip(watermarks.as_slice()).all(|(exact, watermark)| watermark <= exact) {
            return Ok(0);
        }
        self.swept = Some(Instant::now());
        let mut swept = 0;
        for _ in 0..SWEEP_ROUNDS {
            let Some(rows) = self.move_missed(db, watermarks).await? else { break };
            swept += u64::from(rows.unsigned_abs());
            if rows < SWEEP_MOST {
                break;
            }
            if self.logged.is_none_or(|logged| LOG_EVERY <= logged.elapsed()) {
                self.logged = Some(Instant::now());
                tracing::warn!(
                    "many transactions commit long after they enqueued, which delays their tasks by \
                     seconds; see docs/operations.md"
                );
            }
        }
        Ok(swept)
    }

    /// Runs one statement; `None`: another instance is sweeping.
    async fn move_missed(&mut self, db: &Db, watermarks: &Watermarks) -> Result<Option<i32>> {
        let row = db
            .one(
                query(MOVE_MISSED)
                    .bind(self.queue.0)
                    .bind(self.exact.as_slice())
                    .bind(watermarks.as_slice())
                    .bind(SWEEP_MOST),
            )
            .await?;
        let Some(swept) = row.try_get::<Option<i32>, _>("moved")? else { return Ok(None) };
        if let Some(confirmed) = self.confirmed.take_if(|_| swept < SWEEP_MOST) {
            for (exact, least) in self.exact.iter_mut().zip(row.try_get::<Vec<Option<i64>>, _>("least_ks")?) {
                *exact = (*exact).max(least.map_or(confirmed, |least| least.min(confirmed)));
            }
        }
        Ok(Some(swept))
    }

    /// Each instance sweeps less often the more instances there are.
    fn is_due(&self) -> bool {
        let every = if self.confirmed.is_some() { SWEEP_EVERY } else { SWEEP_BLOCKED_EVERY };
        self.swept.is_none_or(|swept| every * self.peers <= swept.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_confirmed_once_all_older_transactions_have_ended() {
        let mut sweeper = WatermarkSweeper::new(QueueId(1));
        sweeper.see(10, 100, 90);
        sweeper.see(20, 110, 99);
        assert_eq!(sweeper.confirmed, None, "a transaction below 100 is open");
        sweeper.see(30, 120, 100);
        assert_eq!((sweeper.confirmed, sweeper.note), (Some(10), Some((30, 120))));
    }

    #[test]
    fn a_rewound_sequence_resets_the_exact_watermark() {
        let mut sweeper = WatermarkSweeper::new(QueueId(1));
        sweeper.exact = [50; PARTS];
        sweeper.see(60, 100, 90);
        sweeper.see(3, 110, 110);
        assert_eq!((sweeper.exact, sweeper.confirmed, sweeper.note), ([0; PARTS], None, Some((3, 110))));
    }
}
