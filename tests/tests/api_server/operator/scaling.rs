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
