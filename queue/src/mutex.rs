//! Work that one session does at a time, by a lock on a row of `rowlock.mutex`. Missing such a lock is
//! nothing: another one does the work. Missing it for a minute says that somebody holds it who does not: then
//! it is said who.

use std::time::{Duration, Instant};

use sqlx::Row;

use crate::{Db, QueueId, Result, db::query};

/// Nothing under such a lock takes longer, by far: a session that has it for so long does not work.
const MISSED_LONGEST: Duration = Duration::from_mins(1);

/// What one session does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Makes and empties partitions.
    Partitions,
    /// Makes due tasks available.
    Promote,
    /// Grants the workers of a queue to its instances.
    Allocate(QueueId),
}

impl Duty {
    /// The row of `rowlock.mutex`.
    fn row(self) -> (i16, i32) {
        match self {
            Self::Partitions => (1, 0),
            Self::Promote => (2, 0),
            Self::Allocate(queue) => (5, queue.0),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Partitions => "making partitions",
            Self::Promote => "moving due tasks",
            Self::Allocate(_) => "granting workers",
        }
    }
}

/// Who keeps everybody from a duty, for people; `None`: nobody does at this moment.
pub async fn holder(db: &Db, duty: Duty) -> Result<Option<String>> {
    let (duty, queue) = duty.row();
    let asked = query(
        "select coalesce(format('process %s (user %s, application \"%s\", in a transaction since %s)', h.pid, h.usename, h.application, h.since),
                         'a prepared transaction')
         from rowlock.mutex_holders() h where h.duty = $1 and h.queue = $2",
    );
    db.maybe(asked.bind(duty).bind(queue)).await?.map(|row| Ok(row.try_get(0)?)).transpose()
}

/// Since when a duty was only missed.
#[derive(Debug, Default)]
pub(crate) struct Missed(Option<Instant>);

impl Missed {
    /// Takes in an attempt; after a minute of nothing but misses it says who is in the way, and again each
    /// minute.
    pub(crate) async fn see(&mut self, db: &Db, duty: Duty, missed: bool) -> Result<()> {
        if !missed {
            self.0 = None;
        } else if MISSED_LONGEST <= self.0.get_or_insert_with(Instant::now).elapsed() {
            self.0 = None;
            if let Some(holder) = holder(db, duty).await? {
                tracing::warn!(
                    %holder,
                    "{} waits for a session that holds its lock for over a minute; end that one with pg_terminate_backend",
                    duty.words()
                );
            }
        }
        Ok(())
    }
}
