//! The worker's container: restricted, with the Secret as a file that nobody else in the pod sees.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use rowlock_crds::{CaKind, Manifest, containers, env};
use rowlock_plan::{Instance, Ports};
use serde_json::{Value, json};

use crate::kubernetes::deployment::resources;

use crate::kubernetes::deployment::security_context;

/// Where the worker's health and metrics are, unless the handler is there.
const PORT: u16 = 19464;

/// The volume of what leads to the database, where it is, and the files in it.
const VOLUME: &str = "rowlock-database";
const FOLDER: &str = "/var/run/rowlock/database";
const URL: &str = "url";
const CA: &str = "ca.crt";

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
    /// Labels that the platform wants on Deployments, their pods and their budgets.
    pub labels: BTreeMap<String, String>,
}

/// The ports of a pod.
pub(crate) fn ports(manifest: &Manifest) -> Ports {
    let handler_port = manifest.spec.handler.http.port;
    let worker_port = if handler_port == PORT { PORT + 1 } else { PORT };
    Ports { handler_port, worker_port }
}

/// The URL, from the Secret that is the pods', and the certificates beside it: a volume.
pub(crate) fn volume(manifest: &Manifest) -> Option<Value> {
    let database = manifest.spec.database.as_ref()?;
    let secret = database.worker_secret_ref.as_ref().unwrap_or(&database.secret_ref);
    let url = json!([{ "key": secret.key, "path": URL }]);
    let Some(ca) = &database.ca_ref else {
        return Some(json!({ "name": VOLUME, "secret": { "secretName": secret.name, "items": url } }));
    };
    let kind = match ca.kind {
        CaKind::Secret => "secret",
        CaKind::ConfigMap => "configMap",
    };
    Some(json!({
        "name": VOLUME,
        "projected": { "sources": [
            { "secret": { "name": secret.name, "items": url } },
            { (kind): { "name": ca.name, "items": [{ "key": ca.key, "path": CA }] } },
        ] },
    }))
}

pub(crate) fn container(
    instance: &Instance,
    ports: Ports,
    manifest: &Manifest,
    image: &WorkerImage,
    pod: &Value,
) -> Value {
    let mut container = json!({
        "name": containers::WORKER,
        "image": image.image,
        "env": variables(instance, ports, manifest),
        "ports": [{ "name": "rowlock", "containerPort": ports.worker_port, "protocol": "TCP" }],
        "readinessProbe": { "httpGet": { "path": "/readyz", "port": "rowlock" }, "periodSeconds": 2 },
        "resources": resources::of_queue(&image.resources, &manifest.spec.worker.resources),
        "securityContext": security_context::worker(pod),
        // The whole folder: a file mounted with subPath would not follow a changed Secret.
        "volumeMounts": [{ "name": VOLUME, "mountPath": FOLDER, "readOnly": true }],
    });
    if let Some(policy) = &image.pull_policy {
        container["imagePullPolicy"] = policy.clone().into();
    }
    container
}

fn variables(instance: &Instance, ports: Ports, manifest: &Manifest) -> Vec<Value> {
    let told =
        instance.worker_env.iter().filter(|(name, _)| ![env::INSTANCE_NAME, env::LISTEN].contains(name));
    let mut variables: Vec<Value> =
        told.map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let pod_name = json!({ "fieldRef": { "fieldPath": "metadata.name" } });
    variables.push(json!({ "name": env::INSTANCE_NAME, "valueFrom": pod_name }));
    // Not on loopback alone: probes and Prometheus come from outside the pod.
    let listen = format!("[::]:{}", ports.worker_port);
    variables.push(json!({ "name": env::LISTEN, "value": listen }));
    variables.push(json!({ "name": env::DATABASE_URL_FILE, "value": format!("{FOLDER}/{URL}") }));
    if manifest.spec.database.as_ref().is_some_and(|database| database.ca_ref.is_some()) {
        variables.push(json!({ "name": env::DATABASE_CA_FILE, "value": format!("{FOLDER}/{CA}") }));
    }
    variables
}
