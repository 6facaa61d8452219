//! The settings of the worker's container that are the same for all queues.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;

/// The image of the worker, and the settings of its container.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerImage {
    /// The image, with its registry and tag.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`. `None`: the default of Kubernetes.
    pub pull_policy: Option<String>,
    /// Names of the Secrets, in the pod's namespace, to pull the image with.
    pub pull_secrets: Vec<String>,
    /// Requests and limits of the container.
    pub resources: ResourceRequirements,
    /// Labels of the platform for Deployments, their pods and their disruption budgets.
    pub labels: BTreeMap<String, String>,
    /// Variables of `OpenTelemetry` for the container. Empty: workers export no traces.
    pub tracing: BTreeMap<String, String>,
}
