//! A release of the operator updates the pods of a few queues at a time.

use rowlock_operator::kubernetes::Config;
use serde_json::{Value, json};

use super::stage::{EMAILS, Running, Stage, until};

const QUEUES: [&str; 3] = ["a", "b", "emails"];

fn worker_image(stage: &Stage, name: &str) -> String {
    let deployment = stage.get("deployment", name);
    deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
}

/// What the controllers of a cluster say when all pods are of the newest template, or when `old` more are not.
fn play(stage: &Stage, name: &str, old: i64) {
    let deployment = stage.get("deployment", name);
    let wanted = deployment["spec"]["replicas"].as_i64().unwrap();
    let status = json!({ "status": {
        "observedGeneration": deployment["metadata"]["generation"], "replicas": wanted + old, "updatedReplicas": wanted,
        "readyReplicas": wanted, "availableReplicas": wanted
    } });
    let patch = status.to_string();
    stage.kubectl(&["patch", "deployment", name, "--subresource=status", "--type=merge", "-p", &patch]);
}

async fn release(stage: &Stage, image: &str) -> Running {
    let one_at_a_time =
        |config: &mut Config| (config.rollouts_at_once, config.worker_image) = (1, image.into());
    stage.operator_with(one_at_a_time).await
}

async fn until_image(stage: &Stage, name: &str, expected: &str) {
    until(&format!("{name} runs {expected}"), || {
        let image = worker_image(stage, name);
        if image == expected { Ok(()) } else { Err(image) }
    })
    .await;
}

async fn until_waiting(stage: &Stage, name: &str) {
    until(&format!("{name} waits"), || {
        let (said, message) = stage.condition(name, "Reconciling");
        if said == "True Progressing" && message.contains("updates 1 queues at a time") {
            Ok(())
        } else {
            Err(message)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_worker_goes_from_queue_to_queue_whoever_leads() {
    let stage = Stage::new("release").await;
    let spec = |name: &str| {
        let queue = if name == "emails" { "mail" } else { name };
        EMAILS
            .replace("queueName: mail", &format!("queueName: {queue}"))
            .replace("autoscaling: {", "autoscaling: { min: 5,")
    };
    let first = release(&stage, "worker:1").await;
    for name in QUEUES {
        stage.task_queue(name, &spec(name));
    }
    for name in QUEUES {
        until_image(&stage, name, "worker:1").await;
        play(&stage, name, 0);
        stage.until_of(name, "Reconciling", "False Succeeded").await;
    }
    first.stop().await;
    let second = release(&stage, "worker:2").await;
    until_image(&stage, "a", "worker:2").await;
    play(&stage, "a", 1);
    for name in ["b", "emails"] {
        until_waiting(&stage, name).await;
        assert_eq!(worker_image(&stage, name), "worker:1");
        stage.until_of(name, "Stalled", "False Succeeded").await;
    }
    // Who waits has as many pods as its tasks ask for.
    stage.db.enqueue_many(1000).await;
    stage.until_replicas(4).await;
    assert_eq!(worker_image(&stage, "emails"), "worker:1");
    // Another leader finds the first of them under way.
    second.stop().await;
    let _third = release(&stage, "worker:2").await;
    until_waiting(&stage, "b").await;
    // What its TaskQueue asks for waits for nobody.
    stage.change(&json!({ "timeout": "2m" }));
    until_image(&stage, "emails", "worker:2").await;
    assert_eq!(worker_image(&stage, "b"), "worker:1");
    play(&stage, "a", 0);
    until_image(&stage, "b", "worker:2").await;
    play(&stage, "b", 0);
    stage.until_of("b", "Reconciling", "False Succeeded").await;
    let replicas: Vec<Value> =
        QUEUES.map(|name| stage.get("deployment", name)["spec"]["replicas"].clone()).into();
    assert_eq!(replicas, [1, 1, 4]);
}
