//! Maintenance: moves due tasks and rows that claims would miss, rescues the tasks of dead instances, makes and drops partitions.
//! Any instance, or the operator for queues asleep; whoever gets the try-lock does it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use sqlx::{Row, types::time::OffsetDateTime};

use crate::{
    Db, HorizonNote, InstanceId, LEASE_DURATION, PartitionStats, QueueId, Result, Watermarks, db::query,
    mutex::LocksHeld, partition_maintenance::PartitionMaintenance, partitions::partition_stats,
    watermark_sweep::WatermarkSweeper,
};

/// Tasks moved in one statement: a few milliseconds of work (measurements 4).
const MOVE_DUE_MOST: i32 = 1000;
/// Statements of one pass, so that a flood of due tasks does not keep the other duties waiting.
const MOVE_DUE_ROUNDS: usize = 10;
/// Instances rescued in one pass; the next comes a second later.
const RESCUE_MOST: usize = 20;
/// How often the living are looked through.
const HEARTBEATS_EVERY: Duration = Duration::from_secs(5);
/// Over all instances together about this many passes a second, however many they are, beside those of the elected.
const PASSES_PER_SECOND: f64 = 2.0;
/// Those of the least ids take every pass: chance alone would leave a due task, or a dead instance, for seconds the longer the more instances there are.
const ELECTED: usize = 2;
/// How often, over all instances together, somebody asks whether it is time to make partitions and to clean. One a minute has that turn.
const BEGIN_EVERY: Duration = Duration::from_secs(20);
/// How often each maintainer looks for how long there are partitions.
const PARTITIONS_EVERY: Duration = Duration::from_mins(1);
/// How often, over all instances together, the backlog is compared with its limit.
const LIMITS_EVERY: Duration = Duration::from_secs(5);
/// Every so often due tasks are looked for from the very beginning, whatever the watermark says.
const FULL_PASS_EVERY: Duration = Duration::from_mins(1);

/// What a pass did.
#[derive(Debug, Clone, Default)]
pub struct MaintenanceReport {
    /// Due tasks that became available.
    pub due_moved: u64,
    /// Rows given a new place because claims had walked past them.
    pub missed_moved: u64,
    /// Tasks taken back from instances that stopped sending heartbeats.
    pub rescued: u64,
    /// Partitions that went.
    pub partitions_dropped: u64,
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

/// What a maintainer remembers between passes.
#[derive(Default)]
pub struct Maintainer {
    instance: Option<InstanceId>,
    /// For the queue of that instance.
    sweeper: Option<WatermarkSweeper>,
    due_watermark: Option<OffsetDateTime>,
    full_pass: Option<Instant>,
    note: Option<Note>,
    /// Takes every pass.
    elected: bool,
    /// The newest heartbeat of each instance, and since when it stands still on our own clock (R4).
    heartbeats: HashMap<InstanceId, (i64, Instant)>,
    heartbeats_at: Option<Instant>,
    /// How many instances live, as of the last look.
    living: f64,
    locks_held: LocksHeld,
    /// Whether it has checked the limits, and asked to begin maintenance, at all.
    limits_checked: bool,
    asked_to_begin: bool,
    maintenance: PartitionMaintenance,
    partitions_at: Option<Instant>,
}

/// The number of the newest heartbeat of every instance that lives.
type NewestHeartbeats = Vec<(InstanceId, i64)>;

impl std::fmt::Debug for Maintainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maintainer").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Maintainer {
    /// For what all queues of a database share.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As an instance of `queue`, which also sweeps it.
    #[must_use]
    pub fn of_instance(instance: InstanceId, queue: QueueId) -> Self {
        Self { instance: Some(instance), sweeper: Some(WatermarkSweeper::new(queue)), ..Self::default() }
    }

    /// Takes in what a heartbeat of the instance noted: with it, its queue is swept however seldom its turn comes among other queues' instances.
    pub fn note(&mut self, noted: &HorizonNote) {
        if let Some(sweeper) = &mut self.sweeper {
            sweeper.note(noted);
        }
    }

    /// One pass; call it every second. `chain_since`: since when the caller's own heartbeats have all been answered; only
    /// what it saw standing still for a whole lease of them may be rescued. `None`: it sends no heartbeats, and judges nobody. `watermarks`: from where the caller's claims walk.
    pub async fn run_once(
        &mut self,
        db: &Db,
        chain_since: Option<Instant>,
        watermarks: Option<&Watermarks>,
    ) -> Result<MaintenanceReport> {
        let mut report = MaintenanceReport::default();
        let mut errors = Vec::new();
        if self.elected || fastrand::f64() * self.living < PASSES_PER_SECOND {
            errors.extend(self.maintain_tasks(db, chain_since, &mut report).await.err());
            if errors.first().is_none_or(|error| !error.is_transient()) {
                errors.extend(self.maintain_partitions(db, &mut report).await.err());
            }
        }
        if let (Some(sweeper), Some(watermarks)) = (&mut self.sweeper, watermarks) {
            match sweeper.run_once(db, watermarks).await {
                Ok(swept) => report.missed_moved = swept,
                Err(error) => errors.push(error),
            }
        }
        // No duty is left undone because another one failed.
        errors.into_iter().next().map_or(Ok(report), Err)
    }

    /// What all instances of the database do together.
    async fn maintain_tasks(
        &mut self,
        db: &Db,
        chain_since: Option<Instant>,
        report: &mut MaintenanceReport,
    ) -> Result<()> {
        let read_heartbeats = due(&mut self.heartbeats_at, HEARTBEATS_EVERY);
        let check_limits =
            !std::mem::replace(&mut self.limits_checked, true) || self.is_selected(LIMITS_EVERY);
        match self.move_due(db, check_limits, read_heartbeats, report).await? {
            Some(newest) => report.rescued = self.rescue(db, newest, chain_since).await?,
            None if read_heartbeats => self.heartbeats_at = None,
            None => (),
        }
        Ok(())
    }

    /// Takes turns at making partitions and cleaning, in the background, and looks how partitions are. Everything that a maintainer does
    /// for a database whose instances live and may do less than it.
    pub async fn maintain_partitions(&mut self, db: &Db, report: &mut MaintenanceReport) -> Result<()> {
        if !std::mem::replace(&mut self.asked_to_begin, true) || self.is_selected(BEGIN_EVERY) {
            self.maintenance.begin_if_due(db).await?;
        }
        if due(&mut self.partitions_at, PARTITIONS_EVERY) {
            report.partitions = Some(partition_stats(db).await?);
        }
        report.locks_held = self.locks_held.look(db).await?;
        report.partitions_dropped = self.maintenance.take_result().await?;
        Ok(())
    }

    /// Whether this pass is the one that does what all instances together do once in `every`.
    fn is_selected(&self, every: Duration) -> bool {
        let passes = every.as_secs_f64() * self.living.clamp(1.0, PASSES_PER_SECOND);
        fastrand::f64() * passes < 1.0
    }

    /// Answers with the newest heartbeats, if they were asked for and nobody else was at it.
    async fn move_due(
        &mut self,
        db: &Db,
        check_limits: bool,
        read_heartbeats: bool,
        report: &mut MaintenanceReport,
    ) -> Result<Option<NewestHeartbeats>> {
        if due(&mut self.full_pass, FULL_PASS_EVERY) {
            self.due_watermark = None;
        }
        let mut newest = None;
        for round in 0..MOVE_DUE_ROUNDS {
            let first = round == 0;
            let row = db
                .maybe(
                    query(
                        "select moved, more, next, k, xid, xmin, at, instances, heartbeats
                         from rowlock.maintain(coalesce($1, '-infinity'), $2, $3, $4)",
                    )
                    .bind(self.due_watermark)
                    .bind(MOVE_DUE_MOST)
                    .bind(check_limits && first)
                    .bind(read_heartbeats && first),
                )
                .await?;
            let Some(row) = row else { break };
            if read_heartbeats && first {
                let instances = row.try_get::<Option<Vec<i64>>, _>(7)?.unwrap_or_default();
                let heartbeats = row.try_get::<Option<Vec<i64>>, _>(8)?.unwrap_or_default();
                newest = Some(instances.into_iter().map(InstanceId).zip(heartbeats).collect());
            }
            report.due_moved += u64::from(row.try_get::<i32, _>(0)?.unsigned_abs());
            let (xid, xmin) = (row.try_get(4)?, row.try_get(5)?);
            self.advance(Note { xid, at: row.try_get(6)? }, xmin, row.try_get(2)?);
            if let Some(sweeper) = &mut self.sweeper {
                sweeper.note_without_heartbeats(row.try_get(3)?, xid, xmin);
            }
            if !row.try_get::<bool, _>(1)? {
                break;
            }
        }
        Ok(newest)
    }

    /// Moves the due time below which nothing is left, when the transactions before a note are over.
    fn advance(&mut self, note: Note, xmin: i64, next_due: Option<OffsetDateTime>) {
        match self.note.take_if(|noted| noted.xid <= xmin) {
            Some(noted) => {
                // A clock that stepped back makes every due time suspect.
                self.due_watermark = if note.at < noted.at {
                    None
                } else {
                    Some(next_due.map_or(noted.at, |next| next.min(noted.at)))
                };
                self.note = Some(note);
            }
            None => _ = self.note.get_or_insert(note),
        }
    }

    async fn rescue(
        &mut self,
        db: &Db,
        newest: NewestHeartbeats,
        chain_since: Option<Instant>,
    ) -> Result<u64> {
        let now = Instant::now();
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let living = newest.len() as f64;
        self.living = living;
        self.elected = self
            .instance
            .is_some_and(|own| newest.iter().filter(|(other, _)| other.0 < own.0).count() < ELECTED);
        let before = std::mem::take(&mut self.heartbeats);
        let since = |instance, heartbeat| {
            let still = before.get(&instance).filter(|(before, _)| *before == heartbeat);
            (heartbeat, still.map_or(now, |(_, since)| *since))
        };
        let seen =
            newest.into_iter().map(|(instance, heartbeat)| (instance, since(instance, heartbeat))).collect();
        self.heartbeats = seen;
        let Some(chain_since) = chain_since else { return Ok(0) };
        // What stood still while we could not look ourselves says nothing.
        let still = self
            .heartbeats
            .iter()
            .filter(|(_, (_, since))| {
                LEASE_DURATION <= now.saturating_duration_since((*since).max(chain_since))
            })
            .take(RESCUE_MOST);
        let (mut rescued, mut failed) = (0, None);
        for (instance, (heartbeat, _)) in still {
            let asked = db.one(query("select rowlock.rescue($1, $2)").bind(instance.0).bind(heartbeat)).await;
            let row = match asked {
                Ok(row) => row,
                // The tasks of the others shall not wait for that.
                Err(error) => {
                    _ = failed.get_or_insert(error);
                    continue;
                }
            };
            if let Some(tasks) = row.try_get::<Option<i32>, _>(0)? {
                tracing::warn!(%instance, tasks, "rescued the tasks of an instance that stopped sending heartbeats");
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
