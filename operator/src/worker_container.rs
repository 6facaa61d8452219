//! The worker's container: restricted, with the Secret as a file that no other container of the pod can read.

use rowlock_crds::{CaKind, Manifest, containers, env};
use rowlock_plan::{Instance, Ports};
use serde_json::{Value, json};

/// The port of the worker's health and metrics pages, unless the handler uses it.
const PORT: u16 = 19464;

/// Its resources. Without requests, it would be killed first when a node runs out of memory. Limits are left
/// to the cluster.
pub(crate) const DEFAULT_RESOURCES: &str = r#"{"requests":{"cpu":"10m","memory":"48Mi"}}"#;

/// The volume with the database's URL and certificates, where it is mounted, and its files.
const VOLUME: &str = "rowlock-database";
const FOLDER: &str = "/var/run/rowlock/database";
const URL: &str = "url";
const CA: &str = "ca.crt";

/// The ports of a pod.
pub(crate) fn ports(manifest: &Manifest) -> Ports {
    let handler_port = manifest.spec.handler.http.port;
    let worker_port = if handler_port == PORT { PORT + 1 } else { PORT };
    Ports { handler_port, worker_port }
}

/// The volume with the URL from the pods' Secret, and the certificates.
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

/// `pod`: the security context of its pod.
pub(crate) fn container(
    instance: &Instance,
    ports: Ports,
    manifest: &Manifest,
    (image, resources): (&str, &Value),
    pod: &Value,
) -> Value {
    json!({
        "name": containers::WORKER,
        "image": image,
        "env": variables(instance, ports, manifest),
        "ports": [{ "name": "rowlock", "containerPort": ports.worker_port, "protocol": "TCP" }],
        "readinessProbe": { "httpGet": { "path": "/readyz", "port": "rowlock" }, "periodSeconds": 2 },
        "resources": resources,
        "securityContext": security_context(pod),
        // The whole folder: a file mounted with subPath would not follow a changed Secret.
        "volumeMounts": [{ "name": VOLUME, "mountPath": FOLDER, "readOnly": true }],
    })
}

/// The user and group of the worker's image.
const WORKER_USER: i64 = 65_532;

/// The security context of the worker. `pod`: the security context of its pod.
pub(crate) fn security_context(pod: &Value) -> Value {
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    // The worker would inherit root from its pod. In other cases the cluster may choose the user.
    if pod["runAsUser"] == 0 {
        context["runAsUser"] = WORKER_USER.into();
        context["runAsGroup"] = WORKER_USER.into();
    }
    context
}

/// The environment of the worker.
pub(crate) fn variables(instance: &Instance, ports: Ports, manifest: &Manifest) -> Vec<Value> {
    let replaced = [env::INSTANCE_NAME, env::LISTEN];
    let planned = instance.worker_env.iter().filter(|(name, _)| !replaced.contains(name));
    let mut variables: Vec<Value> =
        planned.map(|(name, value)| json!({ "name": name, "value": value })).collect();
    for (name, path) in [(env::INSTANCE_NAME, "metadata.name"), (env::POD_UID, "metadata.uid")] {
        variables.push(json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } }));
    }
    // Not on loopback alone: probes and Prometheus come from outside the pod.
    let listen = format!("[::]:{}", ports.worker_port);
    variables.push(json!({ "name": env::LISTEN, "value": listen }));
    variables.push(json!({ "name": env::DATABASE_URL_FILE, "value": format!("{FOLDER}/{URL}") }));
    if manifest.spec.database.as_ref().is_some_and(|database| database.ca_ref.is_some()) {
        variables.push(json!({ "name": env::DATABASE_CA_FILE, "value": format!("{FOLDER}/{CA}") }));
    }
    variables
}
