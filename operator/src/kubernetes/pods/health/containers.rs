//! Containers that cannot be created, or crash.

use k8s_openapi::jiff::Timestamp;
use rowlock_crds::{ConditionReason, containers as names};

use super::finding::{Finding, RECENTLY};
use super::probes;
use crate::kubernetes::api::kept::{ContainerStatus, Pod};
use crate::kubernetes::pods::status::{is_of_an_operator, name, since};
use crate::kubernetes::sanitize::sanitize;

/// Restarts after which a container counts as crash-looping, unless the last one is longer ago than
/// [`RECENTLY`].
const RESTARTS: i32 = 2;

/// Exit codes that say nothing about the cause: a normal end, SIGTERM, SIGKILL.
const UNSPECIFIC_EXIT_CODES: [i32; 3] = [0, 143, 137];

/// Errors of an image that is built for another architecture or operating system.
const WRONG_PLATFORM: [&str; 3] = ["exec format error", "no match for platform", "no matching manifest for"];

/// Why a container cannot start or crashes. Known reasons of the kubelet get a remedy; others are passed on.
pub(super) fn unwell(pod: &Pod, status: &ContainerStatus, now: Timestamp) -> Option<Finding> {
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    let detail = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
    match reason {
        "CrashLoopBackOff" => Some(crashing(pod, status)),
        "" | "ContainerCreating" | "PodInitializing" => {
            let often = status.restart_count >= RESTARTS && !status.ready && ended_recently(status, now);
            often.then(|| crashing(pod, status))
        }
        _ if is_of_image(reason) => Some(not_pulled(pod, status, reason, detail)),
        _ => Some(not_created(pod, status, reason, detail)),
    }
}

/// `ImagePullBackOff`, `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`, `ImageInspectError`,
/// `ImageVolumeMountFailed`, `SignatureValidationFailed`, `RegistryUnavailable`.
fn is_of_image(reason: &str) -> bool {
    ["Image", "Registry", "Signature"].iter().any(|word| reason.contains(word))
}

fn not_pulled(pod: &Pod, status: &ContainerStatus, reason: &str, detail: &str) -> Finding {
    let (container, image) = (&status.name, sanitize(&status.image));
    let ours = is_ours(pod, container);
    let check = if is_wrong_platform(detail) {
        "it is built for another platform than the node's: build it for that one, or select nodes with \
         spec.template.spec.nodeSelector (kubernetes.io/arch, kubernetes.io/os)"
    } else if reason == "ErrImageNeverPull" {
        "the node does not have it, and imagePullPolicy is Never: load it there, or change imagePullPolicy"
    } else if ours {
        "check workerImage of the operator's chart, with its pullSecrets"
    } else {
        "check its name, and spec.template.spec.imagePullSecrets"
    };
    let message = format!(
        "the image `{image}` of container {container} cannot be pulled: {check} ({})",
        text(reason, detail)
    );
    Finding { blocks_scaling: true, ..Finding::new(ConditionReason::ImageNotPulled, message) }
}

/// `CreateContainerConfigError`, `CreateContainerError`, `RunContainerError`, `PostStartHookError`, and
/// unknown reasons.
fn not_created(pod: &Pod, status: &ContainerStatus, reason: &str, detail: &str) -> Finding {
    let container = &status.name;
    let remedy = if is_wrong_platform(detail) {
        build_for_platform(pod, container)
    } else if reason.contains("Hook") {
        ": its postStart hook fails".to_owned()
    } else if detail.contains("executable file not found") || detail.contains("no such file or directory") {
        ": check its command, and that the image contains that program".to_owned()
    } else {
        String::new()
    };
    let pod = name(pod);
    let message =
        format!("container {container} of pod {pod} cannot be started{remedy} ({})", text(reason, detail));
    // The worker also fails to start in an outage of the database, which more pods do not make worse.
    Finding {
        blocks_scaling: container == names::HANDLER,
        ..Finding::new(ConditionReason::NotStarting, message)
    }
}

/// The kubelet's reason and message, sanitized.
fn text(reason: &str, detail: &str) -> String {
    if detail.is_empty() { sanitize(reason) } else { sanitize(&format!("{reason}: {detail}")) }
}

fn is_wrong_platform(detail: &str) -> bool {
    WRONG_PLATFORM.iter().any(|words| detail.contains(words))
}

/// Whether the operator added the container to the pod, with the image of its chart.
fn is_ours(pod: &Pod, container: &str) -> bool {
    container == names::WORKER && is_of_an_operator(pod)
}

fn build_for_platform(pod: &Pod, container: &str) -> String {
    let whose = if is_ours(pod, container) { "workerImage of the operator's chart" } else { "its image" };
    format!(
        ": {whose} is built for another architecture than the node's: build it for that one, or select nodes \
         with spec.template.spec.nodeSelector (kubernetes.io/arch)"
    )
}

fn ended_recently(status: &ContainerStatus, now: Timestamp) -> bool {
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let ended = last.and_then(|last| last.finished_at.as_ref());
    ended.is_none_or(|ended| since(ended.0, now) < RECENTLY)
}

fn crashing(pod: &Pod, status: &ContainerStatus) -> Finding {
    let container = &status.name;
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let detail = last.and_then(|last| last.message.as_deref()).unwrap_or_default();
    let how = match last {
        Some(last) if last.reason.as_deref() == Some("OOMKilled") => {
            " because it ran out of memory: raise its limit, or lower workers.perPod".to_owned()
        }
        Some(_) if is_wrong_platform(detail) => build_for_platform(pod, container),
        Some(last) => format!(" with exit code {}{}", last.exit_code, why(pod, container, last.exit_code)),
        None => String::new(),
    };
    let pod = name(pod);
    let message = format!(
        "container {container} of pod {pod} is crash-looping{how}: see kubectl logs {pod} -c {container} \
         --previous"
    );
    // The worker also crashes in an outage of the database, which more pods do not make worse.
    let blocks_scaling = container != names::WORKER;
    Finding { blocks_scaling, ..Finding::new(ConditionReason::CrashLooping, message) }
}

/// Why the container ended, if its log does not show that.
fn why(pod: &Pod, container: &str, code: i32) -> String {
    if !UNSPECIFIC_EXIT_CODES.contains(&code) {
        return String::new();
    }
    match probes::that_ends(pod, container) {
        Some(probe) => format!(
            " (the kubelet restarts a container whose {probe} fails; it cannot reach a handler that listens \
             only on 127.0.0.1: let the handler listen on all addresses, or remove the probe)"
        ),
        None if code == 0 => {
            " (it exits by itself; a handler must keep running and listen on $PORT)".to_owned()
        }
        None => String::new(),
    }
}
