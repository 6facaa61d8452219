//! A queue's instances as Kubernetes objects: pure.
//!
//! The handler is a native sidecar (an init container that is always restarted), and the worker is the only
//! main container. So the handler runs before the first claim, and until the worker has drained. The
//! template's other containers become sidecars too, and start before the handler: as main containers they
//! would get SIGTERM together with the worker, and a database proxy that ends first would break the drain.
//! Init containers of the template run before all of them.

use rowlock_crds::api::FIELD_MANAGER;
use rowlock_crds::{Manifest, PodTemplate, RolloutSpec, Surge, annotations, containers, labels};
use rowlock_plan::{Ports, fleet};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::kubernetes::api::kept::Metadata;
use crate::kubernetes::deployment::canary::CanaryRecord;
use crate::kubernetes::deployment::inherited_metadata::StringMap;
use crate::kubernetes::deployment::security_context;
use crate::kubernetes::deployment::worker_image::WorkerImage;
use crate::kubernetes::deployment::worker_resources;
use crate::kubernetes::deployment::worker_tracing;
use crate::worker_container;

/// The annotation that names the container for `kubectl logs` and `kubectl exec`.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Annotations for tools that inject containers into pods. Without such a tool they have no effect.
const INJECTORS: [(&str, &str); 4] = [
    // The proxies of Istio and Linkerd stay native sidecars: as main containers they would start after the
    // handler, which may need them, and end together with the worker.
    ("sidecar.istio.io/nativeSidecar", "true"),
    ("config.beta.linkerd.io/proxy-enable-native-sidecar", "true"),
    // By default, OpenTelemetry's operator would instrument the first main container, which is the worker.
    ("instrumentation.opentelemetry.io/container-names", containers::HANDLER),
    // Vault's agent then writes its files before the other init containers start, such as the handler.
    ("vault.hashicorp.com/agent-init-first", "true"),
];

/// The label of nodes that can run the worker's image.
const NODES: (&str, &str) = ("kubernetes.io/os", "linux");

/// How many old `ReplicaSets` are kept, for debugging. Rollbacks are done in the `TaskQueue`.
const HISTORY: u32 = 3;

/// How many pods the draining of nodes may evict at a time. At least one, since percentages round up.
const EVICTED_AT_A_TIME: &str = "25%";

/// The `TaskQueue` that an object belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// The generation of the `TaskQueue`, or another text that changes with what its pods are made from.
    pub(crate) generation: String,
    /// The labels and annotations that its objects inherit.
    pub(crate) labels: StringMap,
    pub(crate) annotations: StringMap,
}

/// The labels that select the pods of a queue.
pub(crate) fn selector(name: &str) -> Value {
    json!({ (labels::MANAGED_BY): FIELD_MANAGER, (labels::TASK_QUEUE): name })
}

/// The Deployment of a queue, with the hashes of its content.
pub(crate) fn deployment(owner: &Owner, manifest: &Manifest, replicas: u32, image: &WorkerImage) -> Value {
    let spec = json!({
        "replicas": replicas,
        "revisionHistoryLimit": HISTORY,
        "selector": { "matchLabels": selector(&owner.name) },
        // A rollout stops a pod only when its successor is ready.
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

/// How long the new pods of a canary do not count as available, in seconds: ten years, as long as `maxTime`
/// may be. Meanwhile Kubernetes replaces no old pod. The `ReplicaSet` of the old pods keeps its own value.
const CANARY_HOLD: u32 = 3650 * 86_400;

/// Kubernetes demands a longer deadline.
const CANARY_DEADLINE: u32 = CANARY_HOLD + 600;

/// Adds what the pod template was made from, and the canary with its share of the pods.
pub(crate) fn mark_rollout(
    deployment: &mut Value,
    source: Option<String>,
    canary: Option<(&CanaryRecord, Surge)>,
) {
    let annotations = &mut deployment["metadata"]["annotations"];
    if let Some(source) = source {
        annotations[annotations::TEMPLATE_SOURCE] = source.into();
    }
    if let Some((record, share)) = canary {
        annotations[annotations::CANARY] = record.text().into();
        if record.is_running() {
            hold_old_pods(deployment, share);
        }
    }
    set_hashes(deployment);
}

/// The new pods come beside the old ones, which all stay.
fn hold_old_pods(deployment: &mut Value, share: Surge) {
    let spec = &mut deployment["spec"];
    spec["strategy"]["rollingUpdate"]["maxSurge"] = json!(share);
    spec["minReadySeconds"] = CANARY_HOLD.into();
    spec["progressDeadlineSeconds"] = CANARY_DEADLINE.into();
}

/// Annotates the Deployment with its rollout slot: the operator itself changes the template.
pub(crate) fn mark_rollout_slot(deployment: &mut Value, slot: &str) {
    deployment["metadata"]["annotations"][annotations::ROLLOUT_SLOT] = slot.into();
    set_hashes(deployment);
}

/// The annotations that say what a template was made from.
const MADE_FROM: [&str; 4] =
    [annotations::GENERATION, annotations::ROLLOUT_SLOT, annotations::TEMPLATE_SOURCE, annotations::CANARY];

/// Copies the annotations of the live Deployment that say what its template was made from.
pub(crate) fn mark_made_from(deployment: &mut Value, live: Option<&Metadata>, rollout: &RolloutSpec) {
    let annotations = &mut deployment["metadata"]["annotations"];
    for name in MADE_FROM {
        let found = live.and_then(|live| live.annotations.get(name));
        match (found, annotations.as_object_mut()) {
            (Some(found), _) => annotations[name] = found.into(),
            (None, Some(annotations)) => drop(annotations.remove(name)),
            (None, None) => (),
        }
    }
    let canary = annotations[annotations::CANARY].as_str().and_then(CanaryRecord::parse);
    if let Some(spec) = deployment["spec"].as_object_mut() {
        spec.remove("minReadySeconds");
        spec.remove("progressDeadlineSeconds");
    }
    deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = json!(rollout.max_surge);
    if canary.is_some_and(|record| record.is_running()) {
        hold_old_pods(deployment, rollout.canary.as_ref().map_or_else(Surge::default, |canary| canary.share));
    }
    set_hashes(deployment);
}

/// The `PodDisruptionBudget` of a queue.
pub(crate) fn budget(owner: &Owner, image: &WorkerImage) -> Value {
    let spec = json!({
        "maxUnavailable": EVICTED_AT_A_TIME,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": { "matchLabels": selector(&owner.name) },
    });
    object("policy/v1", "PodDisruptionBudget", owner, image, &spec)
}

/// The hash of an object that was built here.
pub(crate) fn hash_of(object: &Value) -> &str {
    object["metadata"]["annotations"][annotations::LAST_APPLIED_HASH].as_str().unwrap_or_default()
}

fn object(api_version: &str, kind: &str, owner: &Owner, image: &WorkerImage, spec: &Value) -> Value {
    // Labels of the TaskQueue override those of the platform. The operator's own override both, since its
    // watches select objects by them.
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

/// Writes the hashes of an object and of its template. The number of pods is not part of them, since others
/// may set it.
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

/// Short enough to read, and long enough that two texts do not collide.
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
    let mut template =
        into_object(manifest.spec.template.as_ref().map(PodTemplate::to_value).unwrap_or_default());
    let mut metadata = into_object(template.remove("metadata").unwrap_or_default());
    let mut labels = into_object(metadata.remove("labels").unwrap_or_default());
    for (label, value) in common_labels(&owner.name).into_iter().chain(of_map(&image.labels)) {
        // The selector needs this label. The template may override the others.
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
    template.insert("spec".to_owned(), pod(spec, manifest, image, &owner.namespace).into());
    template.into()
}

fn pod(
    mut spec: Map<String, Value>,
    manifest: &Manifest,
    image: &WorkerImage,
    namespace: &str,
) -> Map<String, Value> {
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
    let resources = json!(worker_resources::of_queue(&image.resources, &manifest.spec.worker.resources));
    let of_image = (image.image.as_str(), &resources);
    let mut worker = worker_container::container(&instance, ports, manifest, of_image, &context);
    if let Some(variables) = worker["env"].as_array_mut() {
        variables.extend(worker_tracing::variables(&image.tracing, namespace));
    }
    if let Some(policy) = &image.pull_policy {
        worker["imagePullPolicy"] = policy.clone().into();
    }
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
    // A task that has just started may take its whole timeout. A template may ask for more.
    let asked = spec.get("terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or_default();
    spec.insert("terminationGracePeriodSeconds".to_owned(), instance.grace.as_secs().max(asked).into());
    spec.entry("automountServiceAccountToken").or_insert(Value::Bool(false));
    spec
}

/// The pull secrets of the template, then those of the worker. The API server allows each name once.
fn pull_secrets(mut secrets: Vec<Value>, image: &WorkerImage) -> Vec<Value> {
    for name in &image.pull_secrets {
        if secrets.iter().all(|one| one["name"] != *name) {
            secrets.push(json!({ "name": name }));
        }
    }
    secrets
}

/// The user's container, with the port to listen on, and without a way to gain privileges. What the user
/// wrote takes precedence.
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

/// Another container of the template, without the capability to read the worker's traffic: they share a
/// network.
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
