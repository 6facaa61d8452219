//! The caretakers: promote what is due, sweep what a claim would miss, rescue the tasks of the dead, prune, and make partitions.
//! Any instance, or the operator for queues asleep; whoever gets the try-lock does it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use sqlx::{Row, types::time::OffsetDateTime};

use crate::{
    Db, InstanceId, LEASE, Lows, Noted, PartitionStats, QueueId, Result, db::query, maintenance::Maintenance,
    mutex::LocksHeld, partitions::partition_stats, sweep::Sweeper,
};

/// Tasks moved in one statement: a few milliseconds of work (measurements 4).
const PROMOTE_MOST: i32 = 1000;
/// Statements of one pass, so that a flood of due tasks does not keep the other duties waiting.
const PROMOTE_ROUNDS: usize = 10;
/// Instances rescued in one pass; the next comes a second later.
const RESCUE_MOST: usize = 20;
/// How often the living are looked through.
const PULSES_EVERY: Duration = Duration::from_secs(5);
/// Over all instances together about this many passes a second, however many they are, beside those of the elected.
const PASSES_PER_SECOND: f64 = 2.0;
/// Those of the least ids take every pass: chance alone would leave a due task, or a dead instance, for seconds the longer the more instances there are.
const ELECTED: usize = 2;
/// How often, over all instances together, somebody asks whether it is time to make partitions and to clean. One a minute has that turn.
const TURN_EVERY: Duration = Duration::from_secs(20);
/// How often each caretaker looks for how long there are partitions.
const PARTITIONS_EVERY: Duration = Duration::from_mins(1);
/// How often, over all instances together, the backlog is compared with its limit.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// Every so often due tasks are looked for from the very beginning, whatever the watermark says.
const FULL_PASS_EVERY: Duration = Duration::from_mins(1);

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
    /// For how long there are partitions; `None`: not looked at in this pass.
    pub partitions: Option<PartitionStats>,
    /// Locks of ours that other sessions have held for too long; `None`: not looked at in this pass.
    pub locks_held: Option<usize>,
}

/// A moment, and a transaction id drawn after it. Once no older transaction is open, no task can become due before that moment.
struct Note {
    xid: i64,
    at: OffsetDateTime,
}

/// What a caretaker remembers between passes.
#[derive(Default)]
pub struct Caretaker {
    instance: Option<InstanceId>,
    /// For the queue of that instance.
    sweeper: Option<Sweeper>,
    due_low: Option<OffsetDateTime>,
    full_pass: Option<Instant>,
    note: Option<Note>,
    /// Takes every pass.
    elected: bool,
    /// The newest beat of each instance, and since when it stands still on our own clock (R4).
    pulses: HashMap<InstanceId, (i64, Instant)>,
    pulses_at: Option<Instant>,
    /// How many instances live, as of the last look.
    living: f64,
    locks_held: LocksHeld,
    /// Whether it has tidied, and asked for a turn, at all.
    tidied: bool,
    asked_for_turn: bool,
    maintenance: Maintenance,
    partitions_at: Option<Instant>,
}

/// The number of the newest beat of every instance that lives.
type Pulses = Vec<(InstanceId, i64)>;

impl std::fmt::Debug for Caretaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caretaker").field("instance", &self.instance).finish_non_exhaustive()
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
    pub fn of_instance(instance: InstanceId, queue: QueueId) -> Self {
        Self { instance: Some(instance), sweeper: Some(Sweeper::new(queue)), ..Self::default() }
    }

    /// Takes in what a beat of the instance noted: with it, its queue is swept however seldom its turn comes among other queues' instances.
    pub fn note(&mut self, noted: &Noted) {
        if let Some(sweeper) = &mut self.sweeper {
            sweeper.note(noted);
        }
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
        let mut errors = Vec::new();
        if self.elected || fastrand::f64() * self.living < PASSES_PER_SECOND {
            errors.extend(self.care(db, chain_since, &mut report).await.err());
            if errors.first().is_none_or(|error| !error.is_transient()) {
                errors.extend(self.maintain(db, &mut report).await.err());
            }
        }
        if let (Some(sweeper), Some(lows)) = (&mut self.sweeper, lows) {
            match sweeper.run_once(db, lows).await {
                Ok(swept) => report.swept = swept,
                Err(error) => errors.push(error),
            }
        }
        // No duty is left undone because another one failed.
        errors.into_iter().next().map_or(Ok(report), Err)
    }

    /// What all instances of the database do together.
    async fn care(&mut self, db: &Db, chain_since: Option<Instant>, report: &mut CareReport) -> Result<()> {
        let looks = due(&mut self.pulses_at, PULSES_EVERY);
        let tidies = !std::mem::replace(&mut self.tidied, true) || self.has_turn(TIDY_EVERY);
        match self.promote(db, tidies, looks, report).await? {
            Some(pulses) => report.rescued = self.rescue(db, pulses, chain_since).await?,
            None if looks => self.pulses_at = None,
            None => (),
        }
        Ok(())
    }

    /// Takes turns at making partitions and cleaning, in the background, and looks how partitions are. Everything that a caretaker does
    /// for a database whose instances live and may do less than it.
    pub async fn maintain(&mut self, db: &Db, report: &mut CareReport) -> Result<()> {
        if !std::mem::replace(&mut self.asked_for_turn, true) || self.has_turn(TURN_EVERY) {
            self.maintenance.take_turns(db).await?;
        }
        if due(&mut self.partitions_at, PARTITIONS_EVERY) {
            report.partitions = Some(partition_stats(db).await?);
        }
        report.locks_held = self.locks_held.look(db).await?;
        report.pruned = self.maintenance.take_result().await?;
        Ok(())
    }

    /// Whether this pass is the one that does what all instances together do once in `every`.
    fn has_turn(&self, every: Duration) -> bool {
        let passes = every.as_secs_f64() * self.living.clamp(1.0, PASSES_PER_SECOND);
        fastrand::f64() * passes < 1.0
    }

    /// Answers with the newest beats, if they were asked for and nobody else was at it.
    async fn promote(
        &mut self,
        db: &Db,
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
                        "select moved, more, next, k, xid, xmin, at, instances, beats
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
            let (xid, xmin) = (row.try_get(4)?, row.try_get(5)?);
            self.advance(Note { xid, at: row.try_get(6)? }, xmin, row.try_get(2)?);
            if let Some(sweeper) = &mut self.sweeper {
                sweeper.note_without_beats(row.try_get(3)?, xid, xmin);
            }
            if !row.try_get::<bool, _>(1)? {
                break;
            }
        }
        Ok(pulses)
    }

    /// Moves the due time below which nothing is left, when the transactions before a note are over.
    fn advance(&mut self, note: Note, xmin: i64, next_due: Option<OffsetDateTime>) {
        match self.note.take_if(|noted| noted.xid <= xmin) {
            Some(noted) => {
                // A clock that stepped back makes every due time suspect.
                self.due_low = if note.at < noted.at {
                    None
                } else {
                    Some(next_due.map_or(noted.at, |next| next.min(noted.at)))
                };
                self.note = Some(note);
            }
            None => _ = self.note.get_or_insert(note),
        }
    }

    async fn rescue(&mut self, db: &Db, pulses: Pulses, chain_since: Option<Instant>) -> Result<u64> {
        let now = Instant::now();
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let living = pulses.len() as f64;
        self.living = living;
        self.elected = self
            .instance
            .is_some_and(|own| pulses.iter().filter(|(other, _)| other.0 < own.0).count() < ELECTED);
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
        let (mut rescued, mut failed) = (0, None);
        for (instance, (beat, _)) in still {
            let asked = db.one(query("select rowlock.rescue($1, $2)").bind(instance.0).bind(beat)).await;
            let row = match asked {
                Ok(row) => row,
                // The tasks of the others shall not wait for that.
                Err(error) => {
                    _ = failed.get_or_insert(error);
                    continue;
                }
            };
            if let Some(tasks) = row.try_get::<Option<i32>, _>(0)? {
                tracing::warn!(%instance, tasks, "rescued the tasks of an instance that stopped beating");
                rescued += u64::from(tasks.unsigned_abs());
            }
        }
        failed.map_or(Ok(rescued), Err)
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
