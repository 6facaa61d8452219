//! Fields that may change after a `TaskQueue` was created.

use crate::kubectl::{kubectl, namespace, ok};
use crate::table::manifest;

const REFUSAL: &str = "The TaskQueue \"emails\" is invalid: spec.queueName: Invalid value: \"object\": \
    cannot change: the tasks are stored under this name; create a new TaskQueue instead\n";

/// A namespace with a `TaskQueue` of this spec.
fn queue(namespace_name: &str, spec: &str) -> String {
    let namespace = namespace(namespace_name);
    ok(&["create", "-n", &namespace, "-f", "-"], &manifest(spec));
    namespace
}

/// The result of a change of the spec, given as JSON.
fn change(namespace: &str, spec: &str) -> String {
    let patch = format!("{{\"spec\": {spec}}}");
    let message = kubectl(&["patch", "tq", "emails", "-n", namespace, "--type=merge", "-p", &patch]);
    if message.succeeded { String::new() } else { message.err }
}

#[test]
fn the_name_of_the_queue_cannot_change() {
    let namespace = queue("named", "queueName: q");
    assert_eq!(change(&namespace, r#"{"queueName": "other"}"#), REFUSAL);
    // Without it, it would be that of the metadata.
    assert_eq!(change(&namespace, r#"{"queueName": null}"#), REFUSAL);
    assert_eq!(change(&namespace, r#"{"queueName": "q", "paused": true}"#), "");
}

#[test]
fn a_queue_named_after_its_task_queue_keeps_that_name() {
    let namespace = queue("unnamed", "");
    assert_eq!(change(&namespace, r#"{"queueName": "other"}"#), REFUSAL);
    // The name it has.
    assert_eq!(change(&namespace, r#"{"queueName": "emails"}"#), "");
    assert_eq!(change(&namespace, r#"{"queueName": null}"#), "");
}

#[test]
fn all_other_fields_can_change() {
    let namespace = queue("changing", "");
    for spec in [
        r#"{"database": {"secretRef": {"name": "restored", "key": "url"}}}"#,
        r#"{"workers": {"total": 0, "perPod": 1, "autoscaling": {}}}"#,
        // A number that an autoscaler set may stay or be removed, but not be set.
        r#"{"workers": {"autoscaling": null, "scaling": "External", "replicas": 3}}"#,
        r#"{"workers": {"scaling": "Auto"}}"#,
        r#"{"workers": {"scaling": null, "autoscaling": {}, "replicas": null}}"#,
        r#"{"handler": {"http": {"port": 9000}}}"#,
        r#"{"template": {"spec": {"containers": [{"name": "handler", "image": "emails:2"}]}}}"#,
        r#"{"retry": {"backoff": {"fixed": "5s"}}, "timeout": "1h", "cleanup": {"dead": "1d"}}"#,
        r#"{"limits": {"backlog": 5}, "paused": true, "suspendScaling": true}"#,
    ] {
        assert_eq!(change(&namespace, spec), "", "{spec}");
    }
    let message = change(&namespace, r#"{"workers": {"replicas": 3}}"#);
    assert!(message.contains("spec.workers.replicas: "), "{message}");
    // The rules apply to the whole object after a change.
    let message = change(&namespace, r#"{"workers": {"autoscaling": {"min": 1}}}"#);
    assert!(message.contains("spec.workers.autoscaling.min: "), "{message}");
}

/// The operator may not delete the Deployment that it made.
#[test]
fn a_target_cannot_be_added_or_removed_but_may_change() {
    let refusal = "The TaskQueue \"emails\" is invalid: spec.targetRef: Invalid value: \"object\": cannot be \
        added or removed: delete the TaskQueue and create it again; its tasks are kept\n";
    let of_template = queue("of-template", "");
    assert_eq!(change(&of_template, r#"{"template": null, "targetRef": {"name": "shop"}}"#), refusal);
    let of_target = queue("of-target", "template: null\ntargetRef: { name: shop }");
    let template = r#"{"targetRef": null, "template": {"spec": {"containers": [{"name": "handler"}]}}}"#;
    assert_eq!(change(&of_target, template), refusal);
    assert_eq!(change(&of_target, r#"{"targetRef": {"name": "web"}}"#), "");
}
