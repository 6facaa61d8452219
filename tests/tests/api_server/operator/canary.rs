//! A canary: a share of the pods gets a changed template first. The tests create pods as a `ReplicaSet` does,
//! write their status as a kubelet does, and report runs as workers do.

use std::time::Duration;

use rowlock_queue::{Heartbeat, Runs, heartbeat, join_in_pod};
use rowlock_tests::TestInstance;
use serde_json::{Value, json};

use super::harness::{EMAILS, Harness, Running, page, until, until_async};

/// Four pods, a canary of one, which needs ten runs.
const CANARY: &str = "rollout: { canary: { share: 1, minRuns: 10, minTime: 0s } }";

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Four ready pods with an instance each.
async fn four_pods(name: &str) -> (Harness, Running, Vec<TestInstance>) {
    let harness = Harness::new(name).await;
    let spec = EMAILS.replace("autoscaling: { scaleDownAfter: 1s }", "scaling: External, replicas: 4");
    harness.task_queue("emails", &format!("{spec}{CANARY}"));
    let operator = harness.operator().await;
    harness.until_replicas(4).await;
    harness.kubectl(&["create", "serviceaccount", "default"]);
    let mut instances = Vec::new();
    for pod in ["a", "b", "c", "d"] {
        instances.push(add_pod(&harness, pod, "old").await);
    }
    (harness, operator, instances)
}

/// A ready pod of this template, with an instance.
async fn add_pod(harness: &Harness, name: &str, template: &str) -> TestInstance {
    let made_from = harness.deployment()["spec"]["template"].clone();
    let mut labels = made_from["metadata"]["labels"].clone();
    labels["pod-template-hash"] = json!(template);
    let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("emails-{template}"),
        "uid": template, "controller": true });
    let metadata = json!({ "name": name, "labels": labels, "ownerReferences": [owner] });
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": made_from["spec"] });
    harness.apply(&pod.to_string());
    let uid = harness.kubectl(&["get", "pod", name, "-o", "jsonpath={.metadata.uid}"]);
    let db = &harness.db.db;
    let joined = join_in_pod(db, "mail", name, 10, Some(&uid)).await.unwrap();
    let watermarks = joined.watermarks.clone();
    pod_status(harness, name, &json!({ "phase": "Running", "conditions": ready() }));
    TestInstance { db: db.clone(), joined, watermarks }
}

fn ready() -> Value {
    json!([{ "type": "Ready", "status": "True" }])
}

fn pod_status(harness: &Harness, pod: &str, status: &Value) {
    let patch = json!({ "status": status }).to_string();
    harness.kubectl(&["patch", "pod", pod, "--subresource=status", "--type=merge", "-p", &patch]);
}

/// Reports runs of a tenth of a second each.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
async fn reports(instance: &TestInstance, completed: u64, failed: u64) {
    let (seconds, seconds_squared) = (completed as f64 / 10.0, completed as f64 / 100.0);
    let runs = Runs { completed, seconds, seconds_squared, failed };
    heartbeat(&instance.db, &Heartbeat { runs, ..instance.says(0, 1) }).await.unwrap();
}

/// Changes the image of the handler.
fn image(harness: &Harness, image: &str) {
    let handler = json!([{ "name": "handler", "image": image }]);
    harness.change(&json!({ "template": { "spec": { "containers": handler } } }));
}

/// The image of the handler, that of the worker, and for how long a new pod does not count as available.
fn pods_get(harness: &Harness) -> (String, String, Value) {
    let spec = harness.deployment()["spec"].clone();
    let pod = &spec["template"]["spec"];
    let image = |container: &Value| container["image"].as_str().unwrap_or_default().to_owned();
    let handler = pod["initContainers"].as_array().and_then(|all| all.last()).map(image);
    (handler.unwrap_or_default(), image(&pod["containers"][0]), spec["minReadySeconds"].clone())
}

/// Waits until the pods get this image of the handler; `held`: only a share of them.
async fn until_image(harness: &Harness, expected: &str, held: bool) {
    until(&format!("the pods get {expected}, held: {held}"), || {
        let (image, _, seconds) = pods_get(harness);
        if image == expected && seconds.is_number() == held {
            Ok(())
        } else {
            Err(format!("{image} {seconds}"))
        }
    })
    .await;
}

fn annotation(harness: &Harness, name: &str) -> Value {
    harness.deployment()["metadata"]["annotations"][format!("rowlock.dev/{name}")].clone()
}

/// The marked instances, by name.
async fn marked(harness: &Harness) -> String {
    let names = "select coalesce(string_agg(name, ' ' order by name), '') from rowlock.instance \
                 where drain_until > now()";
    harness.db.one(names).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_runs_as_well_as_the_old_one_goes_to_all_pods() {
    let (harness, operator, old) = four_pods("canary-passes").await;
    image(&harness, "emails:2");
    until_image(&harness, "emails:2", true).await;
    let spec = harness.deployment()["spec"].clone();
    assert_eq!((&spec["replicas"], &spec["strategy"]["rollingUpdate"]["maxSurge"]), (&json!(4), &json!(1)));
    assert_eq!(spec["progressDeadlineSeconds"].as_i64(), spec["minReadySeconds"].as_i64().map(|s| s + 600));
    harness.until_event("CanaryStarted").await;
    until("the canary waits for its pod", || {
        let (_, message) = harness.condition("emails", "Reconciling");
        if message.contains("the first pod with the new template") { Ok(()) } else { Err(message) }
    })
    .await;
    let new = add_pod(&harness, "new", "new").await;
    until("the status shows it", || {
        let canary = harness.get("tq", "emails")["status"]["canary"].clone();
        if canary["state"] == "Running" && canary["ready"] == 1 { Ok(()) } else { Err(canary.to_string()) }
    })
    .await;
    // The next leader goes on with it.
    operator.stop().await;
    let (_operator, pages) = harness.operator_with_pages().await;
    for instance in &old {
        reports(instance, 100, 3).await;
    }
    reports(&new, 20, 0).await;
    until_image(&harness, "emails:2", false).await;
    let spec = harness.deployment()["spec"].clone();
    assert_eq!(spec["strategy"]["rollingUpdate"]["maxSurge"], "10%");
    assert_eq!(
        (&spec["progressDeadlineSeconds"], annotation(&harness, "canary")),
        (&json!(600), Value::Null)
    );
    let events = harness.until_event("CanaryPassed").await;
    assert!(events.contains("0 of 20 runs (0.0 %) failed"), "{events}");
    until("it is counted", || {
        let metrics = page(pages, "/metrics");
        let line = "rowlock_operator_canaries_ended_total{result=\"passed\"} 1\n";
        if metrics.contains(line) { Ok(()) } else { Err(metrics) }
    })
    .await;
    // What all pods have now is what the next canary is compared with.
    image(&harness, "emails:3");
    until_image(&harness, "emails:3", true).await;
    assert!(annotation(&harness, "template-source").as_str().unwrap().contains("emails:2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_whose_runs_fail_comes_back_and_another_one_is_tried() {
    let (harness, operator, old) = four_pods("canary-fails").await;
    image(&harness, "emails:2");
    until_image(&harness, "emails:2", true).await;
    let new = add_pod(&harness, "new", "new").await;
    for instance in &old {
        reports(instance, 100, 1).await;
    }
    reports(&new, 0, 7).await;
    until_image(&harness, "emails:1", false).await;
    assert_eq!(marked(&harness).await, "new", "it gets no more tasks");
    let message = harness.until("Stalled", "True CanaryFailed").await;
    let figures = "7 of 7 runs (100.0 %) of the new pods failed, and 4 of 404 runs (1.0 %) of the old ones";
    assert!(message.contains(figures) && message.contains("correct spec.template"), "{message}");
    harness.until("Ready", "True Succeeded").await;
    harness.until_event("CanaryFailed").await;
    let queue = harness.get("tq", "emails");
    assert_eq!(queue["status"]["canary"]["state"], "Failed");
    assert_eq!(queue["spec"]["template"]["spec"]["containers"][0]["image"], "emails:2");
    harness.kubectl(&["delete", "pod", "new", "--force", "--grace-period=0"]);
    // Another leader, and other changes of the TaskQueue, do not try it again. A release gives the old
    // handler the new worker.
    operator.stop().await;
    let _operator = harness.operator_with(|config| config.worker_image = "worker:2".into()).await;
    harness.change(&json!({ "workers": { "replicas": 3 } }));
    harness.until_replicas(3).await;
    until("the old handler has the new worker", || {
        let pods = pods_get(&harness);
        let expected = ("emails:1".to_owned(), "worker:2".to_owned(), Value::Null);
        if pods == expected { Ok(()) } else { Err(format!("{pods:?}")) }
    })
    .await;
    harness.until("Stalled", "True CanaryFailed").await;
    // As the rollout to the new worker.
    for pod in ["a", "b", "c", "d"] {
        harness.kubectl(&["delete", "pod", pod, "--force", "--grace-period=0"]);
    }
    add_pod(&harness, "e", "old2").await;
    image(&harness, "emails:3");
    until_image(&harness, "emails:3", true).await;
    harness.until("Stalled", "False Succeeded").await;
    let new = add_pod(&harness, "new3", "new3").await;
    reports(&new, 10, 0).await;
    until_image(&harness, "emails:3", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_ends_again_and_again_brings_the_old_template_back() {
    let (harness, _operator, _old) = four_pods("canary-ends").await;
    image(&harness, "emails:2");
    until_image(&harness, "emails:2", true).await;
    let _new = add_pod(&harness, "new", "new").await;
    let running = json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
    let handler = json!([{ "name": "handler", "image": "emails:2", "imageID": "", "ready": true,
        "restartCount": 3, "state": running }]);
    let status = json!({ "phase": "Running", "conditions": ready(), "initContainerStatuses": handler });
    pod_status(&harness, "new", &status);
    until_image(&harness, "emails:1", false).await;
    let message = harness.until("Stalled", "True CanaryFailed").await;
    assert!(message.contains("ended 3 times"), "{message}");
    // Without the canary, all pods get it.
    harness.change(&json!({ "rollout": { "canary": null } }));
    until_image(&harness, "emails:2", false).await;
    harness.until("Stalled", "False Succeeded").await;
    assert_eq!(harness.get("tq", "emails")["status"]["canary"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_change_during_a_canary_starts_again_or_ends_it() {
    let (harness, _operator, old) = four_pods("canary-again").await;
    image(&harness, "emails:2");
    until_image(&harness, "emails:2", true).await;
    let second = add_pod(&harness, "second", "second").await;
    image(&harness, "emails:3");
    until_image(&harness, "emails:3", true).await;
    // What the pods of the second template do says nothing about the third.
    reports(&second, 0, 50).await;
    reports(&old[0], 100, 0).await;
    let third = add_pod(&harness, "third", "third").await;
    reports(&third, 5, 0).await;
    until("the third is watched", || {
        let canary = harness.get("tq", "emails")["status"]["canary"].clone();
        if canary["pods"] == 1 && canary["runs"] == 5 { Ok(()) } else { Err(canary.to_string()) }
    })
    .await;
    assert_eq!(pods_get(&harness).0, "emails:3");
    // A change of the number is no new template. Of the old pods, the idle ones go.
    harness.change(&json!({ "workers": { "replicas": 2 } }));
    harness.until_replicas(2).await;
    let pods: Value = serde_json::from_str(&harness.kubectl(&["get", "pods", "-o", "json"])).unwrap();
    let chosen = pods["items"].as_array().unwrap().iter().filter(|pod| {
        pod["metadata"]["annotations"][COST].is_string()
            && pod["metadata"]["labels"]["pod-template-hash"] == "old"
    });
    assert_eq!(chosen.count(), 2);
    assert!(pods_get(&harness).2.is_number(), "the canary goes on");
    image(&harness, "emails:1");
    until_image(&harness, "emails:1", false).await;
    harness.until("Stalled", "False Succeeded").await;
    assert_eq!(annotation(&harness, "canary"), Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ready_pods_there_is_nothing_to_compare_with() {
    let harness = Harness::new("canary-straight").await;
    let spec = EMAILS.replace("autoscaling: { scaleDownAfter: 1s }", "scaling: External, replicas: 1");
    harness.task_queue("emails", &format!("{spec}{CANARY}"));
    let _operator = harness.operator().await;
    harness.until_replicas(1).await;
    image(&harness, "emails:2");
    until_image(&harness, "emails:2", false).await;
    // A queue that is scaled to zero.
    harness.kubectl(&["create", "serviceaccount", "default"]);
    let pod = add_pod(&harness, "a", "old").await;
    harness.change(&json!({ "workers": { "replicas": 0 } }));
    harness.until_replicas(0).await;
    image(&harness, "emails:3");
    until_image(&harness, "emails:3", false).await;
    // With a pod again, the next one is tried first. While the queue is paused, it waits.
    harness.change(&json!({ "workers": { "replicas": 1 }, "paused": true }));
    harness.until_replicas(1).await;
    image(&harness, "emails:4");
    until_image(&harness, "emails:4", true).await;
    let new = add_pod(&harness, "new", "new").await;
    reports(&pod, 10, 0).await;
    harness.change(&json!({ "rollout": { "canary": { "minRuns": 1000, "maxTime": "1s" } } }));
    // Several passes; an absent change has no event to await.
    tokio::time::sleep(Duration::from_secs(4)).await;
    until_image(&harness, "emails:4", true).await;
    // Then what has been seen decides, without a run of the new pods.
    harness.change(&json!({ "paused": false }));
    until_image(&harness, "emails:4", false).await;
    until_async("no mark is left", || async {
        let marked = marked(&harness).await;
        if marked.is_empty() { Ok(()) } else { Err(marked) }
    })
    .await;
    drop(new);
}
