//! The part of a `TaskQueue` that running instances need.

use serde::{Deserialize, Serialize};

use crate::{Dur, RetryPolicy, TaskQueueSpec};

/// Every instance reads it from the database, and again when its generation changes. So a changed retry
/// policy or timeout needs no rollout.
///
/// Unknown fields are ignored, because during an upgrade an older instance reads a newer policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// What happens after a failed attempt.
    pub retry: RetryPolicy,
    /// How long one attempt may take.
    pub timeout: Dur,
}

impl Default for Policy {
    fn default() -> Self {
        Self { retry: RetryPolicy::default(), timeout: crate::task_queue::default_timeout() }
    }
}

impl From<&TaskQueueSpec> for Policy {
    fn from(spec: &TaskQueueSpec) -> Self {
        Self { retry: spec.retry.clone(), timeout: spec.timeout }
    }
}
