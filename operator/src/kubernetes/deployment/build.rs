//! A queue's instances as Kubernetes objects: pure.
//!
//! The handler is a native sidecar (an init container that is always restarted) and the worker the only main
//! container: so the handler is up before the first claim, and at the end stays until the worker has drained.
//! The template's other containers become sidecars as well, before the handler: as main containers they would
//! get SIGTERM together with the worker, and a database proxy that ends first breaks the drain. Init
//! containers of the template run before all of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rowlock_crds::api::FIELD_MANAGER;
use rowlock_crds::{Manifest, annotations, containers, labels};
use rowlock_plan::{Ports, fleet};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::kubernetes::deployment::inherited_metadata::StringMap;
use crate::kubernetes::deployment::security_context;
use crate::kubernetes::deployment::worker_container::{self, WorkerImage};

/// The container that `kubectl logs` and `kubectl exec` mean.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// What is told to those who put something into pods, which does nothing where they are not.
const INJECTORS: [(&str, &str); 4] = [
    // The proxies of Istio and Linkerd stay native sidecars: as main containers they would start after the
    // handler, which may need them, and die together with the worker.
    ("sidecar.istio.io/nativeSidecar", "true"),
    ("config.beta.linkerd.io/proxy-enable-native-sidecar", "true"),
    // OpenTelemetry's operator would instrument the first main container, which is the worker.
    ("instrumentation.opentelemetry.io/container-names", containers::HANDLER),
    // Vault's agent writes its files before the handler, which is an init container to it, starts.
    ("vault.hashicorp.com/agent-init-first", "true"),
];

/// Where the worker's image runs.
const NODES: (&str, &str) = ("kubernetes.io/os", "linux");

/// Rollbacks are done in the `TaskQueue`; a few old `ReplicaSets` are there to be looked at.
const HISTORY: u32 = 3;

/// How many pods a drain of nodes may take at a time; at least one, since percentages round up.
const EVICTED_AT_A_TIME: &str = "25%";

/// The `TaskQueue` that an object belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// The generation of the `TaskQueue`, or what else tells that what its pods are made from has changed.
    pub(crate) generation: String,
    /// What its objects get of its labels and annotations.
    pub(crate) labels: StringMap,
    pub(crate) annotations: StringMap,
}

/// What all pods of a queue are selected by.
pub(crate) fn selector(name: &str) -> Value {
    json!({ (labels::MANAGED_BY): FIELD_MANAGER, (labels::TASK_QUEUE): name })
}

/// The Deployment of a queue, with the hash of all that it says.
pub(crate) fn deployment(owner: &Owner, manifest: &Manifest, replicas: u32, image: &WorkerImage) -> Value {
    let spec = json!({
        "replicas": replicas,
        "revisionHistoryLimit": HISTORY,
        "selector": { "matchLabels": selector(&owner.name) },
        // Nobody is interrupted for a rollout: a pod goes when its successor is ready.
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": { "maxUnavailable": 0, "maxSurge": manifest.spec.rollout.max_surge },
        },
        "template": template(owner, manifest, image),
    });
    let mut object = object("apps/v1", "Deployment", owner, image, &spec);
    object["metadata"]["annotations"][annotations::GENERATION] = owner.generation.clone().into();
    set_hashes(&mut object);
    object
}

/// Says that the operator has changed the template for reasons of its own.
pub(crate) fn mark_rollout_slot(deployment: &mut Value, slot: &str) {
    deployment["metadata"]["annotations"][annotations::ROLLOUT_SLOT] = slot.into();
    set_hashes(deployment);
}

/// Says that the template is the one that is there, whoever it was made for.
pub(crate) fn mark_made_from(deployment: &mut Value, live: Option<&ObjectMeta>) {
    let annotations = &mut deployment["metadata"]["annotations"];
    for name in [annotations::GENERATION, annotations::ROLLOUT_SLOT] {
        let theirs = live.and_then(|live| live.annotations.as_ref()?.get(name));
        match (theirs, annotations.as_object_mut()) {
            (Some(theirs), _) => annotations[name] = theirs.clone().into(),
            (None, Some(annotations)) => drop(annotations.remove(name)),
            (None, None) => (),
        }
    }
    set_hashes(deployment);
}

/// How many pods a drain of nodes may take at a time.
pub(crate) fn budget(owner: &Owner, image: &WorkerImage) -> Value {
    let spec = json!({
        "maxUnavailable": EVICTED_AT_A_TIME,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": { "matchLabels": selector(&owner.name) },
    });
    object("policy/v1", "PodDisruptionBudget", owner, image, &spec)
}

/// The hash of an object made here.
pub(crate) fn hash_of(object: &Value) -> &str {
    object["metadata"]["annotations"][annotations::LAST_APPLIED_HASH].as_str().unwrap_or_default()
}

fn object(api_version: &str, kind: &str, owner: &Owner, image: &WorkerImage, spec: &Value) -> Value {
    // What is said for one queue counts before what is said for all; ours is what we are found by.
    let mut labels: Map<String, Value> = of_map(&image.labels).chain(of_map(&owner.labels)).collect();
    labels.extend(common_labels(&owner.name));
    labels.insert(labels::TASK_QUEUE.to_owned(), owner.name.clone().into());
    let annotations: Map<String, Value> = of_map(&owner.annotations).collect();
    let mut object = json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": owner.name,
            "namespace": owner.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": rowlock_crds::api::API_VERSION,
                "kind": rowlock_crds::api::KIND,
                "name": owner.name,
                "uid": owner.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": spec,
    });
    set_hashes(&mut object);
    object
}

/// Writes the hashes of its template and of all that an object says, but for how many pods there are, which
/// others may decide.
pub(crate) fn set_hashes(object: &mut Value) {
    let template = &object["spec"]["template"];
    if template.is_object() {
        let hash = hash(&template.to_string());
        object["metadata"]["annotations"][annotations::TEMPLATE_HASH] = hash.into();
    }
    object["metadata"]["annotations"][annotations::LAST_APPLIED_HASH] = Value::Null;
    let replicas = object["spec"].as_object_mut().and_then(|spec| spec.remove("replicas"));
    let hash = hash(&object.to_string());
    if let Some(replicas) = replicas {
        object["spec"]["replicas"] = replicas;
    }
    object["metadata"]["annotations"][annotations::LAST_APPLIED_HASH] = hash.into();
}

/// Short enough to be read, long enough not to meet another.
pub(crate) fn hash(text: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(text).into();
    digest.first_chunk().map_or_else(String::new, |first| format!("{:016x}", u64::from_be_bytes(*first)))
}

fn of_map(texts: &StringMap) -> impl Iterator<Item = (String, Value)> {
    texts.iter().map(|(name, value)| (name.clone(), value.clone().into()))
}

fn common_labels(name: &str) -> Map<String, Value> {
    [(labels::NAME, "rowlock-worker"), (labels::INSTANCE, name), (labels::MANAGED_BY, FIELD_MANAGER)]
        .into_iter()
        .map(|(label, value)| (label.to_owned(), value.into()))
        .collect()
}

fn template(owner: &Owner, manifest: &Manifest, image: &WorkerImage) -> Value {
    let mut template = into_object(manifest.spec.template.clone().unwrap_or_default());
    let mut metadata = into_object(template.remove("metadata").unwrap_or_default());
    let mut labels = into_object(metadata.remove("labels").unwrap_or_default());
    for (label, value) in common_labels(&owner.name).into_iter().chain(of_map(&image.labels)) {
        // What is selected by is ours; how it is called may be the user's.
        if label == labels::MANAGED_BY {
            labels.insert(label, value);
        } else {
            labels.entry(label).or_insert(value);
        }
    }
    labels.insert(labels::TASK_QUEUE.to_owned(), owner.name.clone().into());
    metadata.insert("labels".to_owned(), labels.into());
    let mut annotations = into_object(metadata.remove("annotations").unwrap_or_default());
    for (name, value) in INJECTORS.into_iter().chain([(DEFAULT_CONTAINER, containers::HANDLER)]) {
        annotations.entry(name).or_insert_with(|| value.into());
    }
    metadata.insert("annotations".to_owned(), annotations.into());
    template.insert("metadata".to_owned(), metadata.into());
    let spec = into_object(template.remove("spec").unwrap_or_default());
    template.insert("spec".to_owned(), pod(spec, manifest, image).into());
    template.into()
}

fn pod(mut spec: Map<String, Value>, manifest: &Manifest, image: &WorkerImage) -> Map<String, Value> {
    let ports = worker_container::ports(manifest);
    let instance = fleet(manifest, 1, |_| ports).instances.into_iter().next();
    let Some(instance) = instance else { return spec };
    let (handlers, others): (Vec<Value>, Vec<Value>) =
        into_list(spec.remove("containers")).into_iter().partition(|one| one["name"] == containers::HANDLER);
    let inits = into_list(spec.remove("initContainers")).into_iter();
    let mut first: Vec<Value> = inits.map(without_network_rights).collect();
    first.extend(others.into_iter().map(|one| sidecar(without_network_rights(one))));
    let context = spec.get("securityContext").cloned().unwrap_or_default();
    first.extend(handlers.into_iter().map(|one| sidecar(handler(one, ports, &context))));
    spec.insert("initContainers".to_owned(), first.into());
    let worker = worker_container::container(&instance, ports, manifest, image, &context);
    spec.insert("containers".to_owned(), json!([worker]));
    let mut nodes = into_object(spec.remove("nodeSelector").unwrap_or_default());
    nodes.entry(NODES.0).or_insert_with(|| NODES.1.into());
    spec.insert("nodeSelector".to_owned(), nodes.into());
    let mut volumes = into_list(spec.remove("volumes"));
    volumes.extend(worker_container::volume(manifest));
    spec.insert("volumes".to_owned(), volumes.into());
    if !image.pull_secrets.is_empty() {
        let secrets = pull_secrets(into_list(spec.remove("imagePullSecrets")), image);
        spec.insert("imagePullSecrets".to_owned(), secrets.into());
    }
    // Ours is the least: a task that just started may still take all its time. A template may ask for more.
    let asked = spec.get("terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or_default();
    spec.insert("terminationGracePeriodSeconds".to_owned(), instance.grace.as_secs().max(asked).into());
    spec.entry("automountServiceAccountToken").or_insert(Value::Bool(false));
    spec
}

/// The template's, and the worker's; the API server wants each name once.
fn pull_secrets(mut secrets: Vec<Value>, image: &WorkerImage) -> Vec<Value> {
    for name in &image.pull_secrets {
        if secrets.iter().all(|one| one["name"] != *name) {
            secrets.push(json!({ "name": name }));
        }
    }
    secrets
}

/// The user's container, told where to listen and kept from raising its rights; what the user wrote counts.
fn handler(container: Value, ports: Ports, pod: &Value) -> Value {
    let mut container = into_object(container);
    let mut env = into_list(container.remove("env"));
    let port = rowlock_crds::env::HANDLER_PORT;
    if env.iter().all(|variable| variable["name"] != port) {
        env.push(json!({ "name": port, "value": ports.handler_port.to_string() }));
    }
    container.insert("env".to_owned(), env.into());
    let chosen = into_object(container.remove("securityContext").unwrap_or_default());
    container.insert("securityContext".to_owned(), security_context::handler(chosen, pod).into());
    container.into()
}

/// Another container of the template, kept from listening to the worker, whose network it shares.
fn without_network_rights(mut container: Value) -> Value {
    if let Some(container) = container.as_object_mut() {
        security_context::other(container);
    }
    container
}

fn sidecar(container: Value) -> Value {
    let mut container = into_object(container);
    container.insert("restartPolicy".to_owned(), "Always".into());
    container.into()
}

fn into_object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn into_list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
