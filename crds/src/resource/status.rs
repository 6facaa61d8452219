//! The `status` of a `TaskQueue`. Only the operator writes it, from what it observed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// What the operator observed last.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskQueueStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The conditions `Ready`, `Reconciling`, `Stalled`, `DatabaseReachable`, `SchemaReady`,
    /// `HandlerHealthy`, `ScalingLimited`, `Contested`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Current number of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<i32>,
    /// Label selector of those pods, for autoscalers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The slots over all pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<WorkersStatus>,
    /// The unfinished tasks by state, rounded, and the dead ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<BacklogStatus>,
    /// The last decision about the number of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
    /// The canary that runs or that has failed; see `spec.rollout.canary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryStatus>,
    /// Version of the schema in the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<i32>,
    /// The owner from which the annotation `rowlock.dev/adopt` has taken the queue over. Each value works
    /// once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopted: Option<String>,
    /// The database, identified independently of its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseStatus>,
}

/// The database that the Secret points to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseStatus {
    /// Its name and the system identifier of its server.
    pub identity: String,
    /// The previous database, if it has changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// When the operator noticed that it has changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<Time>,
}

/// A changed template that a share of the pods has got first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CanaryStatus {
    /// `Running`, or `Failed`: all pods have the old template.
    pub state: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Pods with the new template.
    pub pods: i32,
    /// How many of them are ready.
    pub ready: i32,
    /// Runs of the new pods that ended.
    pub runs: i64,
    /// How many of them failed.
    pub failed: i64,
}

/// The slots over all pods.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkersStatus {
    /// Desired slots, after limits apply.
    pub desired: i32,
    /// Slots that may run tasks now.
    pub allocated: i32,
    /// Slots that run a task now.
    pub busy: i32,
}

/// Tasks by state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BacklogStatus {
    /// Tasks that could start now.
    pub available: i64,
    /// Tasks that are due later.
    pub scheduled: i64,
    /// Running tasks.
    pub running: i64,
    /// Tasks that wait for their next attempt.
    pub retryable: i64,
    /// Tasks without attempts left; `rowlock retry` retries them.
    pub dead: i64,
    /// Since when the oldest available task has waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_available: Option<Time>,
}

/// The last decision about the number of pods.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingStatus {
    /// What sets the number of pods: `Auto`, `Fixed` or `External`.
    pub mode: String,
    /// Slots that the tasks need (with External: those of `workers.replicas`), before limits apply.
    pub demand: i32,
    /// Why the queue has this number of pods: a reason such as `Backlog`, `Idle` or `Total`.
    pub reason: String,
    /// The limit that keeps the number lower: `Total`, `Connections`, `NotStarting` or `Failing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<String>,
    /// What `demand` was computed from, rounded. Missing where the number does not follow the tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<ScalingInputs>,
}

/// What the demand was computed from. Each figure has two digits and is kept while it changes by less than a
/// tenth.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingInputs {
    /// Tasks that could start now, or within seconds.
    pub waiting: i64,
    /// Running tasks.
    pub running: i64,
    /// Tasks that come, per minute.
    pub arrivals_per_minute: i64,
    /// How long a task takes on average, in milliseconds.
    pub service_millis: i64,
    /// How long a new pod takes until its first task, in milliseconds.
    pub pod_start_millis: i64,
    /// Slots to keep up with the tasks that come.
    pub workers_for_rate: i64,
    /// Slots to start the waiting tasks in time.
    pub workers_for_backlog: i64,
}
