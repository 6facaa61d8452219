//! Containers that cannot be made, or do not stay.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use rowlock_crds::{ConditionReason, containers as names};

use super::{Finding, RECENTLY, name, probes, sanitize, since};

/// So many restarts count as crash-looping, unless the last was longer ago than [`LATELY`].
const RESTARTS: i32 = 2;

/// Exit codes of a process that was told to end, and did, or was ended.
const TOLD_TO_END: [i32; 3] = [0, 143, 137];

/// What an image of another architecture, or of another system, says of itself.
const OTHER_PROCESSOR: [&str; 3] = ["exec format error", "no match for platform", "no matching manifest for"];

/// A container that cannot start or does not stay. Every reason of a kubelet is known here by what it
/// means, or is passed on.
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
        _ if is_of_image(reason) => Some(unfetched(status, reason, detail)),
        _ => Some(unmade(pod, status, reason, detail)),
    }
}

/// `ImagePullBackOff`, `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`, `ImageInspectError`,
/// `ImageVolumeMountFailed`, `SignatureValidationFailed`, `RegistryUnavailable`.
fn is_of_image(reason: &str) -> bool {
    ["Image", "Registry", "Signature"].iter().any(|word| reason.contains(word))
}

fn unfetched(status: &ContainerStatus, reason: &str, detail: &str) -> Finding {
    let (container, image) = (&status.name, sanitize(&status.image));
    let ours = container == names::WORKER;
    let check = if other_processor(detail) {
        "it is built for another processor or system than the node's: build it for that one, or choose \
        nodes by \
         spec.template.spec.nodeSelector (kubernetes.io/arch, kubernetes.io/os)"
    } else if reason == "ErrImageNeverPull" {
        "the node does not have it and imagePullPolicy is Never: load it there, or choose another \
        imagePullPolicy"
    } else if ours {
        "check workerImage of the operator's chart, its pullSecrets among it"
    } else {
        "check its name, and spec.template.spec.imagePullSecrets"
    };
    let message = format!(
        "the image `{image}` of the container {container} cannot be fetched: {check} ({})",
        text(reason, detail)
    );
    Finding { blocks_scaling: true, ..Finding::new(ConditionReason::ImageNotPulled, message) }
}

/// `CreateContainerConfigError`, `CreateContainerError`, `RunContainerError`, `PostStartHookError` and
/// whatever else keeps it from running.
fn unmade(pod: &Pod, status: &ContainerStatus, reason: &str, detail: &str) -> Finding {
    let (pod, container) = (name(pod), &status.name);
    let remedy = if other_processor(detail) {
        processor(container)
    } else if reason.contains("Hook") {
        ": its postStart hook fails".to_owned()
    } else if detail.contains("executable file not found") || detail.contains("no such file or directory") {
        ": check its command, and that the image has that program".to_owned()
    } else {
        String::new()
    };
    let message = format!(
        "the container {container} of pod {pod} cannot be started{remedy} ({})",
        text(reason, detail)
    );
    // A worker's own start is the operator's to choose, and ends in every outage of the database.
    Finding {
        blocks_scaling: container == names::HANDLER,
        ..Finding::new(ConditionReason::NotStarting, message)
    }
}

/// What the kubelet says, as a part of a sentence of ours.
fn text(reason: &str, detail: &str) -> String {
    if detail.is_empty() { sanitize(reason) } else { sanitize(&format!("{reason}: {detail}")) }
}

fn other_processor(detail: &str) -> bool {
    OTHER_PROCESSOR.iter().any(|words| detail.contains(words))
}

fn processor(container: &str) -> String {
    let whose = if container == names::WORKER { "workerImage of the operator's chart" } else { "its image" };
    format!(
        ": {whose} is built for another processor than the node's: build it for that one, or choose nodes by \
         spec.template.spec.nodeSelector (kubernetes.io/arch)"
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
            " for want of memory: raise its limit, or lower workers.perPod".to_owned()
        }
        Some(_) if other_processor(detail) => processor(container),
        Some(last) => format!(" with exit code {}{}", last.exit_code, why(pod, container, last.exit_code)),
        None => String::new(),
    };
    let pod = name(pod);
    let message = format!(
        "the container {container} of pod {pod} is crash-looping{how}: see kubectl logs {pod} -c \
        {container} --previous"
    );
    // Not where a worker ends: it does in every outage of the database.
    let blocks_scaling = container != names::WORKER;
    Finding { blocks_scaling, ..Finding::new(ConditionReason::CrashLooping, message) }
}

/// What a log does not tell: who has ended it.
fn why(pod: &Pod, container: &str, code: i32) -> String {
    if !TOLD_TO_END.contains(&code) {
        return String::new();
    }
    match probes::that_ends(pod, container) {
        Some(probe) => format!(
            " (the kubelet ends a container whose {probe} fails; a handler that listens on 127.0.0.1 alone \
            cannot be probed from outside: have it \
             listen on all addresses, or leave the probe out)"
        ),
        None if code == 0 => " (it ends by itself; a handler has to stay and listen on $PORT)".to_owned(),
        None => String::new(),
    }
}
