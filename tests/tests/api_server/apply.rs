//! Client-side and server-side apply, for `TaskQueue`s and for the CRD.

use rowlock_tests::checkout;
use serde_json::json;

use crate::kubectl::{json as read, namespace, ok};
use crate::server::{DEFINITION, chart};
use crate::table::manifest;

#[test]
fn a_manifest_is_stored_unchanged() {
    let namespace = namespace("stored");
    let spec = "retry: { maxAttempts: 3 }\n\
                template: { metadata: { labels: { a: b } }, spec: { containers: [{ name: handler, env: [] \
                }], new: { x: [1] } } }";
    let stored = read(&["create", "-n", &namespace, "-f", "-"], &manifest(spec));
    let expected = json!({
        "workers": { "total": 10 },
        "database": { "secretRef": { "name": "shop-pg-app" } },
        "retry": { "maxAttempts": 3 },
        "template": {
            "metadata": { "labels": { "a": "b" } },
            "spec": { "containers": [{ "name": "handler", "env": [] }], "new": { "x": [1] } }
        }
    });
    assert_eq!(stored["spec"], expected);
    // A null is not stored.
    let nulls = manifest("queueName: null\ntimeout: null\nworkers: { total: 1, autoscaling: null }");
    let stored = read(&["create", "--dry-run=server", "-f", "-"], &nulls);
    assert_eq!((&stored["spec"]["queueName"], &stored["spec"]["timeout"]), (&json!(null), &json!(null)));
    assert_eq!(stored["spec"]["workers"], json!({ "total": 1 }));
    assert!(!stored["spec"].as_object().unwrap().contains_key("queueName"));
}

#[test]
fn client_side_apply_removes_fields_that_the_manifest_no_longer_has() {
    let namespace = namespace("client-side");
    let apply = |spec: &str| ok(&["apply", "-n", &namespace, "-f", "-"], &manifest(spec));
    assert_eq!(apply("timeout: 5s"), "taskqueue.rowlock.dev/emails created\n");
    assert_eq!(apply("timeout: 5s"), "taskqueue.rowlock.dev/emails unchanged\n");
    assert_eq!(apply(""), "taskqueue.rowlock.dev/emails configured\n");
    let stored = read(&["get", "tq", "emails", "-n", &namespace], "");
    assert_eq!(stored["spec"]["timeout"], json!(null));
}

#[test]
fn field_managers_can_share_a_template() {
    let namespace = namespace("server-side");
    let apply = |manager: &str, manifest: &str| {
        let manager = format!("--field-manager={manager}");
        ok(&["apply", "--server-side", &manager, "-n", &namespace, "-f", "-"], manifest)
    };
    apply("team", &manifest(""));
    // Another manager adds a container and sets no other field.
    let head = "apiVersion: rowlock.dev/v1alpha1\nkind: TaskQueue\nmetadata: { name: emails }\n";
    let proxy = "spec: { template: { spec: { containers: [{ name: proxy, image: proxy:1 }] } } }\n";
    apply("platform", &format!("{head}{proxy}"));
    apply("team", &manifest("timeout: 5s"));
    let stored = read(&["get", "tq", "emails", "-n", &namespace], "");
    let names = stored["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let names: Vec<&str> = names.iter().filter_map(|container| container["name"].as_str()).collect();
    assert_eq!(names, ["handler", "proxy"]);
    // Fields that it applied before and now leaves out are removed.
    apply("platform", &format!("{head}spec: {{}}\n"));
    let stored = read(&["get", "tq", "emails", "-n", &namespace], "");
    assert_eq!(stored["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(stored["spec"]["timeout"], "5s");
}

#[test]
fn every_example_is_accepted() {
    let namespace = namespace("examples");
    let examples = checkout().join("examples");
    for (flag, example) in [("-f", "postgres.yaml"), ("-f", "sidecar"), ("-k", "quickstart")] {
        let path = examples.join(example);
        let accepted = ok(&["apply", "--dry-run=server", "-n", &namespace, flag, path.to_str().unwrap()], "");
        assert!(accepted.lines().count() >= 2, "{accepted}");
    }
}

#[test]
fn the_crd_can_be_reapplied_by_client_and_server_side_apply() {
    let _definition = DEFINITION.blocking_lock();
    let chart = chart();
    let chart = chart.to_str().unwrap();
    let again = ok(&["apply", "-f", chart], "");
    assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    let again = ok(&["apply", "--server-side", "-f", chart], "");
    assert!(again.lines().all(|line| line.ends_with(" serverside-applied")), "{again}");
    let definition = read(&["get", "crd", "taskqueues.rowlock.dev"], "");
    let conditions = definition["status"]["conditions"].as_array().unwrap();
    let holds = |name: &str| conditions.iter().any(|c| c["type"] == name && c["status"] == "True");
    assert!(holds("Established") && holds("NamesAccepted") && !holds("NonStructuralSchema"));
}

#[test]
fn unknown_fields_are_dropped_without_strict_validation() {
    let namespace = namespace("unknown");
    let spec = manifest("retries: 5\ntimeout: 5s");
    let stored = read(&["create", "--validate=false", "-n", &namespace, "-f", "-"], &spec);
    assert_eq!((&stored["spec"]["retries"], &stored["spec"]["timeout"]), (&json!(null), &json!("5s")));
}
