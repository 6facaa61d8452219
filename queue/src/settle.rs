//! Settling tasks, many at once.

use std::time::Duration;

use crate::{
    Db, InstanceId, Result, TaskId, Token,
    db::{millis, query},
};

/// The most outcomes per call.
pub const SETTLE_MAX: usize = 1000;

/// How an attempt ended.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Complete {
        /// The handler's result, if it is to be kept.
        result: Option<String>,
    },
    /// It failed: the task is retried after the delay, or is dead if its attempts are used up.
    Retry {
        /// From now, by the clock of the database.
        delay: Duration,
        /// The error message.
        error: String,
    },
    /// It failed, and the task is not retried.
    Dead {
        /// The error message.
        error: String,
    },
    /// The handler asked to run the task later; uses no attempt.
    Snooze {
        /// From now, by the clock of the database.
        delay: Duration,
    },
    /// It was interrupted for a reason that has nothing to do with the task; uses no attempt.
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

    /// The result or error. Postgres cannot store NUL in a text, which would fail the whole batch, so it is
    /// replaced.
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

/// The outcome of one task.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The lease under which the task was claimed.
    pub token: Token,
    /// The task.
    pub task: TaskId,
    /// How its attempt ended.
    pub outcome: Outcome,
}

/// What settling one outcome did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The outcome is recorded.
    Done,
    /// The outcome is recorded, and the task is dead.
    Dead,
    /// The task is cancelled, because a user had asked for it.
    Cancelled,
    /// The instance no longer holds the lease; nothing is recorded.
    LeaseLost,
}

/// Settles up to [`SETTLE_MAX`] outcomes; the answers are in the same order. After an error it may be called
/// again with the same outcomes: those that were recorded before are answered with `Done`.
pub async fn settle(db: &Db, instance: InstanceId, items: &[Settlement]) -> Result<Vec<Settled>> {
    let tokens: Vec<i64> = items.iter().map(|item| item.token.0).collect();
    let ids: Vec<i64> = items.iter().map(|item| item.task.0).collect();
    let outcomes: Vec<i16> = items.iter().map(|item| item.outcome.code()).collect();
    let mut delays: Vec<i64> = items.iter().map(|item| millis(item.outcome.delay())).collect();
    let mut texts: Vec<Option<String>> = items.iter().map(|item| item.outcome.text()).collect();
    // Most batches have neither delays nor texts; empty arrays save bytes.
    if delays.iter().all(|delay| *delay == 0) {
        delays.clear();
    }
    if texts.iter().all(Option::is_none) {
        texts.clear();
    }
    let statement = query("select rowlock.settle($1, $2, $3, $4, $5, $6)")
        .bind(instance.0)
        .bind(tokens)
        .bind(ids)
        .bind(outcomes)
        .bind(delays)
        .bind(texts);
    let answers: Vec<i16> = db.scalar(statement).await?;
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
