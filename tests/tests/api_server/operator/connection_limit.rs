//! The connections of a database limit the number of pods.

use rowlock_tests::server as postgres;
use serde_json::json;

use super::harness::{EMAILS, Harness, page, until};

/// Of 40 connections 5 are reserved and 3 are the operator's; a pod uses 2.
const MOST: u64 = 16;

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_pods_fits_the_databases_connections() {
    let harness = Harness::new("connections").await;
    harness.db.run(format!("alter database {} connection limit 40", harness.db.name)).await;
    // Forty pods, which would use eighty connections.
    let many = EMAILS.replace("perPod: 10, autoscaling: { scaleDownAfter: 1s }", "perPod: 1");
    harness.task_queue("emails", &many);
    let (_operator, address) = harness.operator_with_pages().await;
    let message = harness.until("ScalingLimited", "True Connections").await;
    for part in ["the connection limit of the database is 40: ", "5 reserved", "raise workers.perPod"] {
        assert!(message.contains(part), "{message}");
    }
    let replicas = || harness.deployment()["spec"]["replicas"].as_u64().unwrap_or_default();
    // The operator's and the test's connections count as used by others.
    until("there are pods", || if replicas() > 0 { Ok(()) } else { Err("none".into()) }).await;
    assert!((5..=MOST).contains(&replicas()), "{}: {message}", replicas());
    assert_eq!(harness.get("tq", "emails")["status"]["scaling"]["limitedBy"], "Connections");
    harness.until_event("Connections").await;
    let metric = format!(
        "rowlock_database_connections{{kind=\"limit\",namespace=\"{}\",secret=\"db\"}} 40",
        harness.namespace
    );
    assert!(page(address, "/metrics").contains(&metric), "{}", page(address, "/metrics"));
    // A second queue gets its share, even if it uses another Secret for the database. Together they stay
    // within the limit.
    harness.secret_named("another", &postgres::url(&harness.db.name));
    let letters = many.replace("queueName: mail", "queueName: letters").replace("name: db", "name: another");
    harness.task_queue("letters", &letters);
    until("the first queue releases half of its pods", || {
        let (first, second) = (
            replicas(),
            harness.get("deployment", "letters")["spec"]["replicas"].as_u64().unwrap_or_default(),
        );
        if second > 0 && first + second <= MOST && first.abs_diff(second) <= 1 {
            Ok(())
        } else {
            Err(format!("{first} and {second}"))
        }
    })
    .await;
    // The other controller's TaskQueue is of the same namespace.
    until("the first queue says who holds the rest", || {
        let (_, message) = harness.condition("emails", "ScalingLimited");
        let parts = ["the queue asks for 40 pods and gets ", "Of the pods, letters holds "];
        if parts.iter().all(|part| message.contains(part)) { Ok(()) } else { Err(message) }
    })
    .await;
    harness.kubectl(&["delete", "tq", "letters"]);
    harness.db.run(format!("alter database {} connection limit -1", harness.db.name)).await;
    harness.until_replicas(40).await;
    harness.until("ScalingLimited", "False NotLimited").await;
}

/// Before the fix, a queue without any connection was ready, with an event that its tasks are processed.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_a_connection_is_not_ready_and_says_why() {
    let harness = Harness::new("placeless").await;
    harness.db.run(format!("alter database {} connection limit 9", harness.db.name)).await;
    let always =
        EMAILS.replace(", autoscaling: { scaleDownAfter: 1s }", "").replace("total: 40", "total: 10");
    for name in ["emails", "letters", "posts"] {
        harness.task_queue(name, &always.replace("queueName: mail", &format!("queueName: {name}")));
    }
    let _operator = harness.operator().await;
    // At least one pod is tried; a queue without any gets a condition that says what is missing.
    harness.until_of("emails", "Ready", "False Progressing").await;
    for name in ["letters", "posts"] {
        let message = harness.until_of(name, "Ready", "False Connections").await;
        assert!(
            message.contains("no pod runs") && message.contains("limit of the database is 9: "),
            "{message}"
        );
        assert_eq!(harness.get("deployment", name)["spec"]["replicas"], 0);
    }
    harness.until_event("Connections").await;
    let events = harness.kubectl(&["get", "events", "-o", "json"]);
    assert!(!events.contains("the queue is processing tasks"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn terminating_pods_count_against_the_connection_limit() {
    let harness = Harness::new("terminating").await;
    let many = EMAILS.replace("perPod: 10, autoscaling: { scaleDownAfter: 1s }", "perPod: 1");
    harness.kubectl(&["create", "serviceaccount", "default"]);
    // Before the operator starts, twenty pods drain, as after a scale-down. Without nodes only a finalizer
    // keeps them.
    for number in 0..20 {
        let name = format!("emails-{number}");
        let labels =
            json!({ "app.kubernetes.io/managed-by": "rowlock-operator", "rowlock.dev/task-queue": "emails" });
        let metadata = json!({ "name": name, "labels": labels, "finalizers": ["tests.rowlock.dev/drains"] });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": { "containers": [{ "name": "worker", "image": "w" }] }
        });
        harness.apply(&pod.to_string());
    }
    let worker = |state: &serde_json::Value| {
        json!({ "status": { "phase": "Running", "containerStatuses": [{
            "name": "worker", "image": "w", "imageID": "", "ready": true, "restartCount": 0, "state": state
        }] } })
        .to_string()
    };
    let patch = |name: &str, status: &str| {
        harness.kubectl(&["patch", "pod", name, "--subresource=status", "--type=merge", "-p", status]);
    };
    let running = worker(&json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } }));
    for number in 0..20 {
        patch(&format!("emails-{number}"), &running);
    }
    harness.kubectl(&["delete", "pod", "--all", "--wait=false"]);
    harness.db.run(format!("alter database {} connection limit 60", harness.db.name)).await;
    harness.task_queue("emails", &many);
    let _operator = harness.operator().await;
    harness.until("ScalingLimited", "True Connections").await;
    // At most twenty-seven pods fit, and twenty still exist.
    let replicas = harness.deployment()["spec"]["replicas"].as_u64().unwrap_or_default();
    assert!(replicas <= 7, "{replicas}");
    // More than others could have taken in the meantime. In half of the pods only the handler still runs,
    // without connections; before, those blocked all others for the whole grace period.
    let ended = worker(&json!({ "terminated": { "exitCode": 0 } }));
    for number in 0..10 {
        let name = format!("emails-{number}");
        let gone = "{\"metadata\":{\"finalizers\":null}}";
        if number % 2 == 0 {
            patch(&name, &ended);
        } else {
            harness.kubectl(&["patch", "pod", &name, "--type=merge", "-p", gone]);
        }
    }
    until("new pods replace the ended ones", || {
        let now = harness.deployment()["spec"]["replicas"].as_u64().unwrap_or_default();
        if now > replicas { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
}
