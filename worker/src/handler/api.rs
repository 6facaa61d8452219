//! The types that a handler in Rust receives and returns.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rowlock_queue::{TaskId, Token};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One attempt at one task, as a handler receives it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Task {
    /// Id of the task, the same for all its attempts: use it as an idempotency key.
    pub id: TaskId,
    /// The type that the producer gave the task.
    pub task_type: String,
    /// Name of the queue.
    pub queue: Arc<str>,
    /// The payload: JSON text, exactly as it was enqueued.
    pub payload: String,
    /// Number of this attempt, from 1.
    pub attempt: u16,
    /// Attempts after which the task is dead.
    pub max_attempts: u16,
    /// When the task was enqueued, by the database's clock.
    pub enqueued_at: SystemTime,
    /// When the attempt times out. It is then stopped and counts as failed.
    pub deadline: SystemTime,
    /// The token of this attempt's lease. Every claim has another token.
    pub fencing_token: Token,
    /// Trace of this attempt, as a `traceparent` of W3C Trace Context: the parent of the handler's spans.
    pub traceparent: String,
    /// The `tracestate` that belongs to it, or nothing.
    pub tracestate: String,
}

impl Task {
    /// Deserializes the payload. An error is permanent, because a retry would get the same payload.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Fail> {
        // serde_json's message may quote the payload, which must not become part of an error. So only the
        // position is used.
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
    /// Leaves out the payload, which must not be logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("task_type", &self.task_type)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// The task is done, perhaps with a result to keep.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub(crate) result: Option<String>,
}

impl Done {
    /// Keeps `result` as JSON if that has at most 64 KiB. `rowlock task` shows it.
    pub fn with(result: &impl Serialize) -> Result<Self, Fail> {
        Ok(Self { result: Some(serde_json::to_string(result)?) })
    }
}

impl From<()> for Done {
    fn from((): ()) -> Self {
        Self::default()
    }
}

/// The attempt did not complete the task. With `?`, any error becomes a [`Fail::retry`].
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
    /// Not a failure: run the task later and use up no attempt.
    Snooze(Duration),
}

impl Fail {
    /// Retries the task after the delay of the queue's retry policy.
    pub fn retry(error: impl std::fmt::Display) -> Self {
        Self { retry: Retry::ByPolicy, error: error.to_string() }
    }

    /// Retries the task after `delay`, at most a year, in place of the policy's delay.
    pub fn retry_after(delay: Duration, error: impl std::fmt::Display) -> Self {
        Self { retry: Retry::After(delay), error: error.to_string() }
    }

    /// Makes the task dead at once, because a retry would fail too.
    pub fn permanent(error: impl std::fmt::Display) -> Self {
        Self { retry: Retry::Never, error: error.to_string() }
    }

    /// Runs the task again after `delay`, at most a day, without using up an attempt.
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
