//! The `status` of a `TaskQueue`: written by the operator alone, from what it observed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// What the operator last saw.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskQueueStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds: `Ready`, `Reconciling`, `Stalled`, `DatabaseReachable`, `SchemaReady`, `HandlerHealthy`,
    /// `ScalingLimited`, `Contested`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Pods that there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<i32>,
    /// The labels of those pods, by which autoscalers find them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The workers over all pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<WorkersStatus>,
    /// The open tasks by state, rounded, and the dead ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<BacklogStatus>,
    /// Why there are so many workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
    /// Version of the tables in the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<i32>,
    /// The owner that the annotation `rowlock.dev/adopt` took the queue from: it does so once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopted: Option<String>,
    /// Which database it is, whatever its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseStatus>,
}

/// The database that the Secret leads to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseStatus {
    /// Its name, and the system identifier of its server.
    pub identity: String,
    /// The one before, where it was another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// When the operator saw that it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<Time>,
}

/// The workers over all pods.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkersStatus {
    /// Workers that there shall be.
    pub desired: i32,
    /// Workers that may do tasks now.
    pub allocated: i32,
    /// Workers that do a task now.
    pub busy: i32,
}

/// Tasks by state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BacklogStatus {
    /// Tasks that could start now.
    pub available: i64,
    /// Tasks that wait for their time.
    pub scheduled: i64,
    /// Tasks that run now.
    pub running: i64,
    /// Tasks that wait for their next attempt.
    pub retryable: i64,
    /// Tasks that were given up; `rowlock retry` has them tried again.
    pub dead: i64,
    /// Since when the oldest available task has waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_available: Option<Time>,
}

/// The last decision about the number of workers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingStatus {
    /// Who says how many pods there are: `Auto`, `Fixed` or `External`.
    pub mode: String,
    /// Workers that the tasks ask for (with External: `workers.replicas`), before anything limits the number.
    pub desired: i32,
    /// What settled the number.
    pub reason: String,
    /// What keeps it lower than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<String>,
}
