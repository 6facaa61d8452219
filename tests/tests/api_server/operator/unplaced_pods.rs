//! Pods that the cluster has no room for leave their places to other queues. No controller runs here: the
//! tests write what one would.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::harness::{EMAILS, Harness, until};

/// Three pods may be created in the namespace.
fn quota(harness: &Harness) {
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" },
        "spec": { "hard": { "pods": "3" } }
    });
    harness.apply(&quota.to_string());
    let patch = json!({ "status": { "hard": { "pods": "3" }, "used": { "pods": "0" } } }).to_string();
    harness.kubectl(&["patch", "resourcequota", "q", "--subresource=status", "--type=merge", "-p", &patch]);
}

/// The status of a Deployment whose pods have been refused for four minutes.
fn failed_for_minutes(message: &str) -> Value {
    let early = Timestamp::now().checked_sub(SignedDuration::from_mins(4)).unwrap();
    let early = Timestamp::from_second(early.as_second()).unwrap().to_string();
    json!({ "conditions": [{
        "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message,
        "lastTransitionTime": early, "lastUpdateTime": early
    }] })
}

/// Before, such a queue kept the connections for all pods that it asked for, as long as one was ready.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_a_quota_refuses_leave_their_connections_to_others() {
    let harness = Harness::new("no-room").await;
    // Of 60 connections 6 are reserved and 3 are the operator's: about 24 pods.
    harness.db.run(format!("alter database {} connection limit 60", harness.db.name)).await;
    harness.kubectl(&["create", "serviceaccount", "default"]);
    quota(&harness);
    let many = EMAILS.replace("perPod: 10, autoscaling: { scaleDownAfter: 1s }", "perPod: 1");
    harness.task_queue("emails", &many.replace("total: 40", "total: 10"));
    let _operator = harness.operator().await;
    harness.until_replicas(10).await;
    let metadata = harness.deployment()["spec"]["template"]["metadata"]["labels"].clone();
    let pod = |number: u32| {
        let name = format!("emails-{number}");
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": metadata },
            "spec": { "containers": [{ "name": "worker", "image": "w" }] }
        })
    };
    let patch = |kind: &str, name: &str, status: &Value| {
        let patch = json!({ "status": status }).to_string();
        harness.kubectl(&["patch", kind, name, "--subresource=status", "--type=merge", "-p", &patch]);
    };
    for number in 0..3 {
        until("the quota's status has arrived", || harness.try_apply(&pod(number).to_string())).await;
        let ready = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
        patch("pod", &format!("emails-{number}"), &ready);
    }
    let refused = harness.try_apply(&pod(3).to_string()).expect_err("the quota is used up");
    assert!(refused.contains("exceeded quota: q"), "{refused}");
    // Another queue asks for more than there is.
    harness.task_queue("letters", &many.replace("queueName: mail", "queueName: letters"));
    let replicas =
        |name: &str| harness.get("deployment", name)["spec"]["replicas"].as_u64().unwrap_or_default();
    until("the other queue has its share", || {
        let (emails, letters) = (replicas("emails"), replicas("letters"));
        if letters >= 10 { Ok(()) } else { Err(format!("{emails} and {letters}")) }
    })
    .await;
    assert_eq!(replicas("emails"), 10);
    patch("deployment", "emails", &failed_for_minutes(&refused));
    harness.until_replicas(3).await;
    until("the other queue gets the places", || {
        let letters = replicas("letters");
        if letters >= 17 { Ok(()) } else { Err(letters.to_string()) }
    })
    .await;
    let message = harness.until("ScalingLimited", "True Connections").await;
    for part in ["asks for 10 pods and gets 3", "Only 3 of its pods fitted on nodes", "raise the quota"] {
        assert!(message.contains(part), "{message}");
    }
    until("the other queue says who holds the rest", || {
        let (output, message) = harness.condition("letters", "ScalingLimited");
        if message.contains("Of the pods, emails holds 3") {
            Ok(())
        } else {
            Err(format!("{output} {message}"))
        }
    })
    .await;
}
