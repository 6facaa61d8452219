//! The part of a `TaskQueue` that running instances need.

use serde::{Deserialize, Serialize};

use crate::{Dur, RetryPolicy, TaskQueueSpec};

/// How long a task should wait at most in a queue without autoscaling, which has no `waitTarget`: nobody said
/// how urgent its tasks are, so metrics tolerate what people notice.
const DEFAULT_WAIT_TARGET: Dur = Dur::from_secs(60);

/// Every instance reads it from the database, and again when its generation changes. So a changed retry
/// policy, timeout or wait target needs no rollout.
///
/// Unknown fields are ignored, because during an upgrade an older instance reads a newer policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// What happens after a failed attempt.
    pub retry: RetryPolicy,
    /// How long one attempt may take.
    pub timeout: Dur,
    /// How long a task should wait at most, for metrics.
    pub wait_target: Dur,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            timeout: crate::task_queue::default_timeout(),
            wait_target: DEFAULT_WAIT_TARGET,
        }
    }
}

impl From<&TaskQueueSpec> for Policy {
    fn from(spec: &TaskQueueSpec) -> Self {
        let autoscaling = spec.workers.autoscaling.as_ref();
        Self {
            retry: spec.retry.clone(),
            timeout: spec.timeout,
            wait_target: autoscaling.map_or(DEFAULT_WAIT_TARGET, |auto| auto.wait_target),
        }
    }
}
