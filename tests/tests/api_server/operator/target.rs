//! A Deployment of the user's own, which `spec.targetRef` names.

use std::path::Path;

use rowlock_crds::{Manifest, TaskQueueSpec, parse_manifests};
use rowlock_operator::worker_sidecar;
use serde_json::{Value, json};

use super::faulty_api_server::Mode;
use super::harness::{EMAILS, Harness, until};
use super::rights::rights_of_the_chart;

/// Scales the Deployment `shop`, from zero to four pods.
pub(super) fn spec() -> String {
    let lines = EMAILS.lines().filter(|line| !line.starts_with("template"));
    format!("{}\ntargetRef: {{ name: shop }}", lines.collect::<Vec<_>>().join("\n"))
}

/// A Deployment of a user who does not know Rowlock yet.
pub(super) fn shop(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "web", "image": "shop:1" }] },
            },
        },
    })
}

impl Harness {
    /// Adds to the Deployment `shop` what `rowlock sidecar` prints.
    pub(super) fn add_sidecar(&self) {
        let spec: TaskQueueSpec = serde_yaml::from_str(&spec()).unwrap();
        let patch = worker_sidecar(&Manifest::new("emails", spec), "worker:1").unwrap();
        self.patch(&patch);
    }

    fn patch(&self, patch: &Value) {
        self.kubectl(&["patch", "deployment", "shop", "-p", &patch.to_string()]);
    }

    /// Changes one variable of the container `worker`.
    fn set_variable(&self, name: &str, value: &str) {
        let worker = json!({ "name": "worker", "env": [{ "name": name, "value": value }] });
        self.patch(&json!({ "spec": { "template": { "spec": { "containers": [worker] } } } }));
    }

    /// Waits until `Stalled` says this.
    async fn until_stalled(&self, task_queue: &str, expected: &str, says: &str) {
        until(&format!("{task_queue} says {says}"), || {
            let (found, message) = self.condition(task_queue, "Stalled");
            if found == expected && message.contains(says) {
                Ok(())
            } else {
                Err(format!("{found}: {message}"))
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_deployment_is_scaled_with_the_charts_rights_and_not_changed_otherwise() {
    let harness = Harness::new("target").await;
    let user = rights_of_the_chart(&harness);
    let role = format!("rowlock-operator-{}-namespace", harness.namespace);
    let account = format!("--serviceaccount={}:rowlock-operator", harness.namespace);
    harness.kubectl(&["create", "rolebinding", "r", &format!("--clusterrole={role}"), &account]);
    harness.apply(&shop("shop").to_string());
    harness.add_sidecar();
    let before = harness.get("deployment", "shop");
    harness.task_queue("emails", &spec());
    let _operator = harness.everywhere_as(&user, &role).await;
    harness.until_replicas_of("shop", 0).await;
    harness.until("Stalled", "False Succeeded").await;
    harness.db.enqueue_many(1000).await;
    harness.until_replicas_of("shop", 4).await;
    // The API server records no owner for a number that was zero before.
    let fields = harness.get("deployment", "shop")["metadata"]["managedFields"].as_array().unwrap().clone();
    let ours: Vec<&Value> = fields.iter().filter(|entry| entry["manager"] == "rowlock-operator").collect();
    let owned = json!({ "f:spec": { "f:replicas": {} } });
    assert!(
        ours.iter().all(|entry| entry["fieldsV1"] == owned && entry["subresource"] == "scale"),
        "{ours:?}"
    );
    harness.db.run("truncate rowlock.ready").await;
    harness.until_replicas_of("shop", 0).await;
    let mut after = harness.get("deployment", "shop");
    after["spec"]["replicas"] = before["spec"]["replicas"].clone();
    assert_eq!(after["spec"], before["spec"]);
    for field in ["labels", "annotations", "ownerReferences", "finalizers"] {
        assert_eq!(after["metadata"][field], before["metadata"][field], "{field}");
    }
    // Neither a Deployment nor a budget of the operator's own.
    for kind in ["deployment", "pdb"] {
        assert_eq!(harness.get(kind, "emails"), Value::Null);
    }
    let selector = harness.get("tq", "emails")["status"]["selector"].clone();
    assert_eq!(selector, "rowlock.dev/task-queue=emails");
    // It keeps its pods without the TaskQueue.
    harness.db.enqueue_many(1000).await;
    harness.until_replicas_of("shop", 4).await;
    harness.kubectl(&["delete", "tq", "emails"]);
    harness.db.run("truncate rowlock.ready").await;
    // Two polls and the window pass; an absent change has no event to await.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(harness.get("deployment", "shop")["spec"]["replicas"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_does_not_fit_is_named_until_it_does() {
    let harness = Harness::new("target-wrong").await;
    harness.task_queue("emails", &spec().replace("autoscaling: {", "autoscaling: { min: 15,"));
    let _operator = harness.operator().await;
    let (invalid, name) = ("True TargetInvalid", "emails");
    harness.until_stalled(name, "True TargetNotFound", "`shop` of spec.targetRef does not exist").await;
    until("it asks for no pods", || {
        let scaling = harness.get("tq", name)["status"]["scaling"].clone();
        if scaling["reason"] == "Stalled" { Ok(()) } else { Err(scaling.to_string()) }
    })
    .await;
    harness.apply(&shop("shop").to_string());
    let labels = json!({ "rowlock.dev/task-queue": "emails" });
    harness.patch(&json!({ "metadata": { "labels": labels } }));
    harness.until_stalled(name, invalid, "pods without the label rowlock.dev/task-queue=emails").await;
    harness.patch(&json!({ "spec": { "template": { "metadata": { "labels": labels } } } }));
    harness.until_stalled(name, invalid, "no container `worker`").await;
    harness.add_sidecar();
    harness.until_stalled(name, "False Succeeded", "").await;
    harness.until_replicas_of("shop", 2).await;
    // A worker of another queue: the Deployment keeps its pods.
    harness.set_variable("ROWLOCK_QUEUE", "orders");
    harness.until_stalled(name, invalid, "a worker of the queue `orders`").await;
    harness.until("Ready", "False TargetInvalid").await;
    harness.change(&json!({ "workers": { "autoscaling": { "min": 25 } } }));
    harness.set_variable("ROWLOCK_SLOTS", "5");
    assert_eq!(harness.get("deployment", "shop")["spec"]["replicas"], 2);
    // Its pods would run tasks, so it is scaled.
    harness.set_variable("ROWLOCK_QUEUE", "mail");
    harness.until_replicas_of("shop", 3).await;
    harness.until_stalled(name, invalid, "has ROWLOCK_SLOTS=5").await;
    harness.set_variable("ROWLOCK_SLOTS", "10");
    harness.until_stalled(name, "False Succeeded", "").await;
    harness.kubectl(&["label", "deployment", "shop", "rowlock.dev/task-queue-"]);
    harness.until_stalled(name, invalid, "lacks the label rowlock.dev/task-queue=emails").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_scaled_by_the_task_queue_in_its_label_alone() {
    let harness = Harness::new("target-twice").await;
    harness.apply(&shop("shop").to_string());
    harness.add_sidecar();
    let min = |spec: String, min: u8| spec.replace("autoscaling: {", &format!("autoscaling: {{ min: {min},"));
    harness.task_queue("emails", &min(spec(), 15));
    harness.task_queue("orders", &min(spec().replace("queueName: mail", "queueName: orders"), 35));
    // One that names the Deployment of another TaskQueue.
    harness.task_queue("own", &EMAILS.replace("queueName: mail", "queueName: own"));
    let third = spec().replace("queueName: mail", "queueName: third").replace("name: shop", "name: own");
    harness.task_queue("third", &third);
    let _operator = harness.operator().await;
    harness.until_replicas_of("shop", 2).await;
    let others = "has the label rowlock.dev/task-queue=emails, so that TaskQueue scales it";
    harness.until_stalled("orders", "True OwnedByAnother", others).await;
    harness.until_stalled("third", "True OwnedByAnother", "belongs to the TaskQueue `own`").await;
    harness.until_stalled("emails", "False Succeeded", "").await;
    assert_eq!(harness.get("deployment", "shop")["spec"]["replicas"], 2);
    assert_eq!(harness.get("deployment", "own")["spec"]["replicas"], 0);
    assert_eq!(harness.get("tq", "orders")["status"]["pods"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_scaler_of_a_target_is_named_and_suspended_scaling_leaves_it_alone() {
    let harness = Harness::new("target-contested").await;
    harness.apply(&shop("shop").to_string());
    harness.add_sidecar();
    harness.task_queue("emails", &spec().replace("autoscaling: {", "autoscaling: { min: 15,"));
    let _operator = harness.operator().await;
    harness.until_replicas_of("shop", 2).await;
    harness.kubectl(&["scale", "deployment/shop", "--replicas=5"]);
    let message = harness.until("Contested", "True ForeignFieldManager").await;
    assert!(message.contains("set 5 pods on the Deployment"), "{message}");
    assert!(message.contains("remove `replicas` from the manifest of the Deployment"), "{message}");
    harness.until_replicas_of("shop", 2).await;
    harness.until_event("ReplicasRestored").await;
    // Before, nobody was named, and each such change was undone at once.
    harness.kubectl(&["scale", "deployment/shop", "--replicas=0"]);
    until("a scaler to zero is named", || {
        let (_, message) = harness.condition("emails", "Contested");
        if message.contains("set 0 pods") { Ok(()) } else { Err(message) }
    })
    .await;
    harness.change(&json!({ "suspendScaling": true }));
    harness.until("Contested", "False Suspended").await;
    harness.kubectl(&["scale", "deployment/shop", "--replicas=7"]);
    // Two polls; an absent change has no event to await.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(harness.get("deployment", "shop")["spec"]["replicas"], 7);
    harness
        .change(&json!({ "suspendScaling": false, "workers": { "scaling": "Fixed", "autoscaling": null } }));
    harness.until_replicas_of("shop", 4).await;
    harness.change(&json!({ "workers": { "scaling": "External", "replicas": 3 } }));
    harness.until_replicas_of("shop", 3).await;
}

/// Before, the operator scaled what its watch had shown last, which may be minutes ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_is_taken_away_counts_even_if_the_watch_is_late() {
    let harness = Harness::new("target-late").await;
    harness.apply(&shop("shop").to_string());
    harness.add_sidecar();
    harness.task_queue("emails", &spec().replace("autoscaling: {", "autoscaling: { min: 15,"));
    let (faults, _operator) = harness.operator_with_faults(Mode::Calm).await;
    harness.until_replicas_of("shop", 2).await;
    harness.until("Stalled", "False Succeeded").await;
    faults.set(Mode::Late);
    harness.kubectl(&["label", "deployment", "shop", "rowlock.dev/task-queue-"]);
    harness.db.enqueue_many(1000).await;
    let says = "lacks the label rowlock.dev/task-queue=emails";
    harness.until_stalled("emails", "True TargetInvalid", says).await;
    assert_eq!(harness.get("deployment", "shop")["spec"]["replicas"], 2);
}

/// Whether it has all expected values; it may have more.
fn contains(all: &Value, expected: &Value) -> bool {
    match (all, expected) {
        (Value::Object(_), Value::Object(expected)) => {
            expected.iter().all(|(name, value)| contains(&all[name], value))
        }
        (Value::Array(all), Value::Array(expected)) => {
            expected.iter().all(|value| all.iter().any(|one| contains(one, value)))
        }
        (all, expected) => all == expected,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_a_sidecar_has_what_the_command_prints_and_is_scaled() {
    let read =
        |name: &str| std::fs::read_to_string(rowlock_tests::checkout().join("examples/sidecar").join(name));
    let (queue, deployment) = (read("taskqueue.yaml").unwrap(), read("deployment.yaml").unwrap());
    let manifest = parse_manifests(Path::new("taskqueue.yaml"), &queue).unwrap().remove(0);
    let printed = worker_sidecar(&manifest, "rowlock-worker:0.1.0").unwrap();
    let written: Value = serde_yaml::from_str(&deployment).unwrap();
    assert!(contains(&written, &printed), "{printed:#}");
    let harness = Harness::new("target-example").await;
    let database = "secretRef: { name: shop-pg-app, key: uri }";
    harness.secret_named("shop-pg-app", &rowlock_tests::server::url(&harness.db.name));
    assert!(queue.contains(database), "{queue}");
    harness.apply(&deployment);
    harness.apply(&queue);
    let _operator = harness.operator().await;
    harness.until("Stalled", "False Succeeded").await;
    harness.until_replicas_of("shop", 1).await;
}
