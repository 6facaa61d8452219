//! The history checker: it compares the enqueued tasks, their runs, and the state of the database at the end.
//!
//! It does no IO of its own. Each process appends JSON lines ([`Event`]) to its own file; the state of the
//! database is a [`Final`]. All times are nanoseconds of one machine's clock.

mod check;
mod read;
#[cfg(test)]
mod tests;

pub use check::{Summary, check};
pub use read::{Log, parse, read_all};

use serde::{Deserialize, Serialize};

/// One line of a log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A producer got these ids; their transaction is still open. `delay_ms`: no attempt may start earlier.
    Enqueued { ids: Vec<i64>, at: u64, delay_ms: u64 },
    /// The commit was answered.
    Committed { ids: Vec<i64> },
    /// The rollback was answered, or the producer closed the connection before it sent a commit.
    RolledBack { ids: Vec<i64> },
    /// A handler has read the request. `run` is unique.
    Started { run: String, handler: u32, id: i64, attempt: u16, token: i64, at: u64 },
    /// The handler is about to answer with `status`; 0: nothing that counts as an answer.
    Finished { run: String, status: u16, at: u64 },
    /// The answer could not be sent: the client had disconnected.
    CutOff { run: String, at: u64 },
    /// The handler process ended, and all its runs with it.
    HandlerEnded { handler: u32, at: u64 },
    /// A stopped instance resumes: tasks it had claimed may reach this handler once more before it fences
    /// itself. No worker can prevent that, because it may be stopped between checking the clock and sending;
    /// a fencing token can.
    InstanceResumed { handler: u32, at: u64 },
    /// A stopped handler resumes: it now reads what it was sent while stopped, even if the client has closed
    /// the connection since.
    HandlerResumed { handler: u32, at: u64 },
    /// This instance was killed, was stopped, or ended without leaving: it must be rescued.
    InstanceFailed { name: String },
}

/// The places where the database has a task; each one found counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Open,
    Completed,
    Dead,
    Cancelled,
}

/// Evidence for a state, with the attempts used.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Evidence {
    pub state: State,
    pub attempt: u16,
}

/// One task at the end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskEnd {
    pub id: i64,
    pub max_attempts: u16,
    pub evidence: Vec<Evidence>,
    /// The result of `rowlock.task_state`, if it was called.
    pub state: Option<String>,
}

/// An error of an attempt, as recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    pub id: i64,
    pub attempt: u16,
    pub error: String,
}

/// `rowlock.audit()` for one queue.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Totals {
    pub enqueued: i64,
    pub completed: i64,
    pub dead: i64,
    pub cancelled: i64,
    pub open: i64,
    pub untraced: i64,
}

/// The state of the database.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Final {
    pub tasks: Vec<TaskEnd>,
    pub failures: Vec<Failure>,
    pub totals: Totals,
    /// Names of the instances that a rescue ended.
    pub rescued: Vec<String>,
}

/// How strict to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demands {
    /// No task may still be open.
    pub drained: bool,
    /// No process was killed and no connection cut: each attempt reached the handler at most once, and every
    /// answer arrived.
    pub undisturbed: bool,
}

/// A violated invariant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("task {0} was committed, but is not in the database")]
    Vanished(i64),
    #[error("task {0} is in the database, but its transaction was rolled back or unknown")]
    Uncommitted(i64),
    #[error("task {0} ran but was never committed")]
    RanUncommitted(i64),
    #[error("task {0} has no evidence of a state")]
    Untraced(i64),
    #[error("task {id} has evidence of {places} states at once")]
    InSeveralStates { id: i64, places: usize },
    #[error("task {id}: task_state returns {reported}, which contradicts its evidence")]
    WrongState { id: i64, reported: String },
    #[error("task {0} is still open")]
    StillOpen(i64),
    #[error("task {id} used {attempt} attempts of {max}")]
    TooManyAttempts { id: i64, attempt: u16, max: u16 },
    #[error("task {id}: attempt {attempt} was used, but no failure explains it")]
    Unexplained { id: i64, attempt: u16 },
    #[error("task {id}: {times} failures of attempt {attempt}")]
    FailedTwice { id: i64, attempt: u16, times: usize },
    #[error("task {id}: a run of attempt {later} started while a run of attempt {earlier} was in progress")]
    Overlap { id: i64, earlier: u16, later: u16 },
    #[error("task {id}: attempt {later} started after attempt {earlier}")]
    WentBack { id: i64, earlier: u16, later: u16 },
    #[error("task {id} is completed by attempt {attempt}, which never answered 2xx")]
    CompletedUndone { id: i64, attempt: u16 },
    #[error("task {0} started before it was due")]
    TooEarly(i64),
    #[error("task {id} started again after it was settled as completed by attempt {attempt}")]
    RanAfterCompletion { id: i64, attempt: u16 },
    #[error("instance {0} was alive, but was rescued")]
    RescuedAlive(String),
    #[error("task {0}: its handler was cut off")]
    CutOff(i64),
    #[error("task {id}: attempt {attempt} reached the handler {times} times")]
    RanTwice { id: i64, attempt: u16, times: usize },
    #[error("audit: {0}")]
    Audit(String),
    #[error("the log contradicts itself: {0}")]
    Log(String),
}

impl Violation {
    /// The task concerned.
    #[must_use]
    pub fn task(&self) -> Option<i64> {
        match self {
            Self::Vanished(id)
            | Self::Uncommitted(id)
            | Self::RanUncommitted(id)
            | Self::Untraced(id)
            | Self::StillOpen(id)
            | Self::TooEarly(id)
            | Self::CutOff(id)
            | Self::InSeveralStates { id, .. }
            | Self::WrongState { id, .. }
            | Self::TooManyAttempts { id, .. }
            | Self::Unexplained { id, .. }
            | Self::FailedTwice { id, .. }
            | Self::Overlap { id, .. }
            | Self::WentBack { id, .. }
            | Self::CompletedUndone { id, .. }
            | Self::RanAfterCompletion { id, .. }
            | Self::RanTwice { id, .. } => Some(*id),
            Self::RescuedAlive(_) | Self::Audit(_) | Self::Log(_) => None,
        }
    }
}
