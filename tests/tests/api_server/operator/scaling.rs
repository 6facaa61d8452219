//! The number of pods over time.

use std::time::{Duration, Instant};

use rowlock_queue::Declaration;
use rowlock_tests::declaration;
use serde_json::{Value, json};

use super::harness::{EMAILS, Harness, until};

#[tokio::test(flavor = "multi_thread")]
async fn pods_start_soon_after_the_tasks_and_stop_after_the_window() {
    let harness = Harness::new("scales").await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    let since = Instant::now();
    harness.db.enqueue_many(10_000).await;
    harness.until_replicas(4).await;
    let took = since.elapsed();
    // Two seconds on an idle machine; other tests run here, too.
    assert!(took < Duration::from_secs(10), "{took:?}");
    eprintln!("10,000 tasks enqueued, replicas asked for: {took:?}");
    let events = harness.until_event("ScaledUp").await;
    assert!(events.contains("from 0 to 4 pods: workers.total is reached (Total): 10000 waiting"), "{events}");
    harness.until("ScalingLimited", "True Total").await;
    harness.db.run("truncate rowlock.ready").await;
    harness.until_replicas(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_scaling_keeps_the_number_of_pods() {
    let harness = Harness::new("suspended").await;
    harness.task_queue("emails", &format!("{EMAILS}\nsuspendScaling: true"));
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    harness.db.enqueue_many(1000).await;
    harness.kubectl(&["scale", "deployment/emails", "--replicas=3"]);
    // A change of the template is applied and keeps the replicas that others set.
    harness.change(&json!({ "timeout": "2m" }));
    harness.until_grace(125).await;
    assert_eq!(harness.deployment()["spec"]["replicas"], 3);
    harness.change(&json!({ "suspendScaling": false }));
    harness.until_replicas(4).await;
}

/// Before the fix, each change was answered with the number last seen: of two changes within half a second,
/// one in eight was lost.
#[tokio::test(flavor = "multi_thread")]
async fn suspended_scaling_keeps_the_replicas_that_others_set() {
    let harness = Harness::new("others-scale").await;
    harness.task_queue("emails", &format!("{EMAILS}\nsuspendScaling: true"));
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    for round in 0..12_u32 {
        let (first, last) = (round % 3 + 1, round % 4 + 5);
        // Some of them together with a change of the template.
        if round % 3 == 0 {
            harness.change(&json!({ "timeout": format!("{}s", 60 + round) }));
        }
        let scale = async |replicas: u32| harness.scale(replicas).await;
        scale(first).await;
        tokio::time::sleep(Duration::from_millis(20 * u64::from(round % 5))).await;
        scale(last).await;
        if round % 3 == 0 {
            harness.until_grace(65 + round).await;
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(
            harness.deployment()["spec"]["replicas"],
            last,
            "round {round}: asked for {first}, then {last}"
        );
    }
    let fields = harness.deployment()["metadata"]["managedFields"].clone();
    assert!(fields.to_string().contains("f:replicas"), "{fields}");
    // No other manager gets an event, since they may set the replicas.
    let events = harness.kubectl(&["get", "events"]);
    assert!(!events.contains("ReplicasRestored"), "{events}");
}

/// Before the fix, it came back without pods, since those were what the operator had seen last.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_deployment_of_a_suspended_queue_comes_back_with_its_pods() {
    let harness = Harness::new("suspended-deleted").await;
    harness.task_queue("emails", &format!("{EMAILS}\nsuspendScaling: true"));
    let operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    harness.scale(3).await;
    let uid = |harness: &Harness| harness.deployment()["metadata"]["uid"].clone();
    let is_recreated = async |before: Value| {
        until("there is another Deployment", || {
            let now = uid(&harness);
            if now.is_null() || now == before { Err(now.to_string()) } else { Ok(()) }
        })
        .await;
        assert_eq!(harness.deployment()["spec"]["replicas"], 3);
    };
    let three_pods_run = async || {
        let pods = json!({ "status": { "observedGeneration": 2, "replicas": 3 } }).to_string();
        let args = ["patch", "deployment", "emails", "--subresource=status", "--type=merge", "-p", &pods];
        harness.kubectl(&args);
        until("the status shows the pods", || {
            let pods = harness.get("tq", "emails")["status"]["pods"].clone();
            if pods == 3 { Ok(()) } else { Err(pods.to_string()) }
        })
        .await;
    };
    three_pods_run().await;
    let before = uid(&harness);
    harness.kubectl(&["delete", "deployment", "emails"]);
    is_recreated(before).await;
    // Another operator has only the status.
    three_pods_run().await;
    operator.stop().await;
    let before = uid(&harness);
    harness.kubectl(&["delete", "deployment", "emails"]);
    let _operator = harness.operator().await;
    is_recreated(before).await;
    // Pods of a queue that now belongs to another TaskQueue end; before, they stayed.
    let ours: String = harness.db.one("select owner from rowlock.queue").await;
    let theirs = Declaration { owner: "another-cluster/shop/emails".into(), ..declaration("mail") };
    rowlock_queue::adopt(&harness.db.db, &theirs, Some(&ours)).await.unwrap();
    harness.until_replicas(0).await;
}

/// Before the fix, the operator silently undid another autoscaler several times a minute, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn another_scaler_is_named_once_with_what_to_do() {
    let harness = Harness::new("contested").await;
    harness.task_queue("emails", &EMAILS.replace("autoscaling: {", "autoscaling: { min: 15,"));
    let _operator = harness.operator().await;
    harness.until_replicas(2).await;
    for replicas in [5, 6, 7] {
        harness.scale(replicas).await;
        harness.until_replicas(2).await;
    }
    let events = harness.until_event("ReplicasRestored").await;
    assert!(events.contains("set 5 pods on the Deployment. The TaskQueue asks for 2"), "{events}");
    assert!(events.contains("set workers.scaling to External"), "{events}");
    assert_eq!(events.matches("ReplicasRestored").count(), 1, "{events}");
    assert!(!events.contains("ScaledUp"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_statistics_the_number_of_pods_stays() {
    let harness = Harness::new("unknown").await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    harness.db.enqueue_many(1000).await;
    harness.until_replicas(4).await;
    // The statistics fail, as in an outage.
    harness.db.run("alter function rowlock.statistics() rename to gone").await;
    harness.until("DatabaseReachable", "False AccessDenied").await;
    harness.db.run("truncate rowlock.ready").await;
    // Two polls and the window pass; an absent change has no event to await.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(harness.deployment()["spec"]["replicas"], 4);
    harness.db.run("alter function rowlock.gone() rename to statistics").await;
    harness.until_replicas(0).await;
}
