//! Partitions and retention, on a connection of their own: what they wait for keeps no claim and no settlement waiting.
//!
//! One session of a database at a time does maintenance (`rowlock.begin_maintenance`), so however many instances there are, one connection more is
//! open for it, once a minute.

use std::time::{Duration, Instant};

use sqlx::Row;
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    Db, Error, Result,
    db::{STATEMENT_TIMEOUT, query},
    partitions::{self, detach},
};

/// Dead tasks and kept ones that go in one statement.
const DELETE_MOST: i32 = 1000;
/// Tasks or errors copied in one statement: 0.1 s of work.
const COPY_MOST: i32 = 5_000;
/// Kept tasks looked at in each pass, to see whether they have finished unmarked.
const MARK_MOST: i32 = 200;
/// A pass starts nothing new after this: maintenance may take five minutes, and the next pass goes on where this one stopped.
const PASS_LONGEST: Duration = Duration::from_mins(4);
/// Nobody waits for a statement here. The longest looks through all that waits, once for each partition of tasks.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long DETACH waits for transactions that are open; the next pass finishes what this one left.
const DETACH_WAITS: &str = "set lock_timeout = '1s'";

/// What a pass does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    /// Makes partitions, and deletes what is old of the tasks that are kept.
    pub(crate) partitions: bool,
    /// Takes old partitions away. Only the owner of the tables may.
    pub(crate) cleanup: bool,
}

/// Makes partitions and cleanup, whether it is due or not. Returns how many partitions went.
///
/// # Errors
/// The first one, after everything was tried. What waits for somebody else's transaction is no error: the next call goes on with it.
pub async fn maintain_partitions(db: &Db) -> Result<u64> {
    perform(db, Steps { partitions: true, cleanup: true }).await
}

async fn perform(db: &Db, steps: Steps) -> Result<u64> {
    let own = db.with_one_connection();
    let pass = Pass { db: &own, until: Instant::now() + PASS_LONGEST };
    // Neither keeps the other from its work.
    let made = if steps.partitions { pass.make_and_forget().await } else { Ok(()) };
    let dropped = if steps.cleanup { pass.clean().await } else { Ok(0) };
    let _ = timeout(STATEMENT_TIMEOUT, own.close()).await;
    made?;
    dropped
}

struct Pass<'a> {
    db: &'a Db,
    until: Instant,
}

impl Pass<'_> {
    async fn make_and_forget(&self) -> Result<()> {
        partitions::extend_partitions(self.db).await?;
        self.all(query("select rowlock.keep_watermarks()")).await?;
        while self.count(query("select rowlock.delete_expired_tasks($1)").bind(DELETE_MOST)).await?
            == DELETE_MOST
        {
            if self.until <= Instant::now() {
                return Ok(());
            }
        }
        self.all(query("select rowlock.mark_finished($1)").bind(MARK_MOST)).await.map(drop)
    }

    async fn clean(&self) -> Result<u64> {
        // Only the owner may detach and drop; an instance with fewer rights leaves it to the operator.
        let owner = query(
            "select pg_catalog.pg_has_role(relowner, 'usage') from pg_catalog.pg_class where oid = 'rowlock.task'::regclass",
        );
        if !self.db.one(owner).await?.try_get::<bool, _>(0)? {
            return Ok(0);
        }
        if !self.db.is_behind_pooler() {
            // For the session, which is ours: DETACH runs in no transaction.
            self.db.ddl(DETACH_WAITS.into()).await?;
        }
        let mut first = None;
        let mut dropped = 0;
        let answers = [self.clean_rest().await, self.clean_tasks().await];
        for answer in answers {
            match answer {
                Ok(gone) => dropped += gone,
                Err(error) => _ = first.get_or_insert(error),
            }
        }
        first.map_or(Ok(dropped), Err)
    }

    /// Everything but tasks.
    async fn clean_rest(&self) -> Result<u64> {
        while self.count(query("select rowlock.move_kept_errors($1)").bind(COPY_MOST)).await? == COPY_MOST {
            if self.until <= Instant::now() {
                return Ok(0);
            }
        }
        let emptied: Vec<String> = self.one("select rowlock.empty_other_partitions()").await?.try_get(0)?;
        let (mut dropped, mut first) = (0, None);
        for (parent, partition) in emptied.iter().filter_map(|pair| pair.split_once(' ')) {
            match is_done(detach(self.db, parent, partition).await) {
                Ok(gone) => dropped += u64::from(gone),
                // Somebody's view may keep one of them.
                Err(error) => _ = first.get_or_insert(error),
            }
        }
        first.map_or(Ok(dropped), Err)
    }

    /// One partition of tasks, in batches that each commit.
    async fn clean_tasks(&self) -> Result<u64> {
        loop {
            let step = query("select part, more from rowlock.empty_task_partition($1)").bind(COPY_MOST);
            let Some(row) = self.all(step).await?.pop() else { return Ok(0) };
            if let Some(partition) = row.try_get::<Option<&str>, _>(0)? {
                return Ok(u64::from(is_done(detach(self.db, "task", partition).await)?));
            }
            if self.until <= Instant::now() {
                return Ok(0);
            }
        }
    }

    async fn count(&self, statement: crate::db::Statement<'_>) -> Result<i32> {
        self.all(statement).await?.first().map_or(Ok(0), |row| Ok(row.try_get(0)?))
    }

    async fn one(&self, statement: &'static str) -> Result<sqlx::postgres::PgRow> {
        Ok(self.all(query(statement)).await?.pop().ok_or(sqlx::Error::RowNotFound)?)
    }

    async fn all(&self, statement: crate::db::Statement<'_>) -> Result<Vec<sqlx::postgres::PgRow>> {
        timeout(PATIENCE, self.db.all_without_timeout(statement)).await.map_err(|_| Error::Timeout)?
    }
}

/// Whether it is done; where somebody's transaction is in the way, the next pass finishes it.
fn is_done(detached: Result<()>) -> Result<bool> {
    match detached {
        Ok(()) => Ok(true),
        Err(error) if error.waits_for_others() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs it in the background, whenever it is due.
#[derive(Default)]
pub(crate) struct PartitionMaintenance {
    running: Option<Running>,
}

/// Ends with whoever started it.
struct Running(JoinHandle<Result<u64>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl PartitionMaintenance {
    /// What the last pass did, if it is over.
    pub(crate) async fn take_result(&mut self) -> Result<u64> {
        match self.running.take_if(|running| running.0.is_finished()) {
            None => Ok(0),
            Some(mut over) => match (&mut over.0).await {
                Ok(result) => result,
                Err(_) => Err(Error::Unreachable("a pass of maintenance ended early".into())),
            },
        }
    }

    /// Begins what is due, unless it is still at the last ones.
    pub(crate) async fn begin_if_due(&mut self, db: &Db) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let row =
            db.one(query("select rowlock.begin_maintenance(false), rowlock.begin_maintenance(true)")).await?;
        let steps = Steps { partitions: row.try_get(0)?, cleanup: row.try_get(1)? };
        if steps.partitions || steps.cleanup {
            let db = db.clone();
            self.running = Some(Running(tokio::spawn(async move { run(&db, steps).await })));
        }
        Ok(())
    }
}

async fn run(db: &Db, steps: Steps) -> Result<u64> {
    let done = perform(db, steps).await;
    for (has, cleanup) in [(steps.partitions, false), (steps.cleanup, true)] {
        if has {
            db.all(query("select rowlock.end_maintenance($1)").bind(cleanup)).await?;
        }
    }
    done
}
