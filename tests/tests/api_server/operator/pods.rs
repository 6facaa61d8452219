//! If a pod does not work, conditions name the pod, the reason and what to do. The tests write the status of
//! pods as a kubelet does.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::harness::{EMAILS, Harness, until};

/// The time `seconds` ago.
fn ago(seconds: i64) -> String {
    let at = Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).unwrap();
    Timestamp::from_second(at.as_second()).unwrap().to_string()
}

/// Four pods are wanted and one exists, with its Deployment's template and this status.
async fn with_pod(harness: &Harness, status: &Value) {
    harness.kubectl(&["create", "serviceaccount", "default"]);
    harness.until_replicas(4).await;
    let template = harness.deployment()["spec"]["template"].clone();
    let metadata = json!({ "name": "emails-1", "labels": template["metadata"]["labels"] });
    harness.apply(
        &json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] })
            .to_string(),
    );
    let patch = json!({ "status": status }).to_string();
    harness.kubectl(&["patch", "pod", "emails-1", "--subresource=status", "--type=merge", "-p", &patch]);
}

/// It was scheduled two minutes ago, with or without a sandbox.
fn placed(sandbox: &str) -> Value {
    let condition = |type_: &str, status: &str| {
        json!({ "type": type_, "status": status,
        "lastTransitionTime": ago(120) })
    };
    let conditions = [condition("PodScheduled", "True"), condition("PodReadyToStartContainers", sandbox)];
    json!({ "phase": "Pending", "startTime": ago(120), "conditions": conditions })
}

/// Before the fix, the queue was ready for a minute and then in progress for ever, and four such pods were
/// created.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_volume_is_named_and_one_pod_is_tried() {
    let harness = Harness::new("unmounted").await;
    let volume = "template: { spec: { volumes: [{ name: v, configMap: { name: typo } }], containers";
    let spec = EMAILS.replace("template: { spec: { containers", volume);
    harness.task_queue("emails", &spec.replace(", autoscaling: { scaleDownAfter: 1s }", ""));
    let _operator = harness.operator().await;
    with_pod(&harness, &placed("False")).await;
    harness.until("Ready", "False NotStarting").await;
    harness.until_replicas(1).await;
    harness.until("ScalingLimited", "True NotStarting").await;
    let message = harness.until("HandlerHealthy", "False NotStarting").await;
    assert!(message.contains("pod emails-1 waits for its volumes or its network"), "{message}");
    assert!(
        message.contains(&format!("kubectl describe pod emails-1 -n {}", harness.namespace)),
        "{message}"
    );
    harness.until_event("NotStarting").await;
    // The kubelet's own message, on a pod that is new to the operator; messages are read once a minute.
    let event = |uid: &str| {
        let of = json!({ "kind": "Pod", "apiVersion": "v1", "name": "emails-2",
            "namespace": harness.namespace, "uid": uid });
        json!({
            "apiVersion": "v1", "kind": "Event", "metadata": { "name": "emails-2.1" }, "involvedObject": of,
            "type": "Warning",
            "reason": "FailedMount", "message": "configmap \"typo\" not \
            found", "firstTimestamp": ago(60), "lastTimestamp": ago(1), "count": 7
        })
    };
    let mut second: Value =
        serde_json::from_str(&harness.kubectl(&["get", "pod", "emails-1", "-o", "json"])).unwrap();
    let labels = second["metadata"]["labels"].clone();
    second["metadata"] = json!({ "name": "emails-2", "labels": labels });
    second.as_object_mut().unwrap().remove("status");
    harness.apply(&second.to_string());
    let uid = harness.kubectl(&["get", "pod", "emails-2", "-o", "jsonpath={.metadata.uid}"]);
    harness.apply(&event(&uid).to_string());
    let patch = json!({ "status": placed("False") }).to_string();
    harness.kubectl(&["patch", "pod", "emails-2", "--subresource=status", "--type=merge", "-p", &patch]);
    harness.kubectl(&["delete", "pod", "emails-1", "--force", "--grace-period=0"]);
    until("the kubelet's message is shown", || {
        let (text, message) = harness.condition("emails", "HandlerHealthy");
        if message.contains("FailedMount: configmap \"typo\" not found") {
            Ok(())
        } else {
            Err(format!("{text} {message}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_container_that_never_ends_is_named_with_its_log() {
    let harness = Harness::new("init").await;
    let init = "template: { spec: { initContainers: [{ name: wait, image: 'w:1' }], containers";
    let spec = EMAILS.replace("template: { spec: { containers", init);
    harness.task_queue("emails", &spec.replace(", autoscaling: { scaleDownAfter: 1s }", ""));
    let _operator = harness.operator().await;
    let mut status = placed("True");
    status["initContainerStatuses"] = json!([{
        "name": "wait", "image": "w:1", "imageID": "", "ready": false, "restartCount": 0, "started": true,
        "state": { "running": { "startedAt": ago(90) } }
    }]);
    with_pod(&harness, &status).await;
    let message = harness.until("HandlerHealthy", "False NotStarting").await;
    assert!(
        message.contains("init container wait of pod emails-1") && message.contains("-c wait"),
        "{message}"
    );
    harness.until_replicas(1).await;
}

/// Before the fix, `kubectl wait` and Flux kept waiting, though Kubernetes had given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_rollout_is_stalled_and_a_paused_one_names_who_paused_it() {
    let harness = Harness::new("deadline").await;
    harness.task_queue("emails", &EMAILS.replace(", autoscaling: { scaleDownAfter: 1s }", ""));
    let _operator = harness.operator().await;
    harness.until_replicas(4).await;
    let generation = harness.deployment()["metadata"]["generation"].clone();
    let late = json!({ "status": { "observedGeneration": generation, "conditions": [{
        "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "has \
        timed out progressing"
    }] } });
    let patch = |patch: &Value| {
        let patch = patch.to_string();
        harness.kubectl(&[
            "patch",
            "deployment",
            "emails",
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ]);
    };
    patch(&late);
    let message = harness.until("Stalled", "True NotStarting").await;
    assert!(
        message.contains("has timed out progressing") && message.contains("kubectl describe"),
        "{message}"
    );
    patch(&json!({ "status": { "conditions": null } }));
    harness.until("Stalled", "False Succeeded").await;
    harness.kubectl(&["rollout", "pause", "deployment/emails"]);
    until("the pause is named", || {
        let (text, message) = harness.condition("emails", "Reconciling");
        if message.contains("kubectl rollout resume deployment/emails") {
            Ok(())
        } else {
            Err(format!("{text} {message}"))
        }
    })
    .await;
}

/// Before the fix, the hook ended the handler and its tasks were retried elsewhere, without any warning.
#[tokio::test(flavor = "multi_thread")]
async fn a_pre_stop_hook_that_ends_a_handler_before_its_tasks_causes_a_warning() {
    let harness = Harness::new("hook").await;
    let hook = "image: 'emails:1', lifecycle: { preStop: { exec: { command: [kill, '1'] } } }";
    harness.task_queue("emails", &EMAILS.replace("image: 'emails:1'", hook));
    let _operator = harness.operator().await;
    let events = harness.until_event("PreStop").await;
    assert!(events.contains("the preStop hook of handler runs"), "{events}");
}
