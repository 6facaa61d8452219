//! What keeps a pod from starting its handler: the scheduler, the node, volumes, the network, init
//! containers, images.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rowlock_crds::ConditionReason::NotStarting;

use super::finding::{Finding, RECENTLY, SLOW};
use super::probes;
use crate::kubernetes::api::kept::{ContainerStatus, Pod};
use crate::kubernetes::pods::status::{
    condition, describe, is_main, is_sidecar, name, running_since, since, statuses,
};
use crate::kubernetes::sanitize::sanitize;

/// How long a pod may wait for a node, its volumes, its network or an init container before that is a
/// problem.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// How long creating a container may take: pulling a large image takes minutes.
const MAX_CREATION: Duration = Duration::from_mins(5);

/// The pod has no node.
pub(super) fn placed(pod: &Pod, now: Timestamp) -> Option<Finding> {
    let (name, detail) = (name(pod), condition(pod, "PodScheduled"));
    let Some(detail) = detail else {
        let created = pod.metadata.creation_timestamp.as_ref()?.0;
        let message = format!(
            "no scheduler handles pod {name}: check spec.template.spec.schedulerName, and whether the \
             cluster's scheduler runs"
        );
        let unseen = pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none());
        return (unseen && since(created, now) >= MAX_WAIT).then(|| Finding::new(NotStarting, message));
    };
    if detail.status != "False" {
        return None;
    }
    let message = match detail.reason {
        "SchedulingGated" => format!(
            "a scheduling gate holds pod {name} back: whatever sets spec.schedulingGates of the pod has to \
             remove it ({})",
            detail.message
        ),
        _ => format!("pod {name} cannot be scheduled: {}", detail.message),
    };
    Some(Finding::new(NotStarting, message))
}

/// The pod has a node, but not all of its containers run.
pub(super) fn hangs(pod: &Pod, now: Timestamp) -> Option<Finding> {
    let scheduled = condition(pod, "PodScheduled")?;
    let scheduled = scheduled.since.or_else(|| Some(pod.metadata.creation_timestamp.as_ref()?.0))?;
    if pod.status.as_ref().is_none_or(|status| status.start_time.is_none()) {
        return begun(pod, since(scheduled, now));
    }
    if let Some(detail) =
        condition(pod, "PodReadyToStartContainers").filter(|detail| detail.status == "False")
    {
        let waits = since(detail.since.map_or(scheduled, |at| at.max(scheduled)), now);
        return mounted(pod, waits);
    }
    let blocker = statuses(pod).find(|status| !is_through(pod, status))?;
    let begun = statuses(pod).filter_map(last_moment).max().unwrap_or(scheduled);
    initialised(pod, blocker, now).or_else(|| made(pod, blocker, since(begun.max(scheduled), now)))
}

/// The kubelet has not started the pod.
fn begun(pod: &Pod, waits: Duration) -> Option<Finding> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("unknown");
    let message =
        format!("the kubelet of node {node} has not started pod {}: kubectl describe node {node}", name(pod));
    waiting(waits, MAX_WAIT, message, false)
}

/// The pod has no sandbox: the kubelet mounts its volumes first, then sets up its network.
fn mounted(pod: &Pod, waits: Duration) -> Option<Finding> {
    let message = format!(
        "pod {} waits for its volumes or its network: check that the ConfigMaps, Secrets and claims named in \
         spec.template exist; see {}",
        name(pod),
        describe(pod)
    );
    waiting(waits, MAX_WAIT, message, true)
}

/// An init container does not end, or the startup probe of a sidecar does not succeed.
fn initialised(pod: &Pod, status: &ContainerStatus, now: Timestamp) -> Option<Finding> {
    let runs = since(running_since(status)?, now);
    if is_sidecar(pod, &status.name) {
        return probes::unstarted(pod, status, runs);
    }
    let (pod, init) = (name(pod), &status.name);
    let message = format!(
        "init container {init} of pod {pod} is still running, and the handler starts after it: see kubectl \
         logs {pod} -c {init}"
    );
    waiting(runs, MAX_WAIT, message, true).map(|found| Finding { read_events: false, ..found })
}

/// The container is not created yet.
fn made(pod: &Pod, status: &ContainerStatus, waits: Duration) -> Option<Finding> {
    status.state.as_ref().and_then(|state| state.waiting.as_ref())?;
    let message = format!(
        "container {} of pod {} is not created yet (the node may still be pulling its image `{}`): see {}",
        status.name,
        name(pod),
        sanitize(&status.image),
        describe(pod)
    );
    // This does not block scaling: other nodes pull the image in parallel.
    waiting(waits, MAX_CREATION, message, false)
}

/// Slow at first, and a problem after `longest`.
fn waiting(waits: Duration, longest: Duration, message: String, blocks_scaling: bool) -> Option<Finding> {
    if waits >= longest {
        Some(Finding { blocks_scaling, read_events: true, ..Finding::new(NotStarting, message) })
    } else {
        (waits >= SLOW).then(|| Finding::slow(message))
    }
}

/// Whether the next container may start.
fn is_through(pod: &Pod, status: &ContainerStatus) -> bool {
    let Some(state) = &status.state else { return false };
    if is_sidecar(pod, &status.name) {
        // `started` is unset where there is no startup probe.
        return state.running.is_some() && status.started != Some(false);
    }
    let finished = state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0);
    finished || (state.running.is_some() && is_main(pod, &status.name))
}

/// When a container started, or ended: the next one follows.
fn last_moment(status: &ContainerStatus) -> Option<Timestamp> {
    let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    running_since(status).or_else(|| Some(ended?.finished_at.as_ref()?.0))
}

/// A pod that has failed as a whole recently: its node rejected or evicted it.
pub(super) fn ended(pod: &Pod, now: Timestamp) -> Option<Finding> {
    let status = pod.status.as_ref()?;
    let created = pod.metadata.creation_timestamp.as_ref()?.0;
    let reason = status.reason.as_deref().filter(|_| since(created, now) < RECENTLY)?;
    let detail = status.message.as_deref().unwrap_or_default();
    let remedy = match reason {
        "PodOSNotSupported" | "PodOSSelectorNodeLabelDoesNotMatch" => {
            ": the worker is a Linux program: set nodeSelector `kubernetes.io/os: linux` in spec.template"
        }
        "NodeAffinity" => ": the node no longer has a label that spec.template requires",
        "Evicted" => ": raise the requests in spec.template, or free the node",
        _ => "",
    };
    let (reason, detail) = (sanitize(reason), sanitize(detail));
    let message = format!("pod {} failed on its node with {reason}{remedy} ({detail})", name(pod));
    Some(Finding { blocks_scaling: true, ..Finding::new(NotStarting, message) })
}
