//! Operations that only one session does at a time, by a lock on a row of `rowlock.mutex` or of
//! `rowlock.maintenance`. If another session has the lock, that session does the operation. A session that
//! keeps the lock for long blocks all others, so the log names it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sqlx::{Row, postgres::PgRow};

use crate::{Db, QueueId, Result, db::query};

/// How long a lock may be held. Rowlock never needs it for longer, so such a session has been forgotten.
const HELD_LONGEST: Duration = Duration::from_secs(30);
/// How often each maintainer checks the locks. Rarely, because reading `pg_locks` blocks other sessions.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// The same while a lock is held.
const CHECK_HELD_EVERY: Duration = Duration::from_secs(10);
/// How often the log repeats that a lock is still held.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// An operation that only one session does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExclusiveOperation {
    /// Waking idle instances by NOTIFY.
    Notify,
    /// Making and emptying partitions.
    Partitions,
    /// Making due tasks available.
    MoveDue,
    /// Comparing backlogs with their limits.
    Limits,
    /// Deleting expired tasks.
    Retention,
    /// Granting the slots of a queue to its instances.
    Allocate,
    /// Finding tasks of transactions that committed late.
    Sweep,
    /// Deciding which session makes and drops partitions.
    Turn,
    /// Choosing the instance that runs a suspect.
    ClaimSuspect,
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
            8 => Self::ClaimSuspect,
            _ => return None,
        })
    }

    /// The consequence while the lock is held.
    fn consequence(self) -> &'static str {
        match self {
            Self::Notify => "sleeping workers are not woken, and find tasks by polling",
            Self::Partitions | Self::Turn => "partitions are neither made nor cleaned up",
            Self::MoveDue => "due tasks do not become available",
            Self::Limits => "backlog limits are not checked",
            Self::Retention => "old tasks are not deleted",
            Self::Allocate => "no slots are granted",
            Self::Sweep => "tasks of transactions that commit late are not found",
            Self::ClaimSuspect => "tasks whose handler ended while they ran do not run again",
        }
    }
}

/// A transaction that holds one of the locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// Which lock.
    pub operation: ExclusiveOperation,
    /// The queue; 0: the whole database.
    pub queue: QueueId,
    /// The id of the transaction.
    xid: String,
    /// Describes the session.
    pub who: String,
    /// Says how to end it.
    pub remedy: String,
}

/// The sessions, other than the caller's, that hold one of the locks at this moment.
pub async fn lock_holders(db: &Db) -> Result<Vec<LockHolder>> {
    let statement = query(
        "select operation, queue, xid, pid, usename, application, to_json(since)#>>'{}' as since, prepared
         from rowlock.mutex_holders()",
    );
    let rows = db.all(statement).await?;
    Ok(rows.iter().map(read).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn read(row: &PgRow) -> Result<Option<LockHolder>> {
    let Some(operation) = ExclusiveOperation::from_number(row.try_get("operation")?) else { return Ok(None) };
    let (pid, gid): (Option<i32>, Option<String>) = (row.try_get("pid")?, row.try_get("prepared")?);
    let user = row.try_get::<Option<String>, _>("usename")?.unwrap_or_else(|| "unknown".into());
    let since = row.try_get::<Option<String>, _>("since")?;
    let since = since.map(|since| format!(", in a transaction since {since}")).unwrap_or_default();
    let (who, remedy) = match (pid, gid) {
        (Some(pid), _) => {
            let application = row.try_get::<Option<String>, _>("application")?.unwrap_or_default();
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
    let (queue, xid) = (QueueId(row.try_get("queue")?), row.try_get("xid")?);
    Ok(Some(LockHolder { operation, queue, xid, who, remedy }))
}

/// Tracks which locks are held, and for how long.
#[derive(Debug, Default)]
pub(crate) struct LocksHeld {
    checked: Option<Instant>,
    held: BTreeMap<(ExclusiveOperation, i32, String), HeldLock>,
}

#[derive(Debug)]
struct HeldLock {
    holder: LockHolder,
    since: Instant,
    logged: Option<Instant>,
}

/// A log message about a lock.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    Held(LockHolder, Duration),
    StillHeld(LockHolder, Duration),
    Released(LockHolder, Duration),
}

impl LocksHeld {
    /// Checks the locks if that is due, and logs changes. Returns how many locks are held for too long.
    pub(crate) async fn check(&mut self, db: &Db) -> Result<Option<usize>> {
        let every = if self.held.is_empty() { CHECK_EVERY } else { CHECK_HELD_EVERY };
        if self.checked.is_some_and(|checked| checked.elapsed() < every) {
            return Ok(None);
        }
        let holders = lock_holders(db).await?;
        let now = Instant::now();
        self.checked = Some(now);
        self.update(now, holders).into_iter().for_each(log);
        Ok(Some(self.held.values().filter(|lock| lock.logged.is_some()).count()))
    }

    fn update(&mut self, now: Instant, holders: Vec<LockHolder>) -> Vec<Message> {
        let mut before = std::mem::take(&mut self.held);
        let mut messages = Vec::new();
        // Instances that wait for slots log that themselves, with the number of waiting tasks.
        for holder in holders.into_iter().filter(|holder| holder.operation != ExclusiveOperation::Allocate) {
            let key = (holder.operation, holder.queue.0, holder.xid.clone());
            let mut lock = before.remove(&key).unwrap_or(HeldLock { holder, since: now, logged: None });
            let held = now.duration_since(lock.since);
            if HELD_LONGEST <= held
                && lock.logged.is_none_or(|logged| LOG_EVERY <= now.duration_since(logged))
            {
                let holder = lock.holder.clone();
                let repeated = lock.logged.replace(now).is_some();
                messages.push(if repeated {
                    Message::StillHeld(holder, held)
                } else {
                    Message::Held(holder, held)
                });
            }
            self.held.insert(key, lock);
        }
        let released = before.into_values().filter(|lock| lock.logged.is_some());
        messages.extend(released.map(|lock| Message::Released(lock.holder, now.duration_since(lock.since))));
        messages
    }
}

fn log(message: Message) {
    match message {
        Message::Held(LockHolder { operation, who, remedy, .. }, held) => {
            let what = operation.consequence();
            tracing::warn!(holder = %who, ?held, "{what}: another session holds the lock for that; {remedy}");
        }
        Message::StillHeld(LockHolder { operation, who, remedy, .. }, held) => {
            let what = operation.consequence();
            tracing::warn!(
                holder = %who, ?held,
                "{what}: another session still holds the lock for that; {remedy}"
            );
        }
        Message::Released(LockHolder { operation, who, .. }, held) => {
            let what = operation.consequence();
            tracing::info!(holder = %who, ?held, "the lock was released, so this is over: {what}");
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
            remedy: String::new(),
        }
    }

    #[test]
    fn a_lock_held_for_too_long_is_logged_at_first_then_now_and_then_and_at_its_release() {
        let (start, mut held) = (Instant::now(), LocksHeld::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let kept = || vec![holder(ExclusiveOperation::Partitions, "1")];
        let mut logged = Vec::new();
        for seconds in [0, 10, 20, 30, 40, 50, 60, 70] {
            logged.extend(held.update(at(seconds), kept()));
        }
        let took = Duration::from_secs;
        let expected =
            [Message::Held(kept().remove(0), took(30)), Message::StillHeld(kept().remove(0), took(60))];
        assert_eq!(logged, expected);
        assert_eq!(held.update(at(80), Vec::new()), [Message::Released(kept().remove(0), took(80))]);
        assert!(held.update(at(90), Vec::new()).is_empty());
    }

    #[test]
    fn many_short_transactions_and_grants_are_not_logged() {
        let (start, mut held) = (Instant::now(), LocksHeld::default());
        for turn in 0..20 {
            let holders = vec![
                holder(ExclusiveOperation::MoveDue, &turn.to_string()),
                holder(ExclusiveOperation::Allocate, "1"),
            ];
            assert!(held.update(start + CHECK_HELD_EVERY * turn, holders).is_empty());
        }
    }
}
