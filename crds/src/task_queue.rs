//! What the `spec` of a `TaskQueue` may say. A field that does nothing yet is not here.

use serde::{Deserialize, Serialize};

use crate::{Dur, Policy, RetryPolicy};

/// The `spec` of a `TaskQueue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskQueueSpec {
    /// Name of the queue in the database; `metadata.name` when left out. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_name: Option<String>,
    /// Where the tasks are; left out where there is only one database (`rowlock dev`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseSpec>,
    /// How many tasks run at the same time.
    pub workers: WorkersSpec,
    /// How the handler is called.
    #[serde(default)]
    pub handler: HandlerSpec,
    /// The pod template; its container `handler` does the tasks. Kept as written.
    #[serde(default, deserialize_with = "crate::once::value", skip_serializing_if = "Option::is_none")]
    pub template: Option<serde_json::Value>,
    /// What happens after a failed attempt.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// How long one attempt may take.
    #[serde(default = "default_timeout")]
    pub timeout: Dur,
    /// How long finished tasks are kept.
    #[serde(default)]
    pub cleanup: CleanupSpec,
    /// What the queue refuses to take in.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// No task starts while this is set; what runs finishes.
    #[serde(default)]
    pub paused: bool,
    /// The number of pods stays as it is while this is set.
    #[serde(default)]
    pub suspend_scaling: bool,
}

/// Where the connection string of the database is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseSpec {
    /// The Secret; may change, for example after a restore.
    pub secret_ref: SecretKeyRef,
}

/// A key of a Secret in the `TaskQueue`'s namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    pub name: String,
    /// Its key; `uri` is what `CloudNativePG` writes.
    #[serde(default = "default_key")]
    pub key: String,
}

/// How many tasks run at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkersSpec {
    /// Workers over all pods; the ceiling when autoscaling.
    pub total: u32,
    /// Workers of one pod, at most.
    #[serde(default = "default_per_pod")]
    pub per_pod: u32,
    /// Left out: always `total`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingSpec>,
}

/// How the number of workers follows the backlog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AutoscalingSpec {
    /// Workers kept when there is nothing to do; 0 scales to zero.
    pub min: u32,
    /// How long a task should wait at most before it starts.
    pub wait_target: Dur,
    /// How long fewer workers must suffice before some go.
    pub scale_down_after: Dur,
}

impl Default for AutoscalingSpec {
    fn default() -> Self {
        Self { min: 0, wait_target: Dur::from_secs(5), scale_down_after: Dur::from_secs(60) }
    }
}

/// How the handler is called.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HandlerSpec {
    /// By HTTP, inside the pod.
    pub http: HttpHandlerSpec,
}

/// Where in the pod the handler listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpHandlerSpec {
    /// Its port.
    pub port: u16,
    /// The path tasks are posted to.
    pub path: String,
}

impl Default for HttpHandlerSpec {
    fn default() -> Self {
        Self { port: 8080, path: "/tasks".to_owned() }
    }
}

/// How long finished tasks are kept before they are pruned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CleanupSpec {
    pub completed: Dur,
    /// Longer by default: somebody has to look at them.
    pub dead: Dur,
    pub cancelled: Dur,
}

impl Default for CleanupSpec {
    fn default() -> Self {
        let day = Dur::from_secs(86_400);
        Self { completed: day, dead: Dur::from_secs(7 * 86_400), cancelled: day }
    }
}

/// What the queue refuses to take in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// Tasks that are neither finished nor dead; enqueueing more is an error.
    pub backlog: u64,
    /// Size of one task's payload.
    pub payload_bytes: u64,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self { backlog: 1_000_000, payload_bytes: 1_048_576 }
    }
}

impl TaskQueueSpec {
    /// A spec that says nothing but how many workers there are.
    #[must_use]
    pub fn with_workers(total: u32) -> Self {
        Self {
            queue_name: None,
            database: None,
            workers: WorkersSpec { total, per_pod: default_per_pod(), autoscaling: None },
            handler: HandlerSpec::default(),
            template: None,
            retry: RetryPolicy::default(),
            timeout: default_timeout(),
            cleanup: CleanupSpec::default(),
            limits: LimitsSpec::default(),
            paused: false,
            suspend_scaling: false,
        }
    }

    /// What of it the running instances must know.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy::from(self)
    }
}

pub(crate) const fn default_timeout() -> Dur {
    Dur::from_secs(60)
}

const fn default_per_pod() -> u32 {
    10
}

fn default_key() -> String {
    "uri".to_owned()
}
