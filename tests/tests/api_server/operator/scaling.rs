//! How many pods there are, and when.

use std::time::{Duration, Instant};

use serde_json::json;

use super::stage::{EMAILS, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn pods_come_soon_after_the_tasks_and_go_after_the_window() {
    let stage = Stage::new("scales").await;
    stage.task_queue("emails", EMAILS);
    let _operator = stage.operator().await;
    stage.until("Ready", "True Succeeded").await;
    let since = Instant::now();
    stage.db.enqueue_many(10_000).await;
    stage.until_replicas(4).await;
    let took = since.elapsed();
    // Two seconds on a machine of its own; this one has other tests to run.
    assert!(took < Duration::from_secs(10), "{took:?}");
    eprintln!("10,000 tasks enqueued, replicas asked for: {took:?}");
    let events = stage.until_event("ScaledUp").await;
    assert!(events.contains("from 0 to 4 pods: workers.total is reached (Total): 10000 waiting"), "{events}");
    stage.until("ScalingLimited", "True Total").await;
    stage.db.run("truncate rowlock.ready").await;
    stage.until_replicas(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_pods_stay_as_many_as_they_are() {
    let stage = Stage::new("suspended").await;
    stage.task_queue("emails", &format!("{EMAILS}\nsuspendScaling: true"));
    let _operator = stage.operator().await;
    stage.until("Ready", "True Succeeded").await;
    stage.db.enqueue_many(1000).await;
    stage.kubectl(&["scale", "deployment/emails", "--replicas=3"]);
    // A change of the template goes on, with the replicas of others.
    stage.change(&json!({ "timeout": "2m" }));
    stage.until_grace(125).await;
    assert_eq!(stage.deployment()["spec"]["replicas"], 3);
    stage.change(&json!({ "suspendScaling": false }));
    stage.until_replicas(4).await;
}

/// Before this was mended, each change was echoed with the number last seen: of two within half a second
/// one in eight was lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_scale_is_never_undone_while_scaling_is_suspended() {
    let stage = Stage::new("others-scale").await;
    stage.task_queue("emails", &format!("{EMAILS}\nsuspendScaling: true"));
    let _operator = stage.operator().await;
    stage.until("Ready", "True Succeeded").await;
    for round in 0..12_u32 {
        let (first, last) = (round % 3 + 1, round % 4 + 5);
        // Some of them beside a change of the template.
        if round % 3 == 0 {
            stage.change(&json!({ "timeout": format!("{}s", 60 + round) }));
        }
        let scale = async |replicas: u32| stage.scale(replicas).await;
        scale(first).await;
        tokio::time::sleep(Duration::from_millis(20 * u64::from(round % 5))).await;
        scale(last).await;
        if round % 3 == 0 {
            stage.until_grace(65 + round).await;
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(
            stage.deployment()["spec"]["replicas"],
            last,
            "round {round}: asked for {first}, then {last}"
        );
    }
    let fields = stage.deployment()["metadata"]["managedFields"].clone();
    assert!(fields.to_string().contains("f:replicas"), "{fields}");
    // Told of what was theirs to do is nobody.
    let events = stage.kubectl(&["get", "events"]);
    assert!(!events.contains("ReplicasRestored"), "{events}");
}

/// Before this was mended, an autoscaler beside the operator was fought without a word, several times a
/// minute, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn who_scales_beside_the_operator_is_named_once_with_what_to_do() {
    let stage = Stage::new("contested").await;
    stage.task_queue("emails", &EMAILS.replace("autoscaling: {", "autoscaling: { min: 15,"));
    let _operator = stage.operator().await;
    stage.until_replicas(2).await;
    for replicas in [5, 6, 7] {
        stage.scale(replicas).await;
        stage.until_replicas(2).await;
    }
    let events = stage.until_event("ReplicasRestored").await;
    assert!(events.contains("had set 5 pods on the Deployment, where the TaskQueue asks for 2"), "{events}");
    assert!(events.contains("set workers.scaling to External"), "{events}");
    assert_eq!(events.matches("ReplicasRestored").count(), 1, "{events}");
    assert!(!events.contains("ScaledUp"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_known_of_the_tasks_holds_the_pods() {
    let stage = Stage::new("unknown").await;
    stage.task_queue("emails", EMAILS);
    let _operator = stage.operator().await;
    stage.until("Ready", "True Succeeded").await;
    stage.db.enqueue_many(1000).await;
    stage.until_replicas(4).await;
    // The statistics fail, as they do in an outage.
    stage.db.run("alter function rowlock.statistics() rename to gone").await;
    stage.until("DatabaseReachable", "False AccessDenied").await;
    stage.db.run("truncate rowlock.ready").await;
    // Two looks and the window pass; there is no event for what does not happen.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.deployment()["spec"]["replicas"], 4);
    stage.db.run("alter function rowlock.gone() rename to statistics").await;
    stage.until_replicas(0).await;
}
