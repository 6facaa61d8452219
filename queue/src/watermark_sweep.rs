//! The sweep of one queue: what claims have walked past is given a new place (R6).
//!
//! Every instance follows an exact watermark of its queue by what its own heartbeats note, and the instances of a queue take turns: how soon something
//! is swept depends neither on how many queues there are nor on how many instances.

use std::time::{Duration, Instant};

use sqlx::Row;

use crate::{Db, QueueId, Result, Watermarks, db::query, watermark::PARTS};

/// Rows swept in one statement.
const SWEEP_MOST: i32 = 1000;
/// Statements of one pass while each is full: a flood of late commits is moved at some thousands a second, and the other maintenance
/// wait no longer than for due tasks.
const SWEEP_ROUNDS: usize = 10;
/// How often it is said that so much has to be swept.
const SAY_EVERY: Duration = Duration::from_mins(10);
/// How often, over all instances of the queue together, it is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// While an older transaction is open the exact watermark stands still, for days where one was prepared and forgotten; what others commit
/// above it is swept all the same, but more seldom: each time from the same place, over all that died since.
const SWEEP_BESIDE_EVERY: Duration = Duration::from_secs(10);
/// How often, over all instances together, everything is swept from the very beginning: a failover may rewind the sequence of `k` below
/// what was noted.
const FULL_SWEEP_EVERY: Duration = Duration::from_mins(10);

/// What a heartbeat notes of the exact watermark: the next `k`, and a transaction id drawn after. Once no older transaction is open, nothing can
/// appear below that `k`.
#[derive(Debug, Clone, Copy, Default)]
pub struct HorizonNote {
    pub(crate) k: i64,
    pub(crate) xid: i64,
    /// The oldest transaction that was open then.
    pub(crate) xmin: i64,
    /// The live instances of the queue.
    pub(crate) peers: i32,
}

pub(crate) struct WatermarkSweeper {
    queue: QueueId,
    exact: [i64; PARTS],
    /// The newest `k` that was seen, and a note whose older transactions may be open.
    newest: i64,
    note: Option<(i64, i64)>,
    /// The `k` of a note whose older transactions are over, for the next sweep.
    confirmed: Option<i64>,
    /// Heartbeats note. They follow one another; a maintainer's notes would come between them out of order.
    heartbeats: bool,
    peers: u32,
    swept: Option<Instant>,
    swept_fully: Instant,
    said: Option<Instant>,
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
            said: None,
        }
    }

    pub(crate) fn note(&mut self, noted: &HorizonNote) {
        (self.heartbeats, self.peers) = (true, noted.peers.unsigned_abs().max(1));
        self.see(noted.k, noted.xid, noted.xmin);
    }

    /// The same of a maintainer that sends no heartbeats.
    pub(crate) fn note_without_heartbeats(&mut self, k: i64, xid: i64, xmin: i64) {
        if !self.heartbeats {
            self.see(k, xid, xmin);
        }
    }

    /// Takes in a note, and sees whether the last one is confirmed.
    fn see(&mut self, k: i64, xid: i64, xmin: i64) {
        if k < self.newest {
            // A failover took the sequence back: what was noted before says nothing.
            (self.exact, self.note, self.confirmed) = ([0; PARTS], None, None);
        }
        self.newest = k;
        if let Some((k, _)) = self.note.take_if(|(_, noted)| *noted <= xmin) {
            self.confirmed = Some(k);
        }
        self.note.get_or_insert((k, xid));
    }

    /// Sweeps from the exact watermark up to where claims start, if it is due for this instance. Returns how many rows were swept.
    pub(crate) async fn run_once(&mut self, db: &Db, watermarks: &Watermarks) -> Result<u64> {
        if !self.is_due() {
            return Ok(0);
        }
        if FULL_SWEEP_EVERY * self.peers <= self.swept_fully.elapsed() {
            self.swept_fully = Instant::now();
            self.exact = [0; PARTS];
        }
        // Nothing lies between the two when all is quiet.
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
            if self.said.is_none_or(|said| SAY_EVERY <= said.elapsed()) {
                self.said = Some(Instant::now());
                tracing::warn!(
                    "many transactions that enqueue commit late, so their tasks start seconds later; see docs/operations.md"
                );
            }
        }
        Ok(swept)
    }

    /// One statement; `None`: another instance is at it.
    async fn move_missed(&mut self, db: &Db, watermarks: &Watermarks) -> Result<Option<i32>> {
        let row = db
            .one(
                query("select rowlock.move_missed($1, $2, $3, $4), rowlock.least_k($1, $2)")
                    .bind(self.queue.0)
                    .bind(self.exact.as_slice())
                    .bind(watermarks.as_slice())
                    .bind(SWEEP_MOST),
            )
            .await?;
        let Some(swept) = row.try_get::<Option<i32>, _>(0)? else { return Ok(None) };
        if let Some(confirmed) = self.confirmed.take_if(|_| swept < SWEEP_MOST) {
            for (exact, least) in self.exact.iter_mut().zip(row.try_get::<Vec<Option<i64>>, _>(1)?) {
                *exact = (*exact).max(least.map_or(confirmed, |least| least.min(confirmed)));
            }
        }
        Ok(Some(swept))
    }

    /// The more instances, the more seldom each.
    fn is_due(&self) -> bool {
        let every = if self.confirmed.is_some() { SWEEP_EVERY } else { SWEEP_BESIDE_EVERY };
        self.swept.is_none_or(|swept| every * self.peers <= swept.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_confirmed_when_the_transactions_before_it_are_over() {
        let mut sweeper = WatermarkSweeper::new(QueueId(1));
        sweeper.see(10, 100, 90);
        sweeper.see(20, 110, 99);
        assert_eq!(sweeper.confirmed, None, "one below 100 is open");
        sweeper.see(30, 120, 100);
        assert_eq!((sweeper.confirmed, sweeper.note), (Some(10), Some((30, 120))));
    }

    #[test]
    fn a_sequence_that_went_back_starts_anew() {
        let mut sweeper = WatermarkSweeper::new(QueueId(1));
        sweeper.exact = [50; PARTS];
        sweeper.see(60, 100, 90);
        sweeper.see(3, 110, 110);
        assert_eq!((sweeper.exact, sweeper.confirmed, sweeper.note), ([0; PARTS], None, Some((3, 110))));
    }
}
