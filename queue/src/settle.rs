//! Outcomes, many at once.

use std::time::Duration;

use sqlx::Row;

use crate::{
    Db, InstanceId, Result, TaskId, Token,
    db::{millis, query},
};

/// At most this many outcomes per call.
pub const SETTLE_MAX: usize = 1000;

/// How a run ended.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Complete {
        /// What the handler answered, if it is to be kept.
        result: Option<String>,
    },
    /// Failed: again after a delay, or dead if the attempts are used up.
    Retry {
        /// From now, on the database's clock.
        delay: Duration,
        /// What went wrong.
        error: String,
    },
    /// Failed for good.
    Dead {
        /// What went wrong.
        error: String,
    },
    /// The handler asks for later; uses no attempt.
    Snooze {
        /// From now, on the database's clock.
        delay: Duration,
    },
    /// Did not run to an end for a reason that is not the task's; uses no attempt.
    Release,
}

impl Outcome {
    fn code(&self) -> i16 {
        match self {
            Self::Complete { .. } => 1,
            Self::Retry { .. } => 2,
            Self::Dead { .. } => 3,
            Self::Snooze { .. } => 4,
            Self::Release => 5,
        }
    }

    fn delay(&self) -> Duration {
        match self {
            Self::Retry { delay, .. } | Self::Snooze { delay } => *delay,
            _ => Duration::ZERO,
        }
    }

    /// Result or error; Postgres keeps no NUL in a text, and one must not fail the whole flush.
    fn text(&self) -> Option<String> {
        match self {
            Self::Complete { result } => result.as_deref(),
            Self::Retry { error, .. } | Self::Dead { error } => Some(error.as_str()),
            Self::Snooze { .. } | Self::Release => None,
        }
        .map(|text| text.replace('\0', "\u{fffd}"))
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Complete { .. } => "Complete",
            Self::Retry { .. } => "Retry",
            Self::Dead { .. } => "Dead",
            Self::Snooze { .. } => "Snooze",
            Self::Release => "Release",
        })
    }
}

/// One outcome of a task under a lease.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The lease that the task was claimed under.
    pub token: Token,
    /// Which.
    pub task: TaskId,
    /// How it ended.
    pub outcome: Outcome,
}

/// What became of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Written.
    Done,
    /// Written, and the task is dead.
    Dead,
    /// Somebody had cancelled the task, and so it is.
    Cancelled,
    /// The lease was no longer held: nothing was written.
    LeaseLost,
}

/// Settles up to [`SETTLE_MAX`] outcomes; the answers come in the same order. May be called again with the same outcomes after a
/// lost answer: what was written before is answered `Done`.
pub async fn settle(db: &Db, instance: InstanceId, items: &[Settlement]) -> Result<Vec<Settled>> {
    let tokens: Vec<i64> = items.iter().map(|item| item.token.0).collect();
    let ids: Vec<i64> = items.iter().map(|item| item.task.0).collect();
    let outcomes: Vec<i16> = items.iter().map(|item| item.outcome.code()).collect();
    let mut delays: Vec<i64> = items.iter().map(|item| millis(item.outcome.delay())).collect();
    let mut texts: Vec<Option<String>> = items.iter().map(|item| item.outcome.text()).collect();
    // Most batches have neither: they are not sent.
    if delays.iter().all(|delay| *delay == 0) {
        delays.clear();
    }
    if texts.iter().all(Option::is_none) {
        texts.clear();
    }
    let row = db
        .one(
            query("select rowlock.settle($1, $2, $3, $4, $5, $6)")
                .bind(instance.0)
                .bind(tokens)
                .bind(ids)
                .bind(outcomes)
                .bind(delays)
                .bind(texts),
        )
        .await?;
    let answers: Vec<i16> = row.try_get(0)?;
    Ok(answers
        .into_iter()
        .map(|answer| match answer {
            1 => Settled::Done,
            2 => Settled::Dead,
            3 => Settled::Cancelled,
            _ => Settled::LeaseLost,
        })
        .collect())
}
