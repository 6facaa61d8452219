//! The states of a task.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};
use sqlx::{Row, postgres::PgRow};

use crate::Result;

/// The state of a task. It is derived from the tables that hold the task's id; no row stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskState {
    /// Enqueued for a later time. Maintenance makes it available when that time comes. Its row in `delayed`
    /// is deleted then, or when the task is cancelled.
    Scheduled,
    /// An instance may claim it. A claim makes it running. Its row in `ready` is deleted by the claim, or
    /// when the task is cancelled.
    Available,
    /// Claimed by an instance, under a lease. The instance's settlement ends this state. If the instance
    /// dies, another one rescues the task and it becomes available. The row in `lease` is deleted when all
    /// its tasks are settled.
    Running,
    /// An attempt failed, or the handler snoozed the task. Maintenance makes it available when the delay is
    /// over. Its row in `delayed` is deleted then, or when the task is cancelled.
    Retryable,
    /// An attempt succeeded. Final. Its receipt and its result are deleted after `cleanup.completed`.
    Completed,
    /// The last attempt failed, or an error was final. `rowlock retry` makes it available again. Its row in
    /// `dead` is deleted then, or after `cleanup.dead`.
    Dead,
    /// Cancelled by a user. Final. Its receipt is deleted after `cleanup.cancelled`.
    Cancelled,
    /// No table has the task, although its payload exists: a bug or a manual change. The task stays in this
    /// state. [`audit`](crate::audit()) counts such tasks. Not one of [`TaskState::ALL`].
    Untraced,
}

impl TaskState {
    /// The states of a healthy task, in the order of its life.
    pub const ALL: [Self; 7] = [
        Self::Scheduled,
        Self::Available,
        Self::Running,
        Self::Retryable,
        Self::Completed,
        Self::Dead,
        Self::Cancelled,
    ];

    /// The name in SQL, JSON and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Available => "available",
            Self::Running => "running",
            Self::Retryable => "retryable",
            Self::Completed => "completed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Untraced => "untraced",
        }
    }

    /// The column `state` of a row.
    pub(crate) fn read(row: &PgRow) -> Result<Self> {
        let state: &str = row.try_get("state")?;
        Ok(state.parse().map_err(|error: UnknownState| sqlx::Error::Decode(Box::new(error)))?)
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TaskState {
    type Err = UnknownState;

    fn from_str(text: &str) -> std::result::Result<Self, UnknownState> {
        let mut states = Self::ALL.into_iter().chain([Self::Untraced]);
        states.find(|state| state.as_str() == text).ok_or_else(|| UnknownState(text.to_owned()))
    }
}

impl Serialize for TaskState {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// An unknown name of a [`TaskState`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown task state \"{0}\"")]
pub struct UnknownState(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_each_state_is_parsed_back() {
        for state in TaskState::ALL.into_iter().chain([TaskState::Untraced]) {
            assert_eq!(state.to_string().parse(), Ok(state));
        }
        assert_eq!("late".parse::<TaskState>(), Err(UnknownState("late".to_owned())));
    }
}
