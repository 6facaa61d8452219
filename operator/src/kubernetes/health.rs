//! What the pods of a queue say of its handler: pure.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use rowlock_crds::{ConditionReason, containers};

use super::database::Trouble;

/// For so long a handler may start before we say that it does not listen.
const START: Duration = Duration::from_secs(30);

/// So many ends are a habit, unless the last was longer ago than Kubernetes pauses between two tries (five minutes) twice.
const RESTARTS: i32 = 2;
const LATELY: Duration = Duration::from_mins(10);

/// How the pods are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Health {
    pub(crate) pods: usize,
    pub(crate) ready: usize,
    /// What is wrong with the first pod that has something wrong.
    pub(crate) trouble: Option<Trouble>,
}

/// Judges the pods that are not on their way out.
pub(crate) fn health(pods: &[Arc<Pod>], port: u16, now: Timestamp) -> Health {
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let mut named: Vec<_> = pods.iter().collect();
    named.sort_by_key(|pod| pod.metadata.name.clone());
    let trouble = named.into_iter().find_map(|pod| trouble(pod, port, now));
    Health { pods: pods.len(), ready, trouble }
}

/// Whether pods only end, or find no image, until one of them is ready; `before`: whether they did when last looked at. Not where they only take their
/// time, or wait for a node.
pub(crate) fn only_end(pods: &[Arc<Pod>], before: bool, now: Timestamp) -> bool {
    !pods.iter().any(|pod| is_ready(pod))
        && (before && !pods.is_empty() || pods.iter().any(|pod| ends(pod, now)))
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, ..)| status == "True")
}

/// Not where a worker ends: it does in every outage of the database.
fn ends(pod: &Pod, now: Timestamp) -> bool {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    containers_of(pod).any(|container| {
        unwell(name, container, now).is_some_and(|trouble| match trouble.reason {
            ConditionReason::ImageNotPulled => true,
            ConditionReason::CrashLooping => container.name == containers::HANDLER,
            _ => false,
        })
    })
}

fn trouble(pod: &Pod, port: u16, now: Timestamp) -> Option<Trouble> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if let Some((status, reason, message)) = condition(pod, "PodScheduled")
        && status == "False"
        && reason == "Unschedulable"
    {
        let message = format!("the pod {name} finds no node: {message}");
        return Some(Trouble::new(ConditionReason::NotStarting, message));
    }
    containers_of(pod)
        .find_map(|container| unwell(name, container, now))
        .or_else(|| silent(pod, &containers_of(pod).collect::<Vec<_>>(), port, now))
}

/// Sidecars, the handler among them, and the worker.
fn containers_of(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status
        .flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses))
        .flatten()
}

/// A container that cannot start or does not stay.
fn unwell(pod: &str, status: &ContainerStatus, now: Timestamp) -> Option<Trouble> {
    let container = &status.name;
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    let said = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
    match reason {
        "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull" => {
            let image = &status.image;
            let check = if container == containers::WORKER {
                "workerImage of the operator's chart, its pullSecrets among it"
            } else {
                "its name, and spec.template.spec.imagePullSecrets"
            };
            let message = format!(
                "the image `{image}` of the container {container} cannot be fetched: check {check} ({said})"
            );
            Some(Trouble::new(ConditionReason::ImageNotPulled, message))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            let message = format!("the container {container} of the pod {pod} cannot be made: {said}");
            Some(Trouble::new(ConditionReason::NotStarting, message))
        }
        "CrashLoopBackOff" => Some(crashing(pod, status)),
        _ if status.restart_count >= RESTARTS && !status.ready && ended_lately(status, now) => {
            Some(crashing(pod, status))
        }
        _ => None,
    }
}

fn ended_lately(status: &ContainerStatus, now: Timestamp) -> bool {
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let ended = last.and_then(|last| last.finished_at.as_ref());
    ended.is_none_or(|ended| since(ended.0, now) < LATELY)
}

fn crashing(pod: &str, status: &ContainerStatus) -> Trouble {
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let how = match last {
        Some(last) if last.reason.as_deref() == Some("OOMKilled") => {
            "for want of memory: raise its limit, or lower workers.perPod".to_owned()
        }
        Some(last) => format!("with exit code {}", last.exit_code),
        None => "at once".to_owned(),
    };
    let container = &status.name;
    let message = format!(
        "the container {container} keeps ending, {how}: see kubectl logs {pod} -c {container} --previous"
    );
    Trouble::new(ConditionReason::CrashLooping, message)
}

/// Both run, yet the worker is not ready.
fn silent(pod: &Pod, statuses: &[&ContainerStatus], port: u16, now: Timestamp) -> Option<Trouble> {
    let of = |name: &str| statuses.iter().find(|status| status.name == name);
    let running_since = |name: &str| {
        let running = of(name)?.state.as_ref()?.running.as_ref()?;
        running.started_at.as_ref().map(|time| time.0)
    };
    let handler = running_since(containers::HANDLER)?;
    let Some(started) = running_since(containers::WORKER) else {
        let waited = since(handler, now);
        let not_yet = of(containers::HANDLER).is_some_and(|status| status.started == Some(false));
        return (not_yet && waited >= START).then(|| unstarted(pod));
    };
    let waited = since(started, now);
    if of(containers::WORKER)?.ready || waited < START {
        return None;
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let message = format!(
        "the pod {name} is not ready: its handler does not listen on port {port} (have it listen on $PORT, or set spec.handler.http.port), or \
         its worker does not reach the database, and then kubectl logs {name} -c worker says why"
    );
    Some(Trouble::new(ConditionReason::NotListening, message))
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

/// The worker is not started before the handler's own startup probe succeeds.
fn unstarted(pod: &Pod) -> Trouble {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let message = format!(
        "the startupProbe of the handler of the pod {name} does not succeed: it may be wrong, since none is needed; or the handler waits for \
         a proxy that starts after it (a service mesh whose proxy is not a native sidecar)"
    );
    Trouble::new(ConditionReason::NotListening, message)
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let found = conditions.iter().find(|condition| condition.type_ == type_)?;
    let text = |text: &'a Option<String>| text.as_deref().unwrap_or_default();
    Some((&found.status, text(&found.reason), text(&found.message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-01-01T00:01:00Z";

    fn pod(status: &Value) -> Arc<Pod> {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "status": status })).unwrap()
    }

    fn judge(status: &Value) -> Health {
        health(&[pod(status)], 8080, NOW.parse().unwrap())
    }

    fn container(name: &str, ready: bool, restarts: u32, state: &Value, last: &Value) -> Value {
        json!({ "name": name, "image": "i:1", "imageID": "", "ready": ready, "restartCount": restarts, "state": state, "lastState": last })
    }

    fn check(status: &Value, reason: ConditionReason, says: &str) {
        let trouble = judge(status).trouble.unwrap();
        assert_eq!(trouble.reason, reason);
        assert!(trouble.message.contains(says), "{}", trouble.message);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_do() {
        let waiting = |reason: &str| json!({ "waiting": { "reason": reason, "message": "because" } });
        let handler =
            |state, last| json!({ "initContainerStatuses": [container("handler", false, 3, &state, &last)] });
        let unfetched = waiting("ImagePullBackOff");
        check(&handler(unfetched.clone(), json!({})), ConditionReason::ImageNotPulled, "`i:1`");
        check(
            &handler(unfetched.clone(), json!({})),
            ConditionReason::ImageNotPulled,
            "spec.imagePullSecrets",
        );
        let worker = container("worker", false, 0, &unfetched, &json!({}));
        check(
            &json!({ "containerStatuses": [worker] }),
            ConditionReason::ImageNotPulled,
            "pullSecrets among",
        );
        check(
            &handler(waiting("CreateContainerConfigError"), json!({})),
            ConditionReason::NotStarting,
            "because",
        );
        let ended = |reason: &str| json!({ "terminated": { "exitCode": 3, "reason": reason } });
        check(
            &handler(waiting("CrashLoopBackOff"), ended("Error")),
            ConditionReason::CrashLooping,
            "exit code 3",
        );
        check(
            &handler(waiting("CrashLoopBackOff"), ended("OOMKilled")),
            ConditionReason::CrashLooping,
            "memory",
        );
        check(
            &handler(json!({ "running": {} }), ended("Error")),
            ConditionReason::CrashLooping,
            "--previous",
        );
        let ended_at = |at: &str| json!({ "terminated": { "exitCode": 3, "finishedAt": at } });
        let runs_again = |at| handler(json!({ "running": {} }), ended_at(at));
        check(&runs_again("2026-01-01T00:00:30Z"), ConditionReason::CrashLooping, "exit code 3");
        assert_eq!(judge(&runs_again("2025-12-31T23:40:00Z")).trouble, None, "that was long ago");
        let place = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes" }]);
        check(&json!({ "conditions": place }), ConditionReason::NotStarting, "0/3 nodes");
    }

    #[test]
    fn a_worker_that_waits_for_long_beside_a_running_handler_finds_nobody_listening() {
        let running = |at: &str| json!({ "running": { "startedAt": at } });
        let status = |at: &str, ready| {
            json!({
                "initContainerStatuses": [container("handler", true, 0, &running(at), &json!({}))],
                "containerStatuses": [container("worker", ready, 0, &running(at), &json!({}))],
            })
        };
        check(&status("2026-01-01T00:00:00Z", false), ConditionReason::NotListening, "port 8080");
        assert_eq!(judge(&status("2026-01-01T00:00:50Z", false)).trouble, None);
        assert_eq!(judge(&status("2026-01-01T00:00:00Z", true)).trouble, None);
    }

    #[test]
    fn a_handler_whose_startup_probe_fails_keeps_the_worker_from_starting() {
        let status = |at: &str| {
            let mut handler =
                container("handler", false, 0, &json!({ "running": { "startedAt": at } }), &json!({}));
            handler["started"] = false.into();
            let waiting = json!({ "waiting": { "reason": "PodInitializing" } });
            json!({
                "initContainerStatuses": [handler],
                "containerStatuses": [container("worker", false, 0, &waiting, &json!({}))],
            })
        };
        check(&status("2026-01-01T00:00:00Z"), ConditionReason::NotListening, "native sidecar");
        assert_eq!(judge(&status("2026-01-01T00:00:50Z")).trouble, None);
    }

    #[test]
    fn pods_only_end_until_one_is_ready() {
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        let crashes =
            |name| pod(&json!({ "containerStatuses": [container(name, false, 3, &waiting, &json!({}))] }));
        let ready = pod(&json!({ "conditions": [{ "type": "Ready", "status": "True" }] }));
        let starts = pod(&json!({}));
        let crashing = crashes("handler");
        for (pods, before, after) in [
            (vec![&crashing], false, true),
            (vec![&crashing, &ready], true, false),
            (vec![&starts], true, true),
            (vec![&starts], false, false),
            (vec![&crashes("worker")], false, false),
            (vec![], true, false),
        ] {
            let pods: Vec<Arc<Pod>> = pods.into_iter().cloned().collect();
            assert_eq!(only_end(&pods, before, NOW.parse().unwrap()), after, "{pods:?}");
        }
    }

    #[test]
    fn ready_pods_are_counted() {
        let ready = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
        assert_eq!(judge(&ready), Health { pods: 1, ready: 1, ..Health::default() });
        assert_eq!(judge(&json!({})), Health { pods: 1, ..Health::default() });
    }
}
