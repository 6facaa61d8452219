//! The caretakers: promote what is due, sweep what a claim would miss, rescue the tasks of the dead, prune, and make partitions.
//! Any instance, or the operator for queues asleep; whoever gets the try-lock does it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use sqlx::{Row, types::time::OffsetDateTime};

use crate::{Db, InstanceId, LEASE, Lows, QueueId, Result, db::query, lows::PARTS, partitions};

/// Tasks moved in one statement: a few milliseconds of work (measurements 4).
const PROMOTE_MOST: i32 = 1000;
/// Statements of one pass, so that a flood of due tasks does not keep the other duties waiting.
const PROMOTE_ROUNDS: usize = 10;
/// Rows swept in one pass.
const SWEEP_MOST: i32 = 1000;
/// Instances rescued in one pass; the next comes a second later.
const RESCUE_MOST: usize = 20;
/// How often the living are looked through.
const PULSES_EVERY: Duration = Duration::from_secs(5);
/// Over all instances together about this many passes a second, however many they are.
const PASSES_PER_SECOND: f64 = 2.0;
/// How often, over all instances together, retention and partitions are looked at: both have hours of room.
const HOUSEKEEPING_EVERY: Duration = Duration::from_mins(1);
/// How often, over all instances together, the backlog is compared with its limit.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// While an older transaction is open the exact watermark stands still, for days where one was prepared and forgotten; what others commit
/// above it is swept all the same, but more seldom: each time from the same place, over all that died since.
const SWEEP_BESIDE_EVERY: Duration = Duration::from_secs(10);
/// How often, over all instances together, everything is swept from the very beginning: a failover may rewind the sequence of `k` below
/// what was noted.
const FULL_SWEEP_EVERY: Duration = Duration::from_mins(10);
/// Every so often due tasks are looked for from the very beginning, whatever the watermark says.
const FULL_PASS_EVERY: Duration = Duration::from_mins(1);
/// Dead tasks and kept bodies pruned in one pass.
const PRUNE_MOST: i32 = 1000;

/// What a pass did.
#[derive(Debug, Clone, Default)]
pub struct CareReport {
    /// Due tasks that became available.
    pub promoted: u64,
    /// Rows given a new place because claims had walked past them.
    pub swept: u64,
    /// Tasks taken back from instances that stopped beating.
    pub rescued: u64,
    /// Partitions that went.
    pub pruned: u64,
    /// For how many hours partitions exist; `None`: not looked at in this pass.
    pub partitions_hours_left: Option<f64>,
}

/// A note of the exact watermark (R6): the next `k`, and a transaction id drawn after. Once no older transaction is open,
/// nothing can appear below it.
struct Note {
    k: i64,
    xid: u64,
    at: OffsetDateTime,
}

/// What a caretaker remembers between passes.
#[derive(Default)]
pub struct Caretaker {
    queue: Option<QueueId>,
    due_low: Option<OffsetDateTime>,
    full_pass: Option<Instant>,
    exact: [i64; PARTS],
    note: Option<Note>,
    /// The newest beat of each instance, and since when it stands still on our own clock (R4).
    pulses: HashMap<InstanceId, (i64, Instant)>,
    pulses_at: Option<Instant>,
    /// How many instances live, as of the last look.
    living: f64,
    /// Whether it has tidied, and kept house, at all.
    tidied: bool,
    kept_house: bool,
}

/// The number of the newest beat of every instance that lives.
type Pulses = Vec<(InstanceId, i64)>;

impl std::fmt::Debug for Caretaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caretaker").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl Caretaker {
    /// For what all queues of a database share.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As an instance of `queue`, which also sweeps it.
    #[must_use]
    pub fn of_queue(queue: QueueId) -> Self {
        Self { queue: Some(queue), ..Self::default() }
    }

    /// One pass; call it every second. `chain_since`: since when the caller's own beats have all been answered; only
    /// what it saw standing still for a whole lease of them may be rescued. `None`: it does not beat, and judges nobody. `lows`: from where the caller's claims walk.
    pub async fn run_once(
        &mut self,
        db: &Db,
        chain_since: Option<Instant>,
        lows: Option<&Lows>,
    ) -> Result<CareReport> {
        let mut report = CareReport::default();
        if PASSES_PER_SECOND <= fastrand::f64() * self.living {
            return Ok(report);
        }
        let looks = due(&mut self.pulses_at, PULSES_EVERY);
        let tidies = !std::mem::replace(&mut self.tidied, true) || self.has_turn(TIDY_EVERY);
        match self.promote_and_sweep(db, lows, tidies, looks, &mut report).await? {
            Some(pulses) => report.rescued = self.rescue(db, pulses, chain_since).await?,
            None if looks => self.pulses_at = None,
            None => (),
        }
        if !std::mem::replace(&mut self.kept_house, true) || self.has_turn(HOUSEKEEPING_EVERY) {
            report.partitions_hours_left = partitions::extend_partitions(db).await?;
            db.all(query("select rowlock.prune_dead($1)").bind(PRUNE_MOST)).await?;
            // Last: it gives up, until the next time, where a producer's open transaction is in the way.
            report.pruned = partitions::prune(db).await? as u64;
        }
        Ok(report)
    }

    /// Whether this pass is the one that does what all instances together do once in `every`.
    fn has_turn(&self, every: Duration) -> bool {
        let passes = every.as_secs_f64() * self.living.clamp(1.0, PASSES_PER_SECOND);
        fastrand::f64() * passes < 1.0
    }

    /// Answers with the newest beats, if they were asked for and nobody else was at it.
    async fn promote_and_sweep(
        &mut self,
        db: &Db,
        lows: Option<&Lows>,
        tidies: bool,
        looks: bool,
        report: &mut CareReport,
    ) -> Result<Option<Pulses>> {
        if due(&mut self.full_pass, FULL_PASS_EVERY) {
            self.due_low = None;
        }
        let mut pulses = None;
        for round in 0..PROMOTE_ROUNDS {
            let first = round == 0;
            let row = db
                .maybe(
                    query(
                        "select moved, more, next, k, xid::bigint, xmin::bigint, at, instances, beats
                         from rowlock.care(coalesce($1, '-infinity'), $2, $3, $4)",
                    )
                    .bind(self.due_low)
                    .bind(PROMOTE_MOST)
                    .bind(tidies && first)
                    .bind(looks && first),
                )
                .await?;
            let Some(row) = row else { break };
            if looks && first {
                let instances = row.try_get::<Option<Vec<i64>>, _>(7)?.unwrap_or_default();
                let beats = row.try_get::<Option<Vec<i64>>, _>(8)?.unwrap_or_default();
                pulses = Some(instances.into_iter().map(InstanceId).zip(beats).collect());
            }
            report.promoted += u64::from(row.try_get::<i32, _>(0)?.unsigned_abs());
            let xmin = row.try_get::<i64, _>(5)?.unsigned_abs();
            let note = Note {
                k: row.try_get(3)?,
                xid: row.try_get::<i64, _>(4)?.unsigned_abs(),
                at: row.try_get(6)?,
            };
            let more: bool = row.try_get(1)?;
            self.take(db, note, xmin, row.try_get(2)?, more, lows, report).await?;
            if !more {
                break;
            }
        }
        Ok(pulses)
    }

    /// Moves the watermarks when the noted transactions are over, and sweeps.
    #[expect(clippy::too_many_arguments, reason = "the columns of one row")]
    async fn take(
        &mut self,
        db: &Db,
        note: Note,
        xmin: u64,
        next_due: Option<OffsetDateTime>,
        more: bool,
        lows: Option<&Lows>,
        report: &mut CareReport,
    ) -> Result<()> {
        let noted = self.note.take_if(|noted| noted.xid <= xmin);
        if let Some(noted) = &noted {
            // A clock that stepped back makes every due time suspect.
            self.due_low = if note.at < noted.at {
                None
            } else {
                Some(next_due.map_or(noted.at, |next| next.min(noted.at)))
            };
        }
        if noted.as_ref().is_some_and(|noted| note.k < noted.k) || self.has_turn(FULL_SWEEP_EVERY) {
            self.exact = [0; PARTS];
        }
        if !more && (noted.is_some() || self.has_turn(SWEEP_BESIDE_EVERY)) {
            self.sweep(db, lows, noted.as_ref(), report).await?;
        }
        match noted {
            Some(_) => self.note = Some(note),
            None => _ = self.note.get_or_insert(note),
        }
        Ok(())
    }

    /// Sweeps from the exact watermark up to where claims start. `noted`: a note whose older transactions are over; the watermark follows.
    async fn sweep(
        &mut self,
        db: &Db,
        lows: Option<&Lows>,
        noted: Option<&Note>,
        report: &mut CareReport,
    ) -> Result<()> {
        // Nothing lies between the two when all is quiet.
        let between = |lows: &Lows| self.exact.iter().zip(lows.as_slice()).any(|(exact, low)| exact < low);
        let (Some(queue), Some(lows)) = (self.queue, lows.filter(|lows| between(lows))) else {
            return Ok(());
        };
        let row = db
            .one(
                query("select rowlock.sweep($1, $2, $3, $4), rowlock.least_k($1, $2)")
                    .bind(queue.0)
                    .bind(self.exact.as_slice())
                    .bind(lows.as_slice())
                    .bind(SWEEP_MOST),
            )
            .await?;
        let Some(swept) = row.try_get::<Option<i32>, _>(0)? else { return Ok(()) };
        report.swept += u64::from(swept.unsigned_abs());
        if let Some(noted) = noted.filter(|_| swept < SWEEP_MOST) {
            for (exact, least) in self.exact.iter_mut().zip(row.try_get::<Vec<Option<i64>>, _>(1)?) {
                *exact = (*exact).max(least.map_or(noted.k, |least| least.min(noted.k)));
            }
        }
        Ok(())
    }

    async fn rescue(&mut self, db: &Db, pulses: Pulses, chain_since: Option<Instant>) -> Result<u64> {
        let now = Instant::now();
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let living = pulses.len() as f64;
        self.living = living;
        let before = std::mem::take(&mut self.pulses);
        let since = |instance, beat| {
            let still = before.get(&instance).filter(|(before, _)| *before == beat);
            (beat, still.map_or(now, |(_, since)| *since))
        };
        let seen = pulses.into_iter().map(|(instance, beat)| (instance, since(instance, beat))).collect();
        self.pulses = seen;
        let Some(chain_since) = chain_since else { return Ok(0) };
        // What stood still while we could not look ourselves says nothing.
        let still = self
            .pulses
            .iter()
            .filter(|(_, (_, since))| LEASE <= now.saturating_duration_since((*since).max(chain_since)))
            .take(RESCUE_MOST);
        let mut rescued = 0;
        for (instance, (beat, _)) in still {
            let row = db.one(query("select rowlock.rescue($1, $2)").bind(instance.0).bind(beat)).await?;
            if let Some(tasks) = row.try_get::<Option<i32>, _>(0)? {
                tracing::warn!(%instance, tasks, "rescued the tasks of an instance that stopped beating");
                rescued += u64::from(tasks.unsigned_abs());
            }
        }
        Ok(rescued)
    }
}

/// Whether something is due, counting from when it was last; the first time it is.
fn due(last: &mut Option<Instant>, every: Duration) -> bool {
    let now = Instant::now();
    let due = last.is_none_or(|last| every <= now.duration_since(last));
    if due {
        *last = Some(now);
    }
    due
}
