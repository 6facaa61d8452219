//! What a Deployment of the user's own needs to carry the worker. No I/O.

use rowlock_crds::{Manifest, labels};
use rowlock_plan::fleet;
use serde_json::{Value, json};

use crate::worker_container::{self, DEFAULT_RESOURCES};

/// The part of the Deployment of `spec.targetRef` that the worker needs, as a strategic merge patch: labels,
/// the container, its volume and the grace period. `None`: the manifest has no `targetRef` or no `database`.
#[must_use]
pub fn worker_sidecar(manifest: &Manifest, image: &str) -> Option<Value> {
    let target = manifest.spec.target_ref.as_ref()?;
    let volume = worker_container::volume(manifest)?;
    let ports = worker_container::ports(manifest);
    let instance = fleet(manifest, 1, |_| ports).instances.into_iter().next()?;
    let resources = serde_json::from_str(DEFAULT_RESOURCES).unwrap_or_default();
    let container =
        worker_container::container(&instance, ports, manifest, (image, &resources), &Value::Null);
    let labels = json!({ (labels::TASK_QUEUE): manifest.name });
    let mut metadata = json!({ "name": target.name, "labels": labels });
    if let Some(namespace) = &manifest.namespace {
        metadata["namespace"] = namespace.clone().into();
    }
    Some(json!({
        "apiVersion": target.api_version,
        "kind": target.kind,
        "metadata": metadata,
        "spec": { "template": {
            "metadata": { "labels": labels },
            "spec": {
                "terminationGracePeriodSeconds": instance.grace.as_secs(),
                "containers": [container],
                "volumes": [volume],
            },
        } },
    }))
}
