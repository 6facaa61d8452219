//! A pod that has ended for good, by the word of its kubelet, loses its leases at once. The tests write the
//! status of pods as a kubelet does.

use k8s_openapi::jiff::Timestamp;
use rowlock_queue::{Claimed, InstanceId, Outcome, describe_task, join_in_pod};
use rowlock_tests::TestInstance;
use serde_json::{Value, json};

use super::harness::{EMAILS, Harness, page, until_async};
use super::target;

/// A pod of this Deployment, as its `ReplicaSet` makes it, and its instance with two running tasks.
async fn busy(harness: &Harness, deployment: &str, name: &str, owner: Option<&str>) -> InstanceId {
    with_tasks(harness, deployment, name, owner).await.0.id()
}

async fn with_tasks(
    harness: &Harness,
    deployment: &str,
    name: &str,
    owner: Option<&str>,
) -> (TestInstance, Claimed) {
    let template = harness.get("deployment", deployment)["spec"]["template"].clone();
    let mut labels = template["metadata"]["labels"].clone();
    labels["pod-template-hash"] = json!("7d9f");
    let mut metadata = json!({ "name": name, "labels": labels });
    if let Some(owner) = owner {
        metadata["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": "r1", "controller": true
        }]);
    }
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] });
    harness.apply(&pod.to_string());
    write_status(harness, name, &json!({ "phase": "Running" }));
    let uid = harness.kubectl(&["get", "pod", name, "-o", "jsonpath={.metadata.uid}"]);
    until_async("the queue is declared", || async {
        let declared = "select exists (select from rowlock.queue where name = 'mail')";
        if harness.db.one::<bool>(declared).await { Ok(()) } else { Err("it is not".to_owned()) }
    })
    .await;
    let db = &harness.db.db;
    let joined = join_in_pod(db, "mail", name, 10, Some(&uid)).await.unwrap();
    let watermarks = joined.watermarks.clone();
    let mut instance = TestInstance { db: db.clone(), joined, watermarks };
    harness.db.enqueue_many(2).await;
    let claimed = instance.claim(2).await;
    assert_eq!(claimed.tasks.len(), 2);
    (instance, claimed)
}

fn running() -> Value {
    json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } })
}

fn killed() -> Value {
    json!({ "terminated": { "exitCode": 137, "reason": "Error" } })
}

fn state_of(name: &str, state: &Value) -> Value {
    json!({ "name": name, "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": state })
}

/// Writes the phase of a pod, and the states of its worker and its handler.
fn status(harness: &Harness, pod: &str, phase: &str, (worker, handler): (&Value, &Value)) {
    let (worker, handler) = (state_of("worker", worker), state_of("handler", handler));
    let status = json!({ "phase": phase, "containerStatuses": [worker], "initContainerStatuses": [handler] });
    write_status(harness, pod, &status);
}

fn write_status(harness: &Harness, pod: &str, status: &Value) {
    let patch = json!({ "status": status }).to_string();
    harness.kubectl(&["patch", "pod", pod, "--subresource=status", "--type=merge", "-p", &patch]);
}

async fn until_gone(harness: &Harness, instance: InstanceId) {
    until_async("the instance has ended", || async {
        let query = format!("select gone from rowlock.instance where id = {instance}");
        if harness.db.one::<bool>(query).await { Ok(()) } else { Err("it lives".to_owned()) }
    })
    .await;
}

/// The first pods are no proof. When the last pod is rescued, the operator has seen them too.
#[tokio::test(flavor = "multi_thread")]
async fn only_pods_that_have_ended_for_good_lose_their_leases() {
    let harness = Harness::new("ended").await;
    harness.task_queue("emails", &EMAILS.replace(", autoscaling: { scaleDownAfter: 1s }", ""));
    let (_operator, pages) = harness.operator_with_pages().await;
    harness.kubectl(&["create", "serviceaccount", "default"]);
    harness.until_replicas(4).await;
    let own = Some("emails-7d9f");
    let mut alive = Vec::new();
    for (name, owner, phase, states) in [
        ("worker-crashed", own, "Running", (killed(), running())),
        ("restarts", own, "Running", (killed(), killed())),
        ("forced-away", own, "Running", (running(), running())),
        ("forged", None, "Failed", (killed(), killed())),
        ("of-another", Some("shop-7d9f"), "Failed", (killed(), killed())),
    ] {
        alive.push(busy(&harness, "emails", name, owner).await);
        status(&harness, name, phase, (&states.0, &states.1));
    }
    let force = |pod: &str| harness.kubectl(&["delete", "pod", pod, "--force", "--grace-period=0"]);
    force("forced-away");
    let evicted = busy(&harness, "emails", "evicted", own).await;
    status(&harness, "evicted", "Failed", (&killed(), &killed()));
    until_gone(&harness, evicted).await;
    // The kubelet deletes a pod right after it has reported its end.
    let deleted = busy(&harness, "emails", "deleted", own).await;
    status(&harness, "deleted", "Failed", (&killed(), &killed()));
    force("deleted");
    until_gone(&harness, deleted).await;
    let events = harness.until_event("PodEnded").await;
    assert!(
        events.contains("pod evicted has ended (worker: Error, exit code 137; handler: Error"),
        "{events}"
    );
    let metrics = page(pages, "/metrics");
    for line in ["rowlock_operator_rescued_pods_total 2\n", "rowlock_operator_rescued_tasks_total 4\n"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    let alive: Vec<String> = alive.iter().map(ToString::to_string).collect();
    let query =
        format!("select count(*) from rowlock.instance where id in ({}) and not gone", alive.join(", "));
    assert_eq!(harness.db.one::<i64>(query).await, 5);
    assert_eq!(harness.db.audited().await, (0, 0, 0, 14));
}

/// Before, their tasks waited for the whole lease.
#[tokio::test(flavor = "multi_thread")]
async fn the_pods_of_a_users_own_deployment_lose_their_leases_too() {
    let harness = Harness::new("ended-target").await;
    harness.apply(&target::shop("shop").to_string());
    harness.add_sidecar();
    harness.task_queue("emails", &target::spec());
    let _operator = harness.operator().await;
    harness.kubectl(&["create", "serviceaccount", "default"]);
    harness.until("Stalled", "False Succeeded").await;
    let status = |pod: &str, web: &Value| {
        let all = [state_of("web", web), state_of("worker", &killed())];
        write_status(&harness, pod, &json!({ "phase": "Failed", "containerStatuses": all }));
    };
    let of_another = busy(&harness, "shop", "of-another", Some("emails-7d9f")).await;
    status("of-another", &killed());
    let serves = busy(&harness, "shop", "serves", Some("shop-7d9f")).await;
    status("serves", &running());
    let ended = busy(&harness, "shop", "ended", Some("shop-7d9f")).await;
    status("ended", &killed());
    until_gone(&harness, ended).await;
    let alive =
        format!("select count(*) from rowlock.instance where id in ({of_another}, {serves}) and not gone");
    assert_eq!(harness.db.one::<i64>(alive).await, 2);
}

/// The worker sees only that its handler is gone. Before, the reason was only in the status of the pod.
#[tokio::test(flavor = "multi_thread")]
async fn errors_of_tasks_say_why_their_handler_ended() {
    let harness = Harness::new("handler-ends").await;
    harness.task_queue("emails", &EMAILS.replace(", autoscaling: { scaleDownAfter: 1s }", ""));
    let _operator = harness.operator().await;
    harness.kubectl(&["create", "serviceaccount", "default"]);
    harness.until_replicas(4).await;
    let mut tasks = Vec::new();
    for (name, owner) in [("forged", None), ("restarted", Some("emails-7d9f"))] {
        let (instance, claimed) = with_tasks(&harness, "emails", name, owner).await;
        instance.settle(&claimed, &Outcome::HandlerEnded).await;
        tasks.push(claimed.tasks[0].id);
        let mut handler = state_of("handler", &running());
        handler["lastState"] = json!({ "terminated": {
            "exitCode": 137, "reason": "OOMKilled", "finishedAt": Timestamp::now().to_string(),
            "containerID": format!("containerd://{name}"), "message": "a secret"
        } });
        let worker = state_of("worker", &running());
        let status =
            json!({ "phase": "Running", "containerStatuses": [worker], "initContainerStatuses": [handler] });
        write_status(&harness, name, &status);
    }
    let error = async |number: usize| {
        let details = describe_task(&harness.db.db, tasks[number]).await.unwrap().unwrap();
        details.errors.last().map(|error| error.error.clone()).unwrap_or_default()
    };
    until_async("the error names the reason", || async {
        let error = error(1).await;
        if error.starts_with("the handler ended (OOMKilled, exit code 137) while") {
            Ok(())
        } else {
            Err(error)
        }
    })
    .await;
    let forged = error(0).await;
    assert!(forged.starts_with("the handler ended while this task ran"), "{forged}");
}
