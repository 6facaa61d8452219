//! Work that one session does at a time, by a lock on a row of `rowlock.mutex` or of `rowlock.maintenance`.
//! To miss such a lock is nothing: another session does the work. But one that keeps it does not work, and
//! then nobody does: so it is said who that is.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sqlx::{Row, postgres::PgRow};

use crate::{Db, QueueId, Result, db::query};

/// Nothing of ours keeps such a lock for longer, by far: a session that does has been forgotten.
const HELD_LONGEST: Duration = Duration::from_secs(30);
/// How often each maintainer looks who holds the locks: seldom, for the server's table of locks is everybody's.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// And how often while it sees one that is held.
const FOLLOW_EVERY: Duration = Duration::from_secs(10);
/// How often it is said that a lock is still held, as of outages.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// What one session does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExclusiveOperation {
    /// Wakes instances that sleep.
    Notify,
    /// Makes and empties partitions.
    Partitions,
    /// Makes due tasks available.
    MoveDue,
    /// Compares backlogs with their limits.
    Limits,
    /// Deletes what is kept of finished tasks.
    Retention,
    /// Grants the workers of a queue to its instances.
    Allocate,
    /// Finds tasks of transactions that committed late.
    Sweep,
    /// Decides who makes partitions and cleans.
    Turn,
}

impl ExclusiveOperation {
    /// The column `operation` of `rowlock.mutex_holders()`.
    fn from_number(number: i16) -> Option<Self> {
        Some(match number {
            0 => Self::Notify,
            1 => Self::Partitions,
            2 => Self::MoveDue,
            3 => Self::Limits,
            4 => Self::Retention,
            5 => Self::Allocate,
            6 => Self::Sweep,
            7 => Self::Turn,
            _ => return None,
        })
    }

    /// What does not happen while somebody keeps the lock.
    fn consequence(self) -> &'static str {
        match self {
            Self::Notify => "sleeping workers are not woken, and find tasks by polling",
            Self::Partitions | Self::Turn => "partitions are neither made nor cleaned up",
            Self::MoveDue => "due tasks do not become available",
            Self::Limits => "backlog limits are not checked",
            Self::Retention => "old tasks are not deleted",
            Self::Allocate => "no workers are granted",
            Self::Sweep => "tasks of transactions that commit late are not found",
        }
    }
}

/// A transaction that holds one of the locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// Which lock.
    pub operation: ExclusiveOperation,
    /// Of which queue; 0: of the whole database.
    pub queue: QueueId,
    /// Its id, which no other transaction has.
    xid: String,
    /// Whose it is, for people.
    pub who: String,
    /// How to end it, for people.
    pub cure: String,
}

/// Who holds which of the locks at this moment, other than the caller.
pub async fn lock_holders(db: &Db) -> Result<Vec<LockHolder>> {
    let asked = query(
        "select operation, queue, xid, pid, usename, application, to_json(since)#>>'{}', prepared
         from rowlock.mutex_holders()",
    );
    let rows = db.all(asked).await?;
    Ok(rows.iter().map(read).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn read(row: &PgRow) -> Result<Option<LockHolder>> {
    let Some(operation) = ExclusiveOperation::from_number(row.try_get(0)?) else { return Ok(None) };
    let (pid, gid): (Option<i32>, Option<String>) = (row.try_get(3)?, row.try_get(7)?);
    let user = row.try_get::<Option<String>, _>(4)?.unwrap_or_else(|| "unknown".into());
    let since = row.try_get::<Option<String>, _>(6)?;
    let since = since.map(|since| format!(", in a transaction since {since}")).unwrap_or_default();
    let (who, cure) = match (pid, gid) {
        (Some(pid), _) => {
            let application = row.try_get::<Option<String>, _>(5)?.unwrap_or_default();
            (
                format!("process {pid} (user {user}, application \"{application}\"{since})"),
                format!("end it: select pg_terminate_backend({pid})"),
            )
        }
        (None, gid) => (
            format!("the prepared transaction \"{}\" (user {user}{since})", gid.unwrap_or_default()),
            "COMMIT PREPARED or ROLLBACK PREPARED it".to_owned(),
        ),
    };
    Ok(Some(LockHolder { operation, queue: QueueId(row.try_get(1)?), xid: row.try_get(2)?, who, cure }))
}

/// Which locks are kept from everybody, and for how long.
#[derive(Debug, Default)]
pub(crate) struct LocksHeld {
    looked: Option<Instant>,
    held: BTreeMap<(ExclusiveOperation, i32, String), Seen>,
}

#[derive(Debug)]
struct Seen {
    holder: LockHolder,
    since: Instant,
    said: Option<Instant>,
}

/// What is to be said of a lock.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Begins(LockHolder, Duration),
    GoesOn(LockHolder, Duration),
    Over(LockHolder, Duration),
}

impl LocksHeld {
    /// Looks, if it is time to, and says what is new. Answers with how many locks are kept for too long.
    pub(crate) async fn look(&mut self, db: &Db) -> Result<Option<usize>> {
        let every = if self.held.is_empty() { LOOK_EVERY } else { FOLLOW_EVERY };
        if self.looked.is_some_and(|looked| looked.elapsed() < every) {
            return Ok(None);
        }
        let holders = lock_holders(db).await?;
        let now = Instant::now();
        self.looked = Some(now);
        self.see(now, holders).into_iter().for_each(say);
        Ok(Some(self.held.values().filter(|seen| seen.said.is_some()).count()))
    }

    fn see(&mut self, now: Instant, holders: Vec<LockHolder>) -> Vec<News> {
        let mut before = std::mem::take(&mut self.held);
        let mut news = Vec::new();
        // Who waits for workers says so itself, with the tasks that wait for it.
        for holder in holders.into_iter().filter(|holder| holder.operation != ExclusiveOperation::Allocate) {
            let key = (holder.operation, holder.queue.0, holder.xid.clone());
            let mut seen = before.remove(&key).unwrap_or(Seen { holder, since: now, said: None });
            let held = now.duration_since(seen.since);
            if HELD_LONGEST <= held && seen.said.is_none_or(|said| SAY_EVERY <= now.duration_since(said)) {
                let holder = seen.holder.clone();
                let goes_on = seen.said.replace(now).is_some();
                news.push(if goes_on { News::GoesOn(holder, held) } else { News::Begins(holder, held) });
            }
            self.held.insert(key, seen);
        }
        let over = before.into_values().filter(|seen| seen.said.is_some());
        news.extend(over.map(|seen| News::Over(seen.holder, now.duration_since(seen.since))));
        news
    }
}

fn say(news: News) {
    match news {
        News::Begins(LockHolder { operation, who, cure, .. }, held) => {
            let what = operation.consequence();
            tracing::warn!(holder = %who, ?held, "{what}: another session holds the lock for that; {cure}");
        }
        News::GoesOn(LockHolder { operation, who, cure, .. }, held) => {
            let what = operation.consequence();
            tracing::warn!(holder = %who, ?held, "{what}: another session still holds the lock for that; {cure}");
        }
        News::Over(LockHolder { operation, who, .. }, held) => {
            let what = operation.consequence();
            tracing::info!(holder = %who, ?held, "the lock was given back; it is over that {what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(operation: ExclusiveOperation, xid: &str) -> LockHolder {
        LockHolder {
            operation,
            queue: QueueId(0),
            xid: xid.into(),
            who: "process 7".into(),
            cure: String::new(),
        }
    }

    #[test]
    fn a_lock_that_is_kept_is_told_once_now_and_then_and_when_it_is_over() {
        let (start, mut held) = (Instant::now(), LocksHeld::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let kept = || vec![holder(ExclusiveOperation::Partitions, "1")];
        let mut said = Vec::new();
        for seconds in [0, 10, 20, 30, 40, 50, 60, 70] {
            said.extend(held.see(at(seconds), kept()));
        }
        let took = Duration::from_secs;
        let expected = [News::Begins(kept().remove(0), took(30)), News::GoesOn(kept().remove(0), took(60))];
        assert_eq!(said, expected);
        assert_eq!(held.see(at(80), Vec::new()), [News::Over(kept().remove(0), took(80))]);
        assert!(held.see(at(90), Vec::new()).is_empty());
    }

    #[test]
    fn one_transaction_after_the_other_is_work_and_grants_are_told_elsewhere() {
        let (start, mut held) = (Instant::now(), LocksHeld::default());
        for turn in 0..20 {
            let holders = vec![
                holder(ExclusiveOperation::MoveDue, &turn.to_string()),
                holder(ExclusiveOperation::Allocate, "1"),
            ];
            assert!(held.see(start + FOLLOW_EVERY * turn, holders).is_empty());
        }
    }
}
