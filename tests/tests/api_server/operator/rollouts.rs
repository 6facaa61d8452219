//! A release of the operator updates the pods of a few queues at a time.

use rowlock_operator::kubernetes::Config;
use serde_json::{Value, json};

use super::harness::{EMAILS, Harness, Running, until};

const QUEUES: [&str; 3] = ["a", "b", "emails"];

fn worker_image(harness: &Harness, name: &str) -> String {
    let deployment = harness.get("deployment", name);
    deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
}

/// The Deployment status when all pods have the newest template, plus `old` pods that do not.
fn report_pods(harness: &Harness, name: &str, old: i64) {
    let deployment = harness.get("deployment", name);
    let wanted = deployment["spec"]["replicas"].as_i64().unwrap();
    let status = json!({ "status": {
        "observedGeneration": deployment["metadata"]["generation"], "replicas": wanted + old,
        "updatedReplicas": wanted,
        "readyReplicas": wanted, "availableReplicas": wanted
    } });
    let patch = status.to_string();
    harness.kubectl(&["patch", "deployment", name, "--subresource=status", "--type=merge", "-p", &patch]);
}

async fn release(harness: &Harness, image: &str) -> Running {
    let one_at_a_time =
        |config: &mut Config| (config.rollouts_at_once, config.worker_image) = (1, image.into());
    harness.operator_with(one_at_a_time).await
}

async fn until_image(harness: &Harness, name: &str, expected: &str) {
    until(&format!("{name} runs {expected}"), || {
        let image = worker_image(harness, name);
        if image == expected { Ok(()) } else { Err(image) }
    })
    .await;
}

async fn until_waiting(harness: &Harness, name: &str) {
    until(&format!("{name} waits"), || {
        let (text, message) = harness.condition(name, "Reconciling");
        if text == "True Progressing" && message.contains("updates 1 queues at a time") {
            Ok(())
        } else {
            Err(message)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_worker_image_rolls_out_queue_by_queue_across_leaders() {
    let harness = Harness::new("release").await;
    let spec = |name: &str| {
        let queue = if name == "emails" { "mail" } else { name };
        EMAILS
            .replace("queueName: mail", &format!("queueName: {queue}"))
            .replace("autoscaling: {", "autoscaling: { min: 5,")
    };
    let first = release(&harness, "worker:1").await;
    for name in QUEUES {
        harness.task_queue(name, &spec(name));
    }
    for name in QUEUES {
        until_image(&harness, name, "worker:1").await;
        report_pods(&harness, name, 0);
        harness.until_of(name, "Reconciling", "False Succeeded").await;
    }
    first.stop().await;
    let second = release(&harness, "worker:2").await;
    until_image(&harness, "a", "worker:2").await;
    report_pods(&harness, "a", 1);
    for name in ["b", "emails"] {
        until_waiting(&harness, name).await;
        assert_eq!(worker_image(&harness, name), "worker:1");
        harness.until_of(name, "Stalled", "False Succeeded").await;
    }
    // A waiting queue still has as many pods as its tasks need.
    harness.db.enqueue_many(1000).await;
    harness.until_replicas(4).await;
    assert_eq!(worker_image(&harness, "emails"), "worker:1");
    // Another leader finds the first rollout in progress.
    second.stop().await;
    let _third = release(&harness, "worker:2").await;
    until_waiting(&harness, "b").await;
    // A change of its own TaskQueue does not wait.
    harness.change(&json!({ "timeout": "2m" }));
    until_image(&harness, "emails", "worker:2").await;
    assert_eq!(worker_image(&harness, "b"), "worker:1");
    report_pods(&harness, "a", 0);
    until_image(&harness, "b", "worker:2").await;
    report_pods(&harness, "b", 0);
    harness.until_of("b", "Reconciling", "False Succeeded").await;
    let replicas: Vec<Value> =
        QUEUES.map(|name| harness.get("deployment", name)["spec"]["replicas"].clone()).into();
    assert_eq!(replicas, [1, 1, 4]);
}
