//! The worker's container: restricted, with the Secret as a file that nobody else in the pod sees.

use k8s_openapi::api::core::v1::ResourceRequirements;
use rowlock_crds::{Manifest, containers, env};
use rowlock_plan::{Instance, Place};
use serde_json::{Value, json};

use super::security;

/// Where the worker's health and metrics are, unless the handler is there.
const PORT: u16 = 19464;

/// The volume of the Secret, where it is, and the file in it.
const VOLUME: &str = "rowlock-database";
const FOLDER: &str = "/var/run/rowlock/database";
const FILE: &str = "url";

/// What the worker is run from.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerImage {
    /// The image, with its registry and tag.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`; without it what Kubernetes does.
    pub pull_policy: Option<String>,
    /// Secrets of the pod's namespace that it is fetched with.
    pub pull_secrets: Vec<String>,
    /// What its container asks of a node, and may use of it.
    pub resources: ResourceRequirements,
}

/// The ports of a pod.
pub(super) fn place(manifest: &Manifest) -> Place {
    let handler_port = manifest.spec.handler.http.port;
    let worker_port = if handler_port == PORT { PORT + 1 } else { PORT };
    Place { handler_port, worker_port }
}

/// The Secret's key, as a volume.
pub(super) fn volume(manifest: &Manifest) -> Option<Value> {
    let secret = &manifest.spec.database.as_ref()?.secret_ref;
    Some(json!({
        "name": VOLUME,
        "secret": { "secretName": secret.name, "items": [{ "key": secret.key, "path": FILE }] },
    }))
}

pub(super) fn container(instance: &Instance, place: Place, image: &WorkerImage) -> Value {
    let mut container = json!({
        "name": containers::WORKER,
        "image": image.image,
        "env": variables(instance, place),
        "ports": [{ "name": "rowlock", "containerPort": place.worker_port, "protocol": "TCP" }],
        "readinessProbe": { "httpGet": { "path": "/readyz", "port": "rowlock" }, "periodSeconds": 2 },
        "resources": image.resources,
        "securityContext": security::worker(),
        // The whole folder: a file mounted with subPath would not follow a changed Secret.
        "volumeMounts": [{ "name": VOLUME, "mountPath": FOLDER, "readOnly": true }],
    });
    if let Some(policy) = &image.pull_policy {
        container["imagePullPolicy"] = policy.clone().into();
    }
    container
}

fn variables(instance: &Instance, place: Place) -> Vec<Value> {
    let told =
        instance.worker_env.iter().filter(|(name, _)| ![env::INSTANCE_NAME, env::LISTEN].contains(name));
    let mut variables: Vec<Value> =
        told.map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let pod_name = json!({ "fieldRef": { "fieldPath": "metadata.name" } });
    variables.push(json!({ "name": env::INSTANCE_NAME, "valueFrom": pod_name }));
    // Not on loopback alone: probes and Prometheus come from outside the pod.
    let listen = format!("[::]:{}", place.worker_port);
    variables.push(json!({ "name": env::LISTEN, "value": listen }));
    variables.push(json!({ "name": env::DATABASE_URL_FILE, "value": format!("{FOLDER}/{FILE}") }));
    variables
}
