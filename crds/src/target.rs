//! A Deployment of the user's own, which carries the worker.

use serde::{Deserialize, Serialize};

use crate::TaskQueueSpec;

/// The Deployment to scale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    /// Only apps/v1, the default.
    #[serde(default)]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::resource::target_api_version"))]
    pub api_version: TargetApiVersion,
    /// Only Deployment, the default.
    #[serde(default)]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::resource::target_kind"))]
    pub kind: TargetKind,
    /// Its name, in the namespace of the `TaskQueue`.
    pub name: String,
}

/// The API versions that a target may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TargetApiVersion {
    /// That of Deployments.
    #[default]
    #[serde(rename = "apps/v1")]
    AppsV1,
}

/// The kinds that a target may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TargetKind {
    /// A Deployment.
    #[default]
    Deployment,
}

impl TaskQueueSpec {
    /// The name of the Deployment with the queue's pods: that of the target, or that of the `TaskQueue`.
    #[must_use]
    pub fn deployment_name<'a>(&'a self, task_queue: &'a str) -> &'a str {
        self.target_ref.as_ref().map_or(task_queue, |target| &target.name)
    }
}
