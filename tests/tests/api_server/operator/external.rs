//! External scaling: the scale subresource of a `TaskQueue`, and other field managers of its Deployment.

use std::time::{Duration, Instant};

use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::{Value, json};

use super::harness::{EMAILS, Harness, until};
use crate::kubectl::kubectl;

/// Scaled externally, up to four pods.
fn external() -> String {
    EMAILS.replace("autoscaling: { scaleDownAfter: 1s }", "scaling: External")
}

/// The scale subresource, as an autoscaler reads it.
fn scale(harness: &Harness) -> Scale {
    let text = harness.kubectl(&["get", "tq", "emails", "--subresource=scale", "-o", "json"]);
    serde_json::from_str(&text).unwrap()
}

fn scale_to(harness: &Harness, pods: u32) {
    harness.kubectl(&["scale", "tq/emails", &format!("--replicas={pods}")]);
}

fn labels_of_the_pods(harness: &Harness) -> String {
    let labels = harness.deployment()["spec"]["selector"]["matchLabels"].clone();
    let labels = labels.as_object().into_iter().flatten();
    let labels: Vec<String> =
        labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect();
    labels.join(",")
}

/// Before the fix, there was no scale subresource; autoscalers had to write to the Deployment, and the
/// operator undid that.
#[tokio::test(flavor = "multi_thread")]
async fn spec_replicas_is_followed_up_to_the_total() {
    let harness = Harness::new("external").await;
    harness.task_queue("emails", &external());
    let _operator = harness.operator().await;
    // No number is set yet, so it is one; at zero no autoscaler would start.
    harness.until_replicas(1).await;
    until("the scale can be read", || {
        let replicas = &harness.get("tq", "emails")["spec"]["workers"]["replicas"];
        if *replicas == 1 { Ok(()) } else { Err(replicas.to_string()) }
    })
    .await;
    harness.until("Ready", "False Progressing").await;
    let found = scale(&harness);
    assert_eq!(found.spec.unwrap().replicas, Some(1));
    assert_eq!(found.status.unwrap().selector, Some(labels_of_the_pods(&harness)));
    harness.db.enqueue_many(10_000).await;
    scale_to(&harness, 3);
    harness.until_replicas(3).await;
    until("the message is that of the number", || {
        let (text, message) = harness.condition("emails", "ScalingLimited");
        let is_new = text == "False NotLimited" && message == "as many pods as workers.replicas asks for";
        if is_new { Ok(()) } else { Err(format!("{text}: {message}")) }
    })
    .await;
    harness.until_event("ScaledUp").await;
    scale_to(&harness, 9);
    harness.until_replicas(4).await;
    harness.until("ScalingLimited", "True Total").await;
    let status = harness.get("tq", "emails")["status"]["scaling"].clone();
    assert_eq!(status, json!({ "mode": "External", "demand": 90, "reason": "Total", "limitedBy": "Total" }));
    // An external scaler may keep pods although no task is waiting.
    harness.db.run("truncate rowlock.ready").await;
    scale_to(&harness, 0);
    harness.until_replicas(0).await;
    harness.until("Ready", "True Succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_change_of_spec_replicas_is_lost() {
    let harness = Harness::new("external-all").await;
    harness.task_queue("emails", &external().replace("total: 40", "total: 100"));
    let _operator = harness.operator().await;
    harness.until_replicas(1).await;
    for round in 0..8_u32 {
        let (first, last) = (round % 3 + 1, round % 4 + 5);
        if round % 3 == 0 {
            harness.change(&json!({ "timeout": format!("{}s", 60 + round) }));
        }
        scale_to(&harness, first);
        scale_to(&harness, last);
        harness.until_replicas(last).await;
        assert_eq!(harness.get("tq", "emails")["spec"]["workers"]["replicas"], last, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_scaling_overrides_spec_replicas() {
    let harness = Harness::new("external-suspended").await;
    harness.task_queue("emails", &external().replace("scaling: External", "scaling: External, replicas: 2"));
    let _operator = harness.operator().await;
    harness.until_replicas(2).await;
    harness.change(&json!({ "suspendScaling": true }));
    harness.until("Contested", "False Suspended").await;
    scale_to(&harness, 4);
    let message = harness.until("ScalingLimited", "True Suspended").await;
    assert!(message.contains("asks for 4 pods, but spec.suspendScaling keeps 2"), "{message}");
    assert_eq!(harness.deployment()["spec"]["replicas"], 2);
    harness.change(&json!({ "suspendScaling": false }));
    harness.until_replicas(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_limit_caps_spec_replicas_and_is_reported() {
    let harness = Harness::new("external-connections").await;
    harness.db.run(format!("alter database {} connection limit 40", harness.db.name)).await;
    let many = external().replace("perPod: 10", "perPod: 1").replace("External", "External, replicas: 40");
    harness.task_queue("emails", &many);
    let _operator = harness.operator().await;
    let message = harness.until("ScalingLimited", "True Connections").await;
    assert!(message.starts_with("workers.replicas asks for 40 pods and gets "), "{message}");
    until("some pods exist", || {
        let replicas = harness.deployment()["spec"]["replicas"].as_u64().unwrap_or_default();
        if (1..=16).contains(&replicas) { Ok(()) } else { Err(replicas.to_string()) }
    })
    .await;
    harness.db.run(format!("alter database {} connection limit -1", harness.db.name)).await;
    harness.until_replicas(40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_spec_replicas_returns_to_the_operators_scaling() {
    let harness = Harness::new("external-back").await;
    harness.task_queue("emails", &external());
    let _operator = harness.operator().await;
    harness.until_replicas(1).await;
    scale_to(&harness, 3);
    harness.until_replicas(3).await;
    // As a GitOps tool does, whose manifest does not have the number.
    harness.task_queue("emails", EMAILS);
    harness.until_replicas(0).await;
    let args = ["scale", "tq/emails", "-n", &harness.namespace, "--replicas=5"];
    let answer = tokio::task::block_in_place(|| kubectl(&args));
    assert!(answer.err.contains("set workers.scaling to External, or remove replicas"), "{answer:?}");
}

/// Before the fix, a persistent autoscaler was undone at every poll for ever, and no condition reported it.
#[tokio::test(flavor = "multi_thread")]
async fn a_competing_autoscaler_is_undone_with_back_off_and_named_in_a_condition() {
    let harness = Harness::new("insists").await;
    harness.task_queue("emails", &EMAILS.replace("autoscaling: {", "autoscaling: { min: 15,"));
    let _operator = harness.operator().await;
    harness.until_replicas(2).await;
    harness.until("Contested", "False Succeeded").await;
    let (since, mut undone) = (Instant::now(), 0);
    while since.elapsed() < Duration::from_secs(25) {
        if harness.deployment()["spec"]["replicas"] != 5 {
            harness.scale(5).await;
            undone += 1;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Immediately, then after 10 s; before, at every poll.
    assert!((2..=3).contains(&undone), "{undone}");
    let message = harness.until("Contested", "True ForeignFieldManager").await;
    for part in ["kubectl set 5 pods", "asks for 2", "set workers.scaling to External", "kind TaskQueue"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let events = harness.until_event("ReplicasRestored").await;
    assert_eq!(events.matches("ReplicasRestored").count(), 1, "{events}");
    assert!(!events.contains("ScaledUp"), "{events}");
    // The advice in the message resolves it.
    harness.change(&json!({ "workers": { "scaling": "External", "autoscaling": null, "replicas": 3 } }));
    harness.until_replicas(3).await;
    harness.until("Contested", "False Succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unrelated_changes_keep_a_contested_number_of_replicas() {
    let harness = Harness::new("insists-changed").await;
    harness.task_queue("emails", &EMAILS.replace("autoscaling: {", "autoscaling: { min: 15,"));
    let _operator = harness.operator().await;
    // The third time the number stays for 20 s.
    for _ in 0..3 {
        harness.until_replicas(2).await;
        harness.scale(5).await;
    }
    harness.until("Contested", "True ForeignFieldManager").await;
    // A change of the Deployment's metadata is written, and the replicas are not.
    harness.kubectl(&["label", "tq", "emails", "team=shop"]);
    let deployment = until("the label exists", || {
        let deployment = harness.deployment();
        let label = deployment["metadata"]["labels"]["team"].clone();
        if label == "shop" { Ok(deployment) } else { Err(label.to_string()) }
    })
    .await;
    let replicas: &Value = &deployment["spec"]["replicas"];
    assert_eq!(*replicas, 5);
    // Finally the number is restored.
    harness.until_replicas(2).await;
}
