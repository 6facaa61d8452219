//! Settles many tasks at once.

use std::borrow::Borrow;
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
        /// The handler's result, if it should be kept.
        result: Option<String>,
    },
    /// It failed: the task is retried after the delay, or is dead if its attempts are used up.
    Retry {
        /// The delay from now, by the clock of the database.
        delay: Duration,
        /// The error message.
        error: String,
    },
    /// It failed, and the task is not retried.
    Dead {
        /// The error message.
        error: String,
    },
    /// The handler asked to run the task later. This uses no attempt.
    Snooze {
        /// The delay from now, by the clock of the database.
        delay: Duration,
    },
    /// It was interrupted for a reason unrelated to the task. This uses no attempt.
    Release,
    /// The handler's process ended while the task ran. This uses no attempt. The task waits to run alone, or
    /// is dead if it already ran alone when that happened, as often as is allowed.
    HandlerEnded,
}

impl Outcome {
    /// The names of all outcomes, in metrics and logs.
    pub const NAMES: [&'static str; 6] = ["complete", "retry", "dead", "snooze", "release", "suspect"];

    /// One of [`Self::NAMES`].
    #[must_use]
    pub const fn name(&self) -> &'static str {
        let [complete, retry, dead, snooze, release, suspect] = Self::NAMES;
        match self {
            Self::Complete { .. } => complete,
            Self::Retry { .. } => retry,
            Self::Dead { .. } => dead,
            Self::Snooze { .. } => snooze,
            Self::Release => release,
            Self::HandlerEnded => suspect,
        }
    }

    fn code(&self) -> i16 {
        match self {
            Self::Complete { .. } => 1,
            Self::Retry { .. } => 2,
            Self::Dead { .. } => 3,
            Self::Snooze { .. } => 4,
            Self::Release => 5,
            Self::HandlerEnded => 7,
        }
    }

    fn delay(&self) -> Duration {
        match self {
            Self::Retry { delay, .. } | Self::Snooze { delay } => *delay,
            _ => Duration::ZERO,
        }
    }

    /// The result or error. NUL characters are replaced: Postgres cannot store them in a text, and they would
    /// fail the whole batch.
    fn text(&self) -> Option<String> {
        match self {
            Self::Complete { result } => result.as_deref(),
            Self::Retry { error, .. } | Self::Dead { error } => Some(error.as_str()),
            Self::Snooze { .. } | Self::Release | Self::HandlerEnded => None,
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
            Self::HandlerEnded => "HandlerEnded",
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

/// The effect of settling one outcome.
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

/// Settles up to [`SETTLE_MAX`] outcomes. The answers are in the same order. After an error it may be called
/// again with the same outcomes: the answer for an outcome that is already recorded is `Done`.
pub async fn settle<S: Borrow<Settlement> + Sync>(
    db: &Db,
    instance: InstanceId,
    items: &[S],
) -> Result<Vec<Settled>> {
    let items = || items.iter().map(Borrow::borrow);
    let tokens: Vec<i64> = items().map(|item| item.token.0).collect();
    let ids: Vec<i64> = items().map(|item| item.task.0).collect();
    let outcomes: Vec<i16> = items().map(|item| item.outcome.code()).collect();
    let mut delays: Vec<i64> = items().map(|item| millis(item.outcome.delay())).collect();
    let mut texts: Vec<Option<String>> = items().map(|item| item.outcome.text()).collect();
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
