//! The output of kubectl: columns, conditions, explanations.

use serde_json::json;

use crate::kubectl::{json as read, kubectl, namespace, ok};
use crate::table::manifest;

const STATUS: &str = r#"{"status": {
    "observedGeneration": 1, "pods": 4, "selector": "a=b", "schema": 8,
    "conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "4 pods",
                    "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}],
    "workers": {"desired": 40, "allocated": 39, "busy": 38},
    "backlog": {"available": 17, "scheduled": 0, "running": 38, "retryable": 2, "dead": 5,
                "oldestAvailable": "2026-01-01T00:00:00Z"},
    "scaling": {"mode": "Auto", "demand": 60, "reason": "Total", "limitedBy": "Total"}
}}"#;

#[test]
fn a_new_task_queue_is_not_ready_yet() {
    let namespace = namespace("new");
    ok(&["create", "-n", &namespace, "-f", "-"], &manifest(""));
    let stored = read(&["get", "tq", "emails", "-n", &namespace], "");
    let expected = json!({ "conditions": [{
        "type": "Ready", "status": "Unknown", "reason": "NotObserved", "message": "waiting for the operator",
        "lastTransitionTime": "1970-01-01T00:00:00Z"
    }] });
    assert_eq!(stored["status"], expected);
    let waited =
        kubectl(&["wait", "tq/emails", "-n", &namespace, "--for=condition=Ready", "--timeout=100ms"]);
    assert!(!waited.succeeded);
}

#[test]
fn the_columns_show_the_state_of_the_queue() {
    let namespace = namespace("columns");
    ok(&["create", "-n", &namespace, "-f", "-"], &manifest(""));
    ok(
        &["patch", "tq", "emails", "-n", &namespace, "--subresource=status", "--type=merge", "-p", STATUS],
        "",
    );
    let words = |args: &[&str]| -> Vec<Vec<String>> {
        let table = ok(args, "");
        table.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let table = words(&["get", "tq", "-n", &namespace]);
    assert_eq!(table[0], ["NAME", "READY", "SLOTS", "BACKLOG", "OLDEST", "DEAD", "AGE"]);
    assert_eq!(table[1][..4], ["emails", "True", "39", "17"]);
    // An age of any length.
    assert!(table[1][4].starts_with(|c: char| c.is_ascii_digit()), "{table:?}");
    assert_eq!(table[1][5], "5");
    let wide = words(&["get", "tq", "-n", &namespace, "-o", "wide"]);
    assert_eq!(wide[0][6..9], ["REASON", "PODS", "SCALING"]);
    assert_eq!(wide[1][6..9], ["Succeeded", "4", "Auto"]);
    ok(&["wait", "tq/emails", "-n", &namespace, "--for=condition=Ready", "--timeout=60s"], "");
}

#[test]
fn the_status_is_changed_only_through_its_subresource() {
    let namespace = namespace("status");
    ok(&["create", "-n", &namespace, "-f", "-"], &manifest(""));
    // Together with the spec, the status is ignored silently.
    ok(&["patch", "tq", "emails", "-n", &namespace, "--type=merge", "-p", STATUS], "");
    let stored = read(&["get", "tq", "emails", "-n", &namespace], "");
    assert_eq!(stored["status"]["pods"], json!(null));
    ok(
        &["patch", "tq", "emails", "-n", &namespace, "--subresource=status", "--type=merge", "-p", STATUS],
        "",
    );
    let stored = read(&["get", "tq", "emails", "-n", &namespace], "");
    assert_eq!((&stored["status"]["pods"], &stored["metadata"]["generation"]), (&json!(4), &json!(1)));
}

/// A queue that the operator scales has no replicas to read or set; the error says what to change.
#[test]
fn workers_cannot_be_scaled_as_if_they_were_pods() {
    let namespace = namespace("scale");
    ok(&["create", "-n", &namespace, "-f", "-"], &manifest("workers: { total: 10, autoscaling: {} }"));
    let scaled = kubectl(&["scale", "tq/emails", "-n", &namespace, "--replicas=3"]);
    let cure = "spec.workers.replicas: Invalid value: \"object\": is only for workers.scaling External; set \
                workers.scaling to External, or remove replicas";
    assert!(!scaled.succeeded && scaled.err.contains(cure), "{scaled:?}");
    // An autoscaler shows this error and does nothing.
    let read = kubectl(&["get", "tq", "emails", "-n", &namespace, "--subresource=scale"]);
    let absent = "the spec replicas field \".spec.workers.replicas\" does not exist";
    assert!(!read.succeeded && read.err.contains(absent), "{read:?}");
    let stored = ok(&["get", "tq", "emails", "-n", &namespace, "-o", "jsonpath={.spec.workers}"], "");
    assert_eq!(stored, r#"{"autoscaling":{},"total":10}"#);
}

#[test]
fn the_scale_subresource_counts_pods() {
    let namespace = namespace("pods");
    ok(&["create", "-n", &namespace, "-f", "-"], &manifest("workers: { total: 10, scaling: External }"));
    ok(&["scale", "tq/emails", "-n", &namespace, "--replicas=3"], "");
    ok(
        &["patch", "tq", "emails", "-n", &namespace, "--subresource=status", "--type=merge", "-p", STATUS],
        "",
    );
    let scale = read(&["get", "tq", "emails", "-n", &namespace, "--subresource=scale"], "");
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({ "replicas": 3 }), &json!({ "replicas": 4, "selector": "a=b" }))
    );
    let text = kubectl(&["scale", "tq/emails", "-n", &namespace, "--replicas=10001"]);
    assert!(text.err.contains("should be less than or equal to 10000"), "{text:?}");
}

#[test]
fn kubectl_explain_describes_every_field() {
    let spec = ok(&["explain", "tq.spec"], "");
    for field in [
        "queueName\t<string>",
        "database\t<Object>",
        "workers\t<Object> -required-",
        "template\t<Object>",
        "timeout\t<string>",
        "suspendScaling\t<boolean>",
    ] {
        assert!(spec.contains(field), "{field} is not in {spec}");
    }
    assert!(spec.contains("How long one attempt may take, such as 90s or 1h30m. Default: 60s."), "{spec}");
    let total = ok(&["explain", "tq.spec.workers.total"], "");
    assert!(total.contains("FIELD: total <integer>") && total.contains("0 to 10000."), "{total}");
    let all = ok(&["explain", "tq", "--recursive"], "");
    for field in ["waitTarget", "secretRef", "exponential", "jitterPercent", "oldestAvailable", "limitedBy"] {
        assert!(all.contains(field), "{field} is not in {all}");
    }
}
