//! What somebody sees who looks: columns, conditions, explanations.

use serde_json::json;

use crate::kubectl::{json as read, kubectl, namespace, ok};
use crate::table::manifest;

const STATUS: &str = r#"{"status": {
    "observedGeneration": 1, "pods": 4, "schema": 8,
    "conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "4 pods",
                    "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}],
    "workers": {"desired": 40, "allocated": 39, "busy": 38},
    "backlog": {"available": 17, "scheduled": 0, "running": 38, "retryable": 2, "dead": 5,
                "oldestAvailable": "2026-01-01T00:00:00Z"},
    "scaling": {"desired": 60, "reason": "Total", "limitedBy": "Total"}
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
    assert!(!waited.content);
}

#[test]
fn the_columns_say_how_it_does() {
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
    assert_eq!(table[0], ["NAME", "READY", "WORKERS", "BACKLOG", "OLDEST", "DEAD", "AGE"]);
    assert_eq!(table[1][..4], ["emails", "True", "39", "17"]);
    // An age, whatever it is today.
    assert!(table[1][4].starts_with(|c: char| c.is_ascii_digit()), "{table:?}");
    assert_eq!(table[1][5], "5");
    let wide = words(&["get", "tq", "-n", &namespace, "-o", "wide"]);
    assert_eq!((wide[0][6].as_str(), wide[1][6].as_str()), ("REASON", "Succeeded"));
    ok(&["wait", "tq/emails", "-n", &namespace, "--for=condition=Ready", "--timeout=60s"], "");
}

#[test]
fn a_status_is_written_as_a_status_only() {
    let namespace = namespace("status");
    ok(&["create", "-n", &namespace, "-f", "-"], &manifest(""));
    // With the spec, it is left aside without a word.
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

#[test]
fn workers_cannot_be_scaled_as_if_they_were_pods() {
    let namespace = namespace("scale");
    ok(&["create", "-n", &namespace, "-f", "-"], &manifest(""));
    assert!(!kubectl(&["scale", "tq/emails", "-n", &namespace, "--replicas=3"]).content);
}

#[test]
fn explain_explains() {
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
