//! Why containers do not run, by the reasons of the kubelet and of the container runtime.

use super::*;
use ConditionReason::{CrashLooping, ImageNotPulled, NotStarting};

/// All reasons of the kubelet 1.34 and of the Container Runtime Interface, and an unknown one.
const REASONS: [(&str, ConditionReason); 16] = [
    ("CrashLoopBackOff", CrashLooping),
    ("ImagePullBackOff", ImageNotPulled),
    ("ErrImagePull", ImageNotPulled),
    ("ErrImageNeverPull", ImageNotPulled),
    ("InvalidImageName", ImageNotPulled),
    ("ImageInspectError", ImageNotPulled),
    ("ImageVolumeMountFailed", ImageNotPulled),
    ("RegistryUnavailable", ImageNotPulled),
    ("SignatureValidationFailed", ImageNotPulled),
    ("CreateContainerConfigError", NotStarting),
    ("CreateContainerError", NotStarting),
    ("PreCreateHookError", NotStarting),
    ("PreStartHookError", NotStarting),
    ("PostStartHookError", NotStarting),
    ("RunContainerError", NotStarting),
    ("OfTheYear2030", NotStarting),
];

fn of_handler(state: &Value, last: &Value) -> Value {
    json!({ "initContainerStatuses": [container("handler", false, 3, state, last)] })
}

/// Before, half of them did not count as problems, and the operator created more such pods.
#[test]
fn every_reason_of_a_kubelet_is_named_with_the_container_and_blocks_scaling() {
    for (reason, expected) in REASONS {
        let status =
            of_handler(&json!({ "waiting": { "reason": reason, "message": "because" } }), &json!({}));
        let problem = health_of(&status).problem.unwrap_or_else(|| panic!("{reason} is no problem"));
        assert_eq!(problem.reason, expected, "{reason}");
        assert!(problem.message.contains("container handler"), "{}", problem.message);
        assert!(expected == CrashLooping || problem.message.contains("because"), "{}", problem.message);
        assert!(not_starting(&[pod(&status)], false, NOW.parse().unwrap()), "{reason}");
    }
}

#[test]
fn known_errors_of_a_runtime_get_a_remedy() {
    let waits = |reason: &str, detail: &str| {
        of_handler(&json!({ "waiting": { "reason": reason, "message": detail } }), &json!({}))
    };
    for (reason, detail, helps) in [
        (
            "RunContainerError",
            "failed to create containerd task: exec /app: exec format error",
            "kubernetes.io/arch",
        ),
        ("ErrImagePull", "no match for platform in manifest: not found", "kubernetes.io/os"),
        ("RunContainerError", "exec: \"serve\": executable file not found in $PATH", "check its command"),
        ("PostStartHookError", "command 'x' exited with 1", "postStart hook"),
        ("ErrImageNeverPull", "Container image is not present", "imagePullPolicy is Never"),
    ] {
        let message = health_of(&waits(reason, detail)).problem.unwrap().message;
        assert!(message.contains(helps) && message.contains(detail), "{message}");
    }
    let ended =
        json!({ "terminated": { "exitCode": 128, "reason": "StartError", "message": "exec format error" } });
    let message = health_of(&of_handler(&json!({ "waiting": { "reason": "CrashLoopBackOff" } }), &ended))
        .problem
        .unwrap()
        .message;
    assert!(message.contains("another architecture"), "{message}");
}

/// Before, the message only pointed to the handler's log. But the kubelet had ended the handler, so its log
/// showed no cause.
#[test]
fn a_handler_that_its_probe_ends_is_distinguished_from_one_that_exits() {
    let says = |code: i32, container: &Value| {
        let reason = if code == 0 { "Completed" } else { "Error" };
        let ended = json!({ "terminated": { "exitCode": code, "reason": reason } });
        let status = of_handler(&json!({ "waiting": { "reason": "CrashLoopBackOff" } }), &ended);
        let spec = json!({ "containers": [], "initContainers": [container] });
        let pod = json!({ "metadata": { "name": "p" }, "spec": spec, "status": status });
        health_of_all(&[Arc::new(serde_json::from_value(pod).unwrap())], None).problem.unwrap().message
    };
    let probe = json!({ "tcpSocket": { "port": 8080 } });
    let probed = json!({ "name": "handler", "restartPolicy": "Always", "livenessProbe": probe });
    let plain = json!({ "name": "handler", "restartPolicy": "Always" });
    for code in [0, 143, 137] {
        let message = says(code, &probed);
        assert!(message.contains("livenessProbe") && message.contains("127.0.0.1"), "{message}");
    }
    assert!(!says(1, &probed).contains("livenessProbe"));
    assert!(says(0, &plain).contains("exits by itself"));
    assert!(!says(143, &plain).contains("livenessProbe"));
}

#[test]
fn a_node_that_rejects_a_pod_is_named_while_no_other_pod_is_ready() {
    let failed = |created: &str, reason: &str| -> Arc<Pod> {
        let status = json!({ "phase": "Failed", "reason": reason, "message": "because" });
        let pod = json!({ "metadata": { "name": "p", "creationTimestamp": created }, "status": status });
        Arc::new(serde_json::from_value(pod).unwrap())
    };
    let now = "2026-01-01T00:00:50Z";
    for reason in ["PodOSNotSupported", "OutOfcpu", "UnexpectedAdmissionError", "Evicted", "NodeAffinity"] {
        let pods = [failed(now, reason)];
        let found = health_of_all(&pods, None);
        let problem = found.problem.unwrap();
        assert_eq!((found.pods, problem.reason), (0, NotStarting));
        assert!(
            problem.message.contains(reason) && problem.message.contains("because"),
            "{}",
            problem.message
        );
        assert!(not_starting(&pods, false, NOW.parse().unwrap()));
    }
    let ready = pod(&json!({ "conditions": [{ "type": "Ready", "status": "True" }] }));
    assert_eq!(health_of_all(&[failed(now, "Evicted"), ready], None).problem, None);
    assert_eq!(health_of_all(&[failed("2025-12-31T20:00:00Z", "Evicted")], None).problem, None, "long ago");
}
