//! What a handler gets and what it may answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rowlock_queue::{TaskId, Token};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One attempt at one task, as a handler sees it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Task {
    pub id: TaskId,
    /// The `type` the producer gave.
    pub task_type: String,
    pub queue: Arc<str>,
    /// JSON text, exactly as it was enqueued.
    pub payload: String,
    /// Counts from 1.
    pub attempt: u16,
    pub max_attempts: u16,
    pub enqueued_at: SystemTime,
    /// After this the attempt is stopped and counts as failed.
    pub deadline: SystemTime,
    /// Names the lease of this attempt; it differs with every claim.
    pub fencing_token: Token,
}

impl Task {
    /// The payload as a type. What does not fit will not fit next time either, so it is final.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Fail> {
        // serde_json's message can quote the payload, which must not reach errors of attempts: say only where.
        serde_json::from_str(&self.payload).map_err(|error| {
            Fail::permanent(format!(
                "the payload is not what the handler of {} expects (line {} column {})",
                self.task_type,
                error.line(),
                error.column()
            ))
        })
    }
}

impl std::fmt::Debug for Task {
    /// Without the payload: a debug line must not carry it into a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("task_type", &self.task_type)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// The task is done, perhaps with a result that is kept beside it.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub(crate) result: Option<String>,
}

impl Done {
    /// Keeps `result` as JSON, if that is no longer than 64 KiB: it is for looking up, not for moving data.
    pub fn with(result: &impl Serialize) -> Result<Self, Fail> {
        Ok(Self { result: Some(serde_json::to_string(result)?) })
    }
}

impl From<()> for Done {
    fn from((): ()) -> Self {
        Self::default()
    }
}

/// The attempt did not do the task. Any error becomes one that is tried again by the queue's policy.
#[derive(Clone, Debug)]
pub struct Fail {
    pub(crate) retry: Retry,
    pub(crate) error: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    ByPolicy,
    After(Duration),
    Never,
    /// Not a failure at all: asks to be called later and uses no attempt.
    Snooze(Duration),
}

impl Fail {
    /// Tried again after the policy's delay.
    pub fn retry(error: impl std::fmt::Display) -> Self {
        Self { retry: Retry::ByPolicy, error: error.to_string() }
    }

    /// Tried again after this delay instead of the policy's, at most a year.
    pub fn retry_after(delay: Duration, error: impl std::fmt::Display) -> Self {
        Self { retry: Retry::After(delay), error: error.to_string() }
    }

    /// No retry will better it: the task is dead at once.
    pub fn permanent(error: impl std::fmt::Display) -> Self {
        Self { retry: Retry::Never, error: error.to_string() }
    }

    /// Not now: call again after `delay`, at most a day, without using an attempt.
    #[must_use]
    pub fn snooze(delay: Duration) -> Self {
        Self { retry: Retry::Snooze(delay), error: String::new() }
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Fail {
    fn from(error: E) -> Self {
        let error = error.into();
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        Self { retry: Retry::ByPolicy, error: text }
    }
}
