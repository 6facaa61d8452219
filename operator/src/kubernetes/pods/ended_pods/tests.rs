use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::kubernetes::pods::recent::MOST_REMEMBERED;

fn terminated(name: &str, reason: &str, code: i32) -> Value {
    json!({
        "name": name, "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
        "state": { "terminated": { "exitCode": code, "reason": reason } }
    })
}

fn with_state(name: &str, state: &Value) -> Value {
    let mut status = terminated(name, "", 0);
    status["state"] = state.clone();
    status
}

/// A pod that the kubelet has ended after its grace period.
fn killed() -> Value {
    json!({
        "metadata": {
            "name": "emails-7d9f-x", "namespace": "shop", "uid": "u1",
            "deletionTimestamp": "2026-01-01T00:00:00Z",
            "labels": { "rowlock.dev/task-queue": "emails", "pod-template-hash": "7d9f" },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "emails-7d9f", "uid": "r1",
                "controller": true
            }],
        },
        "spec": {
            "initContainers": [{ "name": "prepare" }, { "name": "handler" }],
            "containers": [{ "name": "worker" }],
        },
        "status": {
            "phase": "Failed",
            "initContainerStatuses": [
                terminated("prepare", "Completed", 0), terminated("handler", "Error", 137),
            ],
            "containerStatuses": [terminated("worker", "Error", 137)],
        },
    })
}

/// The same, with another value at this place.
fn but(pointer: &str, value: Value) -> Pod {
    let mut pod = killed();
    *pod.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
    serde_json::from_value(pod).unwrap()
}

#[test]
fn only_the_word_of_the_kubelet_about_all_containers_is_proof() {
    let handler = "/status/initContainerStatuses/1";
    let worker = "/status/containerStatuses/0";
    let running = json!({ "running": {} });
    let back_off = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
    let status = |more: Value| {
        let mut status = killed()["status"].clone();
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        status
    };
    let collected = json!([{ "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC" }]);
    let evicted = json!([{ "type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet" }]);
    let debug = json!([with_state("debugger", &running)]);
    let table = vec![
        ("killed after its grace period", but("/status/phase", json!("Failed")), true),
        ("everything ended well", but("/status/phase", json!("Succeeded")), true),
        ("out of memory", but(handler, terminated("handler", "OOMKilled", 137)), true),
        ("not deleted, but evicted", but("/metadata/deletionTimestamp", Value::Null), true),
        ("evicted", but("/status", status(json!({ "reason": "Evicted", "conditions": evicted }))), true),
        ("its containers may start again", but("/status/phase", json!("Running")), false),
        ("nobody knows the phase", but("/status/phase", json!("Unknown")), false),
        ("only the worker has ended", but(handler, with_state("handler", &running)), false),
        ("only the handler has ended", but(worker, with_state("worker", &running)), false),
        ("the handler starts again", but(handler, with_state("handler", &back_off)), false),
        ("a state without a report", but(handler, with_state("handler", &json!({}))), false),
        (
            "the kubelet has lost it",
            but(handler, terminated("handler", "ContainerStatusUnknown", 137)),
            false,
        ),
        ("the runtime has lost it", but(worker, terminated("worker", "Unknown", 255)), false),
        ("no reason", but(worker, terminated("worker", "", 137)), false),
        (
            "another container runs",
            but("/status/initContainerStatuses/0", with_state("proxy", &running)),
            false,
        ),
        ("a debugger runs", but("/status", status(json!({ "ephemeralContainerStatuses": debug }))), false),
        ("no handler is reported", but("/status/initContainerStatuses", json!([])), false),
        ("no worker is reported", but("/status/containerStatuses", json!([])), false),
        ("the node is lost", but("/status", status(json!({ "reason": "NodeLost" }))), false),
        ("collected without its node", but("/status", status(json!({ "conditions": collected }))), false),
        ("no status", but("/status", Value::Null), false),
        ("a bare pod", but("/metadata/ownerReferences", json!([])), false),
        ("of a StatefulSet", but("/metadata/ownerReferences/0/kind", json!("StatefulSet")), false),
        ("of no Deployment", but("/metadata/ownerReferences/0/name", json!("emails")), false),
        ("only named, not controlled", but("/metadata/ownerReferences/0/controller", json!(false)), false),
        ("of no TaskQueue", but("/metadata/labels", json!({ "pod-template-hash": "7d9f" })), false),
    ];
    for (case, pod, expected) in table {
        assert_eq!(ended(&pod).is_some(), expected, "{case}");
    }
}

#[test]
fn the_words_say_how_worker_and_handler_ended() {
    let mut pod = but("/status/initContainerStatuses/1", terminated("handler", "OOMKilled", 137));
    pod.status.as_mut().unwrap().reason = Some("Evicted".to_owned());
    let ended = ended(&pod).unwrap();
    assert_eq!(ended.how, "Evicted; worker: Error, exit code 137; handler: OOMKilled, exit code 137");
    let of = (ended.task_queue.as_str(), ended.deployment.as_str());
    assert_eq!((of, ended.uid.as_str()), (("emails", "emails"), "u1"));
}

/// Before, the tasks of such a pod waited for the whole lease.
#[test]
fn a_pod_of_a_users_own_deployment_ends_with_all_its_containers_whatever_their_names() {
    let pod = |web: &Value| {
        let mut pod = killed();
        pod["metadata"]["ownerReferences"][0]["name"] = "shop-7d9f".into();
        pod["spec"] = json!({ "containers": [{ "name": "web" }, { "name": "worker" }] });
        pod["status"]["containerStatuses"] =
            json!([with_state("web", web), terminated("worker", "Error", 1)]);
        pod["status"]["initContainerStatuses"] = json!([]);
        ended(&serde_json::from_value(pod).unwrap())
    };
    let found = pod(&terminated("web", "Completed", 0)["state"]).unwrap();
    assert_eq!((found.task_queue.as_str(), found.deployment.as_str()), ("emails", "shop"));
    assert_eq!(found.how, "worker: Error, exit code 1; web: Completed, exit code 0");
    assert_eq!(pod(&json!({ "running": {} })), None);
}

#[test]
fn each_pod_is_pending_once_and_no_longer_than_a_lease() {
    let (pods, now) = (EndedPods::default(), Instant::now());
    let pod = but("/status/phase", json!("Failed"));
    let ours = |pod: &EndedPod| (pod.task_queue == "emails").then_some(());
    let pending = |now| pods.pending("shop", ours, 10, now).len();
    pods.note(&pod, now);
    pods.note(&pod, now);
    assert_eq!(pending(now), 1);
    assert_eq!(pods.pending("other", ours, 10, now), [], "it belongs to another namespace");
    assert_eq!(pods.pending("shop", |_| None::<()>, 10, now), [], "it belongs to another controller");
    assert_eq!(pending(now + LEASE_DURATION), 0, "others have rescued its tasks");
    pods.done("shop", "u1");
    pods.note(&pod, now + Duration::from_secs(1));
    assert_eq!(pending(now), 0, "the event of its deletion says nothing new");
}

#[test]
fn memory_is_bounded() {
    let (pods, now) = (EndedPods::default(), Instant::now());
    for n in 0..=MOST_REMEMBERED {
        pods.note(&but("/metadata/uid", json!(n.to_string())), now);
    }
    assert_eq!(pods.pending("shop", |_| Some(()), usize::MAX, now).len(), MOST_REMEMBERED);
    assert_eq!(pods.pending("shop", |_| Some(()), 20, now).len(), 20);
    // Before, pods that may not be rescued took the places of others.
    let last = |pod: &EndedPod| (pod.uid == "999").then_some(());
    assert_eq!(pods.pending("shop", last, 20, now).len(), 1);
    pods.note(&but("/metadata/uid", json!("later")), now + LEASE_DURATION);
    assert_eq!(pods.0.len("shop"), 1);
}
