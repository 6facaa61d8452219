//! What the watches keep of objects: only what is needed, since an operator may watch thousands.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::kubernetes::api::field_managers;
use crate::kubernetes::deployment::scale_in::DELETION_COST;
use crate::kubernetes::deployment::target;
use crate::kubernetes::pods::status::is_ready;

pub(super) fn without_managers(budget: &mut PodDisruptionBudget) {
    budget.metadata.managed_fields = None;
}

/// Keeps the foreign field managers of a Deployment, and of its template what is checked of a target.
pub(super) fn trim_deployment(deployment: &mut Deployment) {
    field_managers::trim(&mut deployment.metadata);
    let is_ours = target::is_of_an_operator(&deployment.metadata);
    if let Some(spec) = &mut deployment.spec {
        let template = std::mem::take(&mut spec.template);
        spec.template = if is_ours { PodTemplateSpec::default() } else { target::outline(template) };
    }
}

/// Keeps the labels, the status and the deletion cost of a pod, and until it is ready, the parts of its
/// containers that explain why it is not.
pub(super) fn trim_pod(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.retain(|name, _| name == DELETION_COST);
    }
    pod.metadata.annotations = pod.metadata.annotations.take().filter(|kept| !kept.is_empty());
    let ready = is_ready(pod);
    pod.spec = pod.spec.take().filter(|_| !ready).map(|spec| PodSpec {
        containers: spec.containers.into_iter().map(outline).collect(),
        init_containers: spec.init_containers.map(|all| all.into_iter().map(outline).collect()),
        node_name: spec.node_name,
        ..PodSpec::default()
    });
}

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
