//! Maintenance: moves due tasks and rows that claims would miss, rescues the tasks of dead instances, and
//! makes and drops partitions. Every instance tries to do it, and the operator for queues without instances.
//! A try-lock picks the one that does the work.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use sqlx::{Row, types::time::OffsetDateTime};

use crate::{
    Db, Error, HorizonNote, InstanceId, LEASE_DURATION, PartitionStats, QueueId, Result, Watermarks,
    db::query, mutex::LocksHeld, partitions::partition_stats, retention::PartitionMaintenance,
    watermark_sweep::WatermarkSweeper,
};

/// The most tasks moved by one statement: a few milliseconds of work.
const MOVE_DUE_MOST: i32 = 1000;
/// The most statements of one pass. The limit keeps a pass with many due tasks short.
const MOVE_DUE_ROUNDS: usize = 10;
/// The most instances rescued in one pass; the next pass is a second later.
const RESCUE_MOST: usize = 20;
/// How often a maintainer reads the newest heartbeats.
const HEARTBEATS_EVERY: Duration = Duration::from_secs(5);
/// About how many passes per second all instances do together, without the elected ones.
const PASSES_PER_SECOND: f64 = 2.0;
/// The number of elected instances, those with the lowest ids. They do every pass. If passes were only
/// random, a due task or a dead instance could wait for several seconds.
const ELECTED: usize = 2;
/// How often all instances together ask whether partitions are due. That is the case once a minute.
const BEGIN_EVERY: Duration = Duration::from_secs(20);
/// How often each maintainer checks when the last partition ends.
const PARTITIONS_EVERY: Duration = Duration::from_mins(1);
/// How often all instances together compare backlogs with their limits.
const LIMITS_EVERY: Duration = Duration::from_secs(5);
/// How often due tasks are searched from the very beginning, without the watermark.
const FULL_PASS_EVERY: Duration = Duration::from_mins(1);

/// The result of a pass.
#[derive(Debug, Clone, Default)]
pub struct MaintenanceReport {
    /// Due tasks that became available.
    pub due_moved: u64,
    /// Rows below the watermark that got a new `k`.
    pub missed_moved: u64,
    /// Tasks taken back from instances that stopped sending heartbeats.
    pub rescued: u64,
    /// Dropped partitions.
    pub partitions_dropped: u64,
    /// Hours until the last partition ends; `None`: not checked in this pass.
    pub partitions: Option<PartitionStats>,
    /// Locks that other sessions have held for too long; `None`: not checked in this pass.
    pub locks_held: Option<usize>,
}

/// A pass, and the steps that it tried.
#[derive(Debug, Default)]
pub struct MaintenancePass {
    /// What the steps did.
    pub report: MaintenanceReport,
    /// The name of each step that was tried, for logs, and its result. A failure of one does not skip the
    /// others.
    pub steps: Vec<(&'static str, Result<()>)>,
}

/// A time, and a transaction id drawn after it. Once no older transaction is open, no further task can be due
/// before that time.
struct Note {
    xid: i64,
    at: OffsetDateTime,
}

/// Does maintenance, one pass at a time.
#[derive(Default)]
pub struct Maintainer {
    instance: Option<InstanceId>,
    /// For the queue of this instance.
    sweeper: Option<WatermarkSweeper>,
    due_watermark: Option<OffsetDateTime>,
    full_pass: Option<Instant>,
    note: Option<Note>,
    /// Whether it does every pass, see [`ELECTED`].
    elected: bool,
    /// The newest heartbeat of each instance, and since when, by our own clock, it has not changed (R4).
    heartbeats: HashMap<InstanceId, (i64, Instant)>,
    heartbeats_at: Option<Instant>,
    /// The number of live instances at the last check.
    live: f64,
    locks_held: LocksHeld,
    /// Whether each of these was done at least once.
    limits_checked: bool,
    asked_to_begin: bool,
    maintenance: PartitionMaintenance,
    partitions_at: Option<Instant>,
}

/// The number of the newest heartbeat of every live instance.
type NewestHeartbeats = Vec<(InstanceId, i64)>;

impl std::fmt::Debug for Maintainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maintainer").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Maintainer {
    /// A maintainer for the whole database, without an instance.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The maintainer of an instance of `queue`. It also sweeps that queue.
    #[must_use]
    pub fn of_instance(instance: InstanceId, queue: QueueId) -> Self {
        Self { instance: Some(instance), sweeper: Some(WatermarkSweeper::new(queue)), ..Self::default() }
    }

    /// Takes the note of the instance's heartbeat, for the sweep of its queue.
    pub fn note(&mut self, noted: &HorizonNote) {
        if let Some(sweeper) = &mut self.sweeper {
            sweeper.note(noted);
        }
    }

    /// Does one pass. Call it every second. `chain_since`: since when all heartbeats of the caller have been
    /// answered. An instance may be rescued only if its heartbeat has not changed for a whole lease during
    /// that time. `None`: the caller sends no heartbeats, and rescues nothing. `watermarks`: where the
    /// caller's claims start.
    pub async fn run_steps(
        &mut self,
        db: &Db,
        chain_since: Option<Instant>,
        watermarks: Option<&Watermarks>,
    ) -> MaintenancePass {
        let mut pass = MaintenancePass::default();
        if self.elected || fastrand::f64() * self.live < PASSES_PER_SECOND {
            self.maintain_tasks(db, chain_since, &mut pass).await;
            let is_transient = |(_, done): &(_, Result<()>)| done.as_ref().is_err_and(Error::is_transient);
            if !pass.steps.iter().any(is_transient) {
                self.maintain_partitions(db, &mut pass).await;
            }
        }
        if let (Some(sweeper), Some(watermarks)) = (&mut self.sweeper, watermarks) {
            let swept = sweeper.run_once(db, watermarks).await;
            pass.steps.push(("sweep watermarks", swept.map(|moved| pass.report.missed_moved = moved)));
        }
        pass
    }

    /// The same, with the first error.
    pub async fn run_once(
        &mut self,
        db: &Db,
        chain_since: Option<Instant>,
        watermarks: Option<&Watermarks>,
    ) -> Result<MaintenanceReport> {
        let MaintenancePass { report, steps } = self.run_steps(db, chain_since, watermarks).await;
        steps.into_iter().find_map(|(_, done)| done.err()).map_or(Ok(report), Err)
    }

    /// The steps that all instances of the database share.
    async fn maintain_tasks(&mut self, db: &Db, chain_since: Option<Instant>, pass: &mut MaintenancePass) {
        let read_heartbeats = due(&mut self.heartbeats_at, HEARTBEATS_EVERY);
        let check_limits =
            !std::mem::replace(&mut self.limits_checked, true) || self.is_selected(LIMITS_EVERY);
        let moved = match self.move_due(db, check_limits, read_heartbeats, &mut pass.report).await {
            Ok(Some(newest)) => {
                let rescued = self.rescue(db, newest, chain_since).await;
                pass.steps.push(("rescue", rescued.map(|tasks| pass.report.rescued = tasks)));
                Ok(())
            }
            Ok(None) if read_heartbeats => {
                self.heartbeats_at = None;
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        pass.steps.push(("move due tasks", moved));
    }

    /// Makes and drops partitions in the background, when it is this maintainer's turn, and checks the
    /// partitions. If a database's instances are alive but have fewer rights, the operator's maintainer does
    /// only this.
    pub async fn maintain_partitions(&mut self, db: &Db, pass: &mut MaintenancePass) {
        pass.steps.push(("begin cleanup", self.begin_cleanup(db, &mut pass.report).await));
        if let Some(dropped) = self.maintenance.take_result().await {
            pass.steps.push(("cleanup", dropped.map(|dropped| pass.report.partitions_dropped = dropped)));
        }
    }

    async fn begin_cleanup(&mut self, db: &Db, report: &mut MaintenanceReport) -> Result<()> {
        if !std::mem::replace(&mut self.asked_to_begin, true) || self.is_selected(BEGIN_EVERY) {
            self.maintenance.begin_if_due(db).await?;
        }
        if due(&mut self.partitions_at, PARTITIONS_EVERY) {
            report.partitions = Some(partition_stats(db).await?);
        }
        report.locks_held = self.locks_held.check(db).await?;
        Ok(())
    }

    /// Decides at random whether this pass does an operation that all instances together do once in `every`.
    fn is_selected(&self, every: Duration) -> bool {
        let passes = every.as_secs_f64() * self.live.clamp(1.0, PASSES_PER_SECOND);
        fastrand::f64() * passes < 1.0
    }

    /// Returns the newest heartbeats if they were asked for and no other session was doing the same.
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
                let instances = row.try_get::<Option<Vec<i64>>, _>("instances")?.unwrap_or_default();
                let heartbeats = row.try_get::<Option<Vec<i64>>, _>("heartbeats")?.unwrap_or_default();
                newest = Some(instances.into_iter().map(InstanceId).zip(heartbeats).collect());
            }
            report.due_moved += u64::from(row.try_get::<i32, _>("moved")?.unsigned_abs());
            let (xid, xmin) = (row.try_get("xid")?, row.try_get("xmin")?);
            self.advance(Note { xid, at: row.try_get("at")? }, xmin, row.try_get("next")?);
            if let Some(sweeper) = &mut self.sweeper {
                sweeper.note_without_heartbeats(row.try_get("k")?, xid, xmin);
            }
            if !row.try_get::<bool, _>("more")? {
                break;
            }
        }
        Ok(newest)
    }

    /// Advances the due time below which no task is left, once the transactions before a note have ended.
    fn advance(&mut self, note: Note, xmin: i64, next_due: Option<OffsetDateTime>) {
        match self.note.take_if(|noted| noted.xid <= xmin) {
            Some(noted) => {
                // After the clock stepped back, tasks with earlier due times may follow.
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
        let live = newest.len() as f64;
        self.live = live;
        self.elected = self
            .instance
            .is_some_and(|own| newest.iter().filter(|(other, _)| other.0 < own.0).count() < ELECTED);
        let before = std::mem::take(&mut self.heartbeats);
        let since = |instance, heartbeat| {
            let unchanged = before.get(&instance).filter(|(before, _)| *before == heartbeat);
            (heartbeat, unchanged.map_or(now, |(_, since)| *since))
        };
        let seen =
            newest.into_iter().map(|(instance, heartbeat)| (instance, since(instance, heartbeat))).collect();
        self.heartbeats = seen;
        let Some(chain_since) = chain_since else { return Ok(0) };
        // A heartbeat counts as unchanged only while our own heartbeats were answered.
        let silent = self
            .heartbeats
            .iter()
            .filter(|(_, (_, since))| {
                LEASE_DURATION <= now.saturating_duration_since((*since).max(chain_since))
            })
            .take(RESCUE_MOST);
        let (mut rescued, mut failed) = (0, None);
        for (instance, (heartbeat, _)) in silent {
            let rescue = query("select rowlock.rescue($1, $2)").bind(instance.0).bind(heartbeat);
            let tasks: Option<i32> = match db.scalar(rescue).await {
                Ok(tasks) => tasks,
                // The next instance is rescued anyway.
                Err(error) => {
                    _ = failed.get_or_insert(error);
                    continue;
                }
            };
            if let Some(tasks) = tasks {
                tracing::warn!(
                    %instance, tasks, "rescued the tasks of an instance that stopped sending heartbeats"
                );
                rescued += u64::from(tasks.unsigned_abs());
            }
        }
        failed.map_or(Ok(rescued), Err)
    }
}

/// Whether an operation is due again, counted from the last time. True the first time.
fn due(last: &mut Option<Instant>, every: Duration) -> bool {
    let now = Instant::now();
    let due = last.is_none_or(|last| every <= now.duration_since(last));
    if due {
        *last = Some(now);
    }
    due
}
