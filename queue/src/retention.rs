//! Makes partitions, and deletes old tasks together with their partitions. This uses a separate connection,
//! so that waiting for a lock delays no claim and no settlement.
//!
//! Only one session of a database does this at a time (`rowlock.begin_maintenance`), so it needs one more
//! connection once a minute, however many instances there are.

use std::time::{Duration, Instant};

use sqlx::Row;
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    Db, Error, Result,
    db::query,
    foreign_text::shorten,
    partitions::{self, detach},
    timeouts::STATEMENT_TIMEOUT,
};

/// The most expired tasks, or old scaling decisions, deleted by one statement.
const DELETE_MOST: i32 = 1000;
/// The most tasks or errors copied by one statement: 0.1 s of work.
const COPY_MOST: i32 = 5_000;
/// The most partitions that a pass skips because they cannot be emptied: a task in each is damaged. Each
/// costs a statement per pass.
const FAILED_PARTITIONS_MOST: usize = 20;
/// How many kept tasks are checked in each pass for having finished.
const MARK_MOST: i32 = 200;
/// After this time a pass starts no new step: a maintenance turn lasts five minutes. The next pass continues.
const PASS_LONGEST: Duration = Duration::from_mins(4);
/// The limit of a statement here, where nothing waits for it. The longest one reads all open tasks, once for
/// each partition of tasks.
const SLOW_STATEMENT_TIMEOUT: Duration = Duration::from_mins(1);
/// How long DETACH waits for open transactions; the next pass finishes it.
const DETACH_LOCK_TIMEOUT: &str = "set lock_timeout = '1s'";

/// Whether this user may drop partitions.
const OWNS_TABLES: &str = "
select pg_catalog.pg_has_role(relowner, 'usage')
       from pg_catalog.pg_class where oid = 'rowlock.task'::regclass";

/// The steps of a pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    /// Makes partitions, and deletes expired tasks from `task_kept`.
    pub(crate) partitions: bool,
    /// Empties and drops old partitions. Only the owner of the tables may do this.
    pub(crate) cleanup: bool,
}

/// Makes partitions and drops old ones, even if that is not due. Returns the number of dropped partitions.
///
/// # Errors The first error, after all steps were tried. A partition that an open transaction blocks is not
/// an error: the next call drops it.
pub async fn maintain_partitions(db: &Db) -> Result<u64> {
    perform(db, Steps { partitions: true, cleanup: true }).await
}

async fn perform(db: &Db, steps: Steps) -> Result<u64> {
    let separate = db.with_one_connection();
    let pass = Pass { db: &separate, until: Instant::now() + PASS_LONGEST };
    // A failure of one step does not stop the other.
    let made = if steps.partitions { pass.make_and_expire().await } else { Ok(()) };
    let taken_back = if steps.partitions { pass.take_back_left_tasks().await } else { Ok(()) };
    let dropped = if steps.cleanup { pass.clean().await } else { Ok(0) };
    let _ = timeout(STATEMENT_TIMEOUT, separate.close()).await;
    made?;
    taken_back?;
    dropped
}

struct Pass<'a> {
    db: &'a Db,
    until: Instant,
}

impl Pass<'_> {
    async fn make_and_expire(&self) -> Result<()> {
        partitions::extend_partitions(self.db).await?;
        self.all(query("select rowlock.keep_watermarks()")).await?;
        for delete in
            ["select rowlock.delete_expired_tasks($1)", "select rowlock.delete_old_scaling_decisions($1)"]
        {
            while self.count(query(delete).bind(DELETE_MOST)).await? == DELETE_MOST {
                if self.until <= Instant::now() {
                    return Ok(());
                }
            }
        }
        self.all(query("select rowlock.mark_finished($1)").bind(MARK_MOST)).await.map(drop)
    }

    /// Takes back tasks that stayed leased when their instance ended, because a row could not be written.
    async fn take_back_left_tasks(&self) -> Result<()> {
        let left = self.all(query("select id, error from rowlock.take_back_left_tasks()")).await?;
        let Some(first) = left.first() else { return Ok(()) };
        let (id, why): (i64, &str) = (first.try_get("id")?, first.try_get("error")?);
        let others = match left.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} others)"),
        };
        Err(Error::Rows(format!(
            "task {id}{others} cannot be taken back from an instance that has ended, and stays leased to \
             it: {}",
            shorten(why)
        )))
    }

    async fn clean(&self) -> Result<u64> {
        // Only the owner of the tables may drop partitions. Instances with fewer rights leave it to the
        // operator.
        if !self.db.scalar::<bool>(query(OWNS_TABLES)).await? {
            return Ok(0);
        }
        if !self.db.is_behind_pooler() {
            // Set for the whole session, because DETACH cannot run in a transaction.
            self.db.ddl(DETACH_LOCK_TIMEOUT.into()).await?;
        }
        let mut first = None;
        let mut dropped = 0;
        let answers = [self.clean_others().await, self.clean_tasks().await];
        for answer in answers {
            match answer {
                Ok(gone) => dropped += gone,
                Err(error) => _ = first.get_or_insert(error),
            }
        }
        first.map_or(Ok(dropped), Err)
    }

    /// Drops old partitions of all tables except tasks.
    async fn clean_others(&self) -> Result<u64> {
        while self.count(query("select rowlock.move_kept_errors($1)").bind(COPY_MOST)).await? == COPY_MOST {
            if self.until <= Instant::now() {
                return Ok(0);
            }
        }
        let empty = query("select rowlock.empty_other_partitions() as emptied");
        let emptied: Vec<String> = match self.all(empty).await?.first() {
            Some(row) => row.try_get("emptied")?,
            None => Vec::new(),
        };
        let (mut dropped, mut first) = (0, None);
        for (parent, partition) in emptied.iter().filter_map(|pair| pair.split_once(' ')) {
            match is_done(detach(self.db, parent, partition).await) {
                Ok(gone) => dropped += u64::from(gone),
                // A user's view may depend on one of them.
                Err(error) => _ = first.get_or_insert(error),
            }
        }
        first.map_or(Ok(dropped), Err)
    }

    /// Empties one old partition of tasks, in batches that each commit, and drops it. A partition that
    /// cannot be emptied does not stop those after it.
    async fn clean_tasks(&self) -> Result<u64> {
        let mut failures: Vec<(String, String)> = Vec::new();
        let mut dropped = 0;
        while failures.len() < FAILED_PARTITIONS_MOST {
            let skipped: Vec<&str> = failures.iter().map(|(partition, _)| partition.as_str()).collect();
            let step = query("select part, more, failed, why from rowlock.empty_task_partition($1, $2)")
                .bind(COPY_MOST)
                .bind(skipped);
            let Some(row) = self.all(step).await?.pop() else { break };
            if let Some(partition) = row.try_get::<Option<&str>, _>("part")? {
                match is_done(detach(self.db, "task", partition).await) {
                    Ok(done) => {
                        dropped = u64::from(done);
                        break;
                    }
                    Err(error) if error.is_transient() => return Err(error),
                    Err(error) => failures.push((partition.to_owned(), error.to_string())),
                }
            } else if let Some(partition) = row.try_get::<Option<String>, _>("failed")? {
                failures.push((partition, shorten(row.try_get("why")?)));
            }
            if self.until <= Instant::now() {
                break;
            }
        }
        let Some((partition, why)) = failures.first() else { return Ok(dropped) };
        let others = match failures.len() - 1 {
            0 => String::new(),
            others => format!("; {others} others neither"),
        };
        Err(Error::Rows(format!("the partition {partition} cannot be dropped{others}: {why}")))
    }

    async fn count(&self, statement: crate::db::Statement<'_>) -> Result<i32> {
        // A call of a function that returns one number.
        self.all(statement).await?.first().map_or(Ok(0), |row| Ok(row.try_get(0)?))
    }

    async fn all(&self, statement: crate::db::Statement<'_>) -> Result<Vec<sqlx::postgres::PgRow>> {
        timeout(SLOW_STATEMENT_TIMEOUT, self.db.all_without_timeout(statement))
            .await
            .map_err(|_| Error::Timeout)?
    }
}

/// Whether the partition was dropped. If an open transaction blocks it, the next pass finishes.
fn is_done(detached: Result<()>) -> Result<bool> {
    match detached {
        Ok(()) => Ok(true),
        Err(error) if error.is_blocked() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Asks which steps are due, and takes their turns.
const BEGIN: &str = "
select rowlock.begin_maintenance(false) as partitions, rowlock.begin_maintenance(true) as cleanup";

/// Runs passes in the background, when they are due.
#[derive(Default)]
pub(crate) struct PartitionMaintenance {
    running: Option<Running>,
}

/// A pass. It is aborted when this is dropped.
struct Running(JoinHandle<Result<u64>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl PartitionMaintenance {
    /// The number of partitions that the last pass dropped, once it has ended.
    pub(crate) async fn take_result(&mut self) -> Option<Result<u64>> {
        let mut finished = self.running.take_if(|running| running.0.is_finished())?;
        let ended_early = |_| Err(Error::Unreachable("the maintenance task ended early".into()));
        Some((&mut finished.0).await.unwrap_or_else(ended_early))
    }

    /// Begins a pass if one is due and none is running.
    pub(crate) async fn begin_if_due(&mut self, db: &Db) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let row = db.one(query(BEGIN)).await?;
        let steps = Steps { partitions: row.try_get("partitions")?, cleanup: row.try_get("cleanup")? };
        if steps.partitions || steps.cleanup {
            let db = db.clone();
            self.running = Some(Running(tokio::spawn(async move { run(&db, steps).await })));
        }
        Ok(())
    }
}

async fn run(db: &Db, steps: Steps) -> Result<u64> {
    let done = perform(db, steps).await;
    for (begun, cleanup) in [(steps.partitions, false), (steps.cleanup, true)] {
        if begun {
            db.all(query("select rowlock.end_maintenance($1)").bind(cleanup)).await?;
        }
    }
    done
}
