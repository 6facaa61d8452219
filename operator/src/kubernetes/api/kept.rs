//! What the watches keep of objects: only what is read, since an operator may watch thousands. The fields
//! have the names that they have in Kubernetes. Its own types have room for every field: a pod takes 6 KiB.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::apps::v1::DeploymentStatus;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{Container, ContainerState, PodSpec, PodTemplateSpec};
use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference, Time};
use rowlock_crds::labels;
use serde::Deserialize;

use crate::kubernetes::api::field_managers;
use crate::kubernetes::deployment::scale_in::DELETION_COST;
use crate::kubernetes::deployment::target;
use crate::kubernetes::pods::status::is_ready;

/// The label that Kubernetes gives to the pods of a `ReplicaSet`.
pub(crate) const TEMPLATE_HASH: &str = "pod-template-hash";

/// The labels that are read.
const LABELS: [&str; 3] = [labels::TASK_QUEUE, labels::MANAGED_BY, TEMPLATE_HASH];

/// The beginning of the operator's annotations.
const OUR_ANNOTATIONS: &str = "rowlock.dev/";

/// The conditions of pods that are read.
const POD_CONDITIONS: [&str; 4] = ["Ready", "PodScheduled", "PodReadyToStartContainers", "DisruptionTarget"];

/// A few texts by name. A map would have room for eleven.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Texts(Box<[(Box<str>, Box<str>)]>);

impl Texts {
    fn of(texts: Option<BTreeMap<String, String>>, is_kept: impl Fn(&str) -> bool) -> Self {
        let kept = texts.into_iter().flatten().filter(|(name, _)| is_kept(name));
        Self(kept.map(|(name, text)| (name.into(), text.into())).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| **found == *name).map(|(_, text)| &**text)
    }
}

/// The metadata of an object, with our labels and annotations, and the field managers that matter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metadata {
    pub(crate) name: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) generation: Option<i64>,
    /// Only of an object that was read to be written.
    pub(crate) resource_version: Option<String>,
    pub(crate) creation_timestamp: Option<Time>,
    pub(crate) deletion_timestamp: Option<Time>,
    pub(crate) labels: Texts,
    pub(crate) annotations: Texts,
    pub(crate) owner_references: Option<Vec<OwnerReference>>,
    pub(crate) managed_fields: Option<Vec<ManagedFieldsEntry>>,
}

impl From<ObjectMeta> for Metadata {
    fn from(mut all: ObjectMeta) -> Self {
        field_managers::trim(&mut all);
        let is_ours = |name: &str| name.starts_with(OUR_ANNOTATIONS) || name == DELETION_COST;
        Self {
            name: all.name,
            namespace: all.namespace,
            uid: all.uid,
            generation: all.generation,
            resource_version: all.resource_version,
            creation_timestamp: all.creation_timestamp,
            deletion_timestamp: all.deletion_timestamp,
            labels: Texts::of(all.labels, |name| LABELS.contains(&name)),
            annotations: Texts::of(all.annotations, is_ours),
            owner_references: all.owner_references.filter(|references| !references.is_empty()),
            managed_fields: all.managed_fields.filter(|entries| !entries.is_empty()),
        }
    }
}

impl Metadata {
    /// Of an object that a watch shows.
    fn watched(metadata: ObjectMeta) -> Self {
        Self { resource_version: None, ..Self::from(metadata) }
    }

    /// Which object it is, in which generation.
    pub(crate) fn identity(&self) -> Self {
        Self { uid: self.uid.clone(), generation: self.generation, ..Self::default() }
    }
}

/// A Deployment.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "apps::Deployment")]
pub(crate) struct Deployment {
    /// Shared with what the operator remembers of its last write.
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) spec: Option<DeploymentSpec>,
    pub(crate) status: Option<DeploymentStatus>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct DeploymentSpec {
    pub(crate) replicas: Option<i32>,
    pub(crate) paused: Option<bool>,
    /// What is checked of the template of a target. `None`: the operator has made the Deployment.
    pub(crate) template: Option<Box<PodTemplateSpec>>,
}

impl From<apps::Deployment> for Deployment {
    fn from(all: apps::Deployment) -> Self {
        let metadata = Metadata::watched(all.metadata);
        let is_ours = target::is_of_an_operator(&metadata);
        let spec = all.spec.map(|spec| DeploymentSpec {
            replicas: spec.replicas,
            paused: spec.paused,
            template: (!is_ours).then(|| Box::new(target::outline(spec.template))),
        });
        Self { metadata: Arc::new(metadata), spec, status: all.status }
    }
}

/// A `PodDisruptionBudget`.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) metadata: Metadata,
}

impl From<policy::PodDisruptionBudget> for Budget {
    fn from(all: policy::PodDisruptionBudget) -> Self {
        let metadata = Metadata::watched(all.metadata);
        let (labels, annotations) = (Texts::default(), Texts::default());
        Self { metadata: Metadata { labels, annotations, managed_fields: None, ..metadata } }
    }
}

/// A pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "core::Pod")]
pub(crate) struct Pod {
    pub(crate) metadata: Metadata,
    /// The parts of its containers that explain why it is not ready. `None` once it is.
    pub(crate) spec: Option<Box<PodSpec>>,
    pub(crate) status: Option<PodStatus>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct PodStatus {
    pub(crate) phase: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) start_time: Option<Time>,
    pub(crate) conditions: Vec<PodCondition>,
    pub(crate) init_container_statuses: Vec<ContainerStatus>,
    pub(crate) container_statuses: Vec<ContainerStatus>,
    pub(crate) ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Clone)]
pub(crate) struct PodCondition {
    pub(crate) type_: String,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) last_transition_time: Option<Time>,
}

#[derive(Debug, Clone)]
pub(crate) struct ContainerStatus {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) ready: bool,
    pub(crate) restart_count: i32,
    pub(crate) started: Option<bool>,
    pub(crate) state: Option<Box<ContainerState>>,
    pub(crate) last_state: Option<Box<ContainerState>>,
}

impl Pod {
    /// Without what is not read of a pod that is ready. Whether it has ended is known only before.
    pub(crate) fn trimmed(mut self) -> Self {
        if is_ready(&self) {
            self.spec = None;
            let status = self.status.iter_mut();
            let all =
                status.flat_map(|it| it.init_container_statuses.iter_mut().chain(&mut it.container_statuses));
            all.for_each(|container| container.image = String::new());
        }
        self
    }
}

impl From<core::Pod> for Pod {
    fn from(all: core::Pod) -> Self {
        let spec = all.spec.map(|spec| {
            Box::new(PodSpec {
                containers: spec.containers.into_iter().map(outline).collect(),
                init_containers: spec.init_containers.map(|all| all.into_iter().map(outline).collect()),
                node_name: spec.node_name,
                ..PodSpec::default()
            })
        });
        let metadata = Metadata { managed_fields: None, ..Metadata::watched(all.metadata) };
        Self { metadata, spec, status: all.status.map(PodStatus::from) }
    }
}

/// The parts of a container that are read.
fn outline(container: Container) -> Container {
    Container {
        name: container.name,
        restart_policy: container.restart_policy,
        liveness_probe: container.liveness_probe,
        readiness_probe: container.readiness_probe,
        startup_probe: container.startup_probe,
        ..Container::default()
    }
}

impl From<core::PodStatus> for PodStatus {
    fn from(all: core::PodStatus) -> Self {
        let containers = |all: Option<Vec<core::ContainerStatus>>| {
            all.into_iter().flatten().map(ContainerStatus::from).collect::<Vec<_>>()
        };
        let conditions = all.conditions.into_iter().flatten();
        let conditions = conditions.filter(|one| POD_CONDITIONS.contains(&one.type_.as_str()));
        Self {
            phase: all.phase,
            reason: all.reason,
            message: all.message,
            start_time: all.start_time,
            conditions: conditions.map(PodCondition::from).collect(),
            init_container_statuses: containers(all.init_container_statuses),
            container_statuses: containers(all.container_statuses),
            ephemeral_container_statuses: containers(all.ephemeral_container_statuses),
        }
    }
}

impl From<core::PodCondition> for PodCondition {
    fn from(all: core::PodCondition) -> Self {
        let core::PodCondition { type_, status, reason, message, last_transition_time, .. } = all;
        Self { type_, status, reason, message, last_transition_time }
    }
}

impl From<core::ContainerStatus> for ContainerStatus {
    fn from(all: core::ContainerStatus) -> Self {
        // The API server writes an empty state where there was none.
        let state = |state: Option<ContainerState>| {
            state.filter(|state| *state != ContainerState::default()).map(Box::new)
        };
        Self {
            name: all.name,
            image: all.image,
            ready: all.ready,
            restart_count: all.restart_count,
            started: all.started,
            state: state(all.state),
            last_state: state(all.last_state),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Before, a watched pod took 6 KiB, and its Deployment 5 KiB.
    #[test]
    fn what_is_kept_is_small() {
        let sizes = [size_of::<Deployment>(), size_of::<Budget>(), size_of::<Pod>(), size_of::<Metadata>()];
        assert!(sizes.iter().all(|size| *size <= 512), "{sizes:?}");
    }

    #[test]
    fn only_what_is_read_of_metadata_is_kept() {
        let all = json!({
            "name": "mail", "namespace": "shop", "uid": "u", "generation": 7, "resourceVersion": "9",
            "labels": { "rowlock.dev/task-queue": "mail", "team": "a", "pod-template-hash": "7d9f" },
            "annotations": { "rowlock.dev/generation": "7", "note": "long", (DELETION_COST): "1" },
            "managedFields": [{ "manager": "kube-controller-manager", "subresource": "status" }],
            "ownerReferences": [],
        });
        let kept = Metadata::watched(serde_json::from_value(all).unwrap());
        assert_eq!(
            (kept.name.as_deref(), kept.uid.as_deref(), kept.generation),
            (Some("mail"), Some("u"), Some(7))
        );
        assert_eq!((kept.labels.get("team"), kept.labels.get(TEMPLATE_HASH)), (None, Some("7d9f")));
        assert_eq!((kept.annotations.get("note"), kept.annotations.get(DELETION_COST)), (None, Some("1")));
        assert_eq!(kept.annotations.get("rowlock.dev/generation"), Some("7"));
        assert!(kept.managed_fields.is_none() && kept.owner_references.is_none());
        assert_eq!(kept.resource_version, None);
    }

    #[test]
    fn the_spec_of_a_ready_pod_is_not_kept() {
        let pod = |ready: &str| -> Pod {
            let condition = json!({ "type": "Ready", "status": ready });
            let spec = json!({ "containers": [{ "name": "worker", "image": "i" }], "nodeName": "n" });
            serde_json::from_value(json!({ "spec": spec, "status": { "conditions": [condition] } })).unwrap()
        };
        assert!(pod("True").trimmed().spec.is_none());
        let spec = pod("False").trimmed().spec.unwrap();
        assert_eq!((spec.containers[0].image.as_deref(), spec.node_name.as_deref()), (None, Some("n")));
    }
}
