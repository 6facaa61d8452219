//! Who says how many pods there are: the scale of a `TaskQueue`, and other field managers at its Deployment.

use std::time::{Duration, Instant};

use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::{Value, json};

use super::stage::{EMAILS, Stage, until};
use crate::kubectl::kubectl;

/// Scaled from outside, up to four pods.
fn external() -> String {
    EMAILS.replace("autoscaling: { scaleDownAfter: 1s }", "scaling: External")
}

/// The scale as an autoscaler reads it.
fn scale(stage: &Stage) -> Scale {
    let text = stage.kubectl(&["get", "tq", "emails", "--subresource=scale", "-o", "json"]);
    serde_json::from_str(&text).unwrap()
}

fn scale_to(stage: &Stage, pods: u32) {
    stage.kubectl(&["scale", "tq/emails", &format!("--replicas={pods}")]);
}

fn labels_of_the_pods(stage: &Stage) -> String {
    let labels = stage.deployment()["spec"]["selector"]["matchLabels"].clone();
    let labels = labels.as_object().into_iter().flatten();
    let labels: Vec<String> =
        labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect();
    labels.join(",")
}

/// Before, there was no scale, and every autoscaler had to write to the Deployment, where the operator undid
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_from_outside_is_followed_up_to_total() {
    let stage = Stage::new("external").await;
    stage.task_queue("emails", &external());
    let _operator = stage.operator().await;
    // Nobody has said a number: one, or no autoscaler could begin.
    stage.until_replicas(1).await;
    until("there is a number to read", || {
        let replicas = &stage.get("tq", "emails")["spec"]["workers"]["replicas"];
        if *replicas == 1 { Ok(()) } else { Err(replicas.to_string()) }
    })
    .await;
    stage.until("Ready", "False Progressing").await;
    let found = scale(&stage);
    assert_eq!(found.spec.unwrap().replicas, Some(1));
    assert_eq!(found.status.unwrap().selector, Some(labels_of_the_pods(&stage)));
    stage.db.enqueue_many(10_000).await;
    scale_to(&stage, 3);
    stage.until_replicas(3).await;
    let message = stage.until("ScalingLimited", "False NotLimited").await;
    assert_eq!(message, "as many pods as workers.replicas says");
    stage.until_event("ScaledUp").await;
    scale_to(&stage, 9);
    stage.until_replicas(4).await;
    stage.until("ScalingLimited", "True Total").await;
    let status = stage.get("tq", "emails")["status"]["scaling"].clone();
    assert_eq!(status, json!({ "mode": "External", "desired": 90, "reason": "Total", "limitedBy": "Total" }));
    // Whoever scales may have its reasons where nothing waits.
    stage.db.run("truncate rowlock.ready").await;
    scale_to(&stage, 0);
    stage.until_replicas(0).await;
    stage.until("Ready", "True Succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_number_from_outside_is_lost() {
    let stage = Stage::new("external-all").await;
    stage.task_queue("emails", &external().replace("total: 40", "total: 100"));
    let _operator = stage.operator().await;
    stage.until_replicas(1).await;
    for round in 0..8_u32 {
        let (first, last) = (round % 3 + 1, round % 4 + 5);
        if round % 3 == 0 {
            stage.change(&json!({ "timeout": format!("{}s", 60 + round) }));
        }
        scale_to(&stage, first);
        scale_to(&stage, last);
        stage.until_replicas(last).await;
        assert_eq!(stage.get("tq", "emails")["spec"]["workers"]["replicas"], last, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_scaling_counts_before_a_number_from_outside() {
    let stage = Stage::new("external-suspended").await;
    stage.task_queue("emails", &external().replace("scaling: External", "scaling: External, replicas: 2"));
    let _operator = stage.operator().await;
    stage.until_replicas(2).await;
    stage.change(&json!({ "suspendScaling": true }));
    stage.until("Contested", "False Suspended").await;
    scale_to(&stage, 4);
    let message = stage.until("ScalingLimited", "True Suspended").await;
    assert!(message.contains("asks for 4 pods, but spec.suspendScaling leaves 2"), "{message}");
    assert_eq!(stage.deployment()["spec"]["replicas"], 2);
    stage.change(&json!({ "suspendScaling": false }));
    stage.until_replicas(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_limit_a_number_from_outside_and_say_so() {
    let stage = Stage::new("external-connections").await;
    stage.db.run(format!("alter database {} connection limit 40", stage.db.name)).await;
    let many = external().replace("perPod: 10", "perPod: 1").replace("External", "External, replicas: 40");
    stage.task_queue("emails", &many);
    let _operator = stage.operator().await;
    let message = stage.until("ScalingLimited", "True Connections").await;
    assert!(message.starts_with("workers.replicas asks for 40 pods, but the database"), "{message}");
    until("some are there", || {
        let replicas = stage.deployment()["spec"]["replicas"].as_u64().unwrap_or_default();
        if (1..=16).contains(&replicas) { Ok(()) } else { Err(replicas.to_string()) }
    })
    .await;
    stage.db.run(format!("alter database {} connection limit -1", stage.db.name)).await;
    stage.until_replicas(40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_without_the_number_goes_back_to_the_operators_own_scaling() {
    let stage = Stage::new("external-back").await;
    stage.task_queue("emails", &external());
    let _operator = stage.operator().await;
    stage.until_replicas(1).await;
    scale_to(&stage, 3);
    stage.until_replicas(3).await;
    // As whoever keeps manifests in git does, who does not know the number.
    stage.task_queue("emails", EMAILS);
    stage.until_replicas(0).await;
    let args = ["scale", "tq/emails", "-n", &stage.namespace, "--replicas=5"];
    let said = tokio::task::block_in_place(|| kubectl(&args));
    assert!(said.err.contains("set workers.scaling to External, or take replicas out"), "{said:?}");
}

/// Before, an autoscaler that went on was undone each time it looked, for ever, and no condition said so.
#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_that_insists_is_undone_ever_more_seldom_and_named_in_a_condition() {
    let stage = Stage::new("insists").await;
    stage.task_queue("emails", &EMAILS.replace("autoscaling: {", "autoscaling: { min: 15,"));
    let _operator = stage.operator().await;
    stage.until_replicas(2).await;
    stage.until("Contested", "False Succeeded").await;
    let (since, mut undone) = (Instant::now(), 0);
    while since.elapsed() < Duration::from_secs(25) {
        if stage.deployment()["spec"]["replicas"] != 5 {
            stage.scale(5).await;
            undone += 1;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // At once, and after 10 s; before, with every look.
    assert!((2..=3).contains(&undone), "{undone}");
    let message = stage.until("Contested", "True ForeignFieldManager").await;
    for part in ["kubectl had set 5 pods", "asks for 2", "set workers.scaling to External", "kind TaskQueue"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    let events = stage.until_event("ReplicasRestored").await;
    assert_eq!(events.matches("ReplicasRestored").count(), 1, "{events}");
    assert!(!events.contains("ScaledUp"), "{events}");
    // What the message says to do ends it at once.
    stage.change(&json!({ "workers": { "scaling": "External", "autoscaling": null, "replicas": 3 } }));
    stage.until_replicas(3).await;
    stage.until("Contested", "False Succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_changes_keep_a_contested_number_for_now() {
    let stage = Stage::new("insists-changed").await;
    stage.task_queue("emails", &EMAILS.replace("autoscaling: {", "autoscaling: { min: 15,"));
    let _operator = stage.operator().await;
    // The third time it stays for 20 s.
    for _ in 0..3 {
        stage.until_replicas(2).await;
        stage.scale(5).await;
    }
    stage.until("Contested", "True ForeignFieldManager").await;
    // Of the Deployment's metadata: it is written, and the number is not.
    stage.kubectl(&["label", "tq", "emails", "team=shop"]);
    let deployment = until("the label is there", || {
        let deployment = stage.deployment();
        let label = deployment["metadata"]["labels"]["team"].clone();
        if label == "shop" { Ok(deployment) } else { Err(label.to_string()) }
    })
    .await;
    let replicas: &Value = &deployment["spec"]["replicas"];
    assert_eq!(*replicas, 5);
    // And in the end it is put back.
    stage.until_replicas(2).await;
}
