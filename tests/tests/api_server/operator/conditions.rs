//! Conditions name each problem and clear when its cause is gone.

use rowlock_operator::kubernetes::Config;
use rowlock_tests::server as postgres;
use serde_json::{Value, json};

use super::harness::{EMAILS, Harness, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_invalid_secret_is_named_until_it_is_fixed() {
    let harness = Harness::new("secret").await;
    harness.kubectl(&["delete", "secret", "db"]);
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    let check = async |expected: &str, says: &str| {
        let message = harness.until("Ready", expected).await;
        assert!(message.contains(says), "{message}");
        assert!(!message.contains("secretpassword"), "{message}");
        harness.until("Stalled", &expected.replace("False", "True")).await;
    };
    check("False SecretNotFound", "create it, with the URL of the database under the key `uri`").await;
    harness.kubectl(&["create", "secret", "generic", "db", "--from-literal=url=x"]);
    check("False SecretInvalid", "has no key `uri` but url: set spec.database.secretRef.key").await;
    harness.secret("host=secretpassword");
    until("the key exists", || {
        let (text, message) = harness.condition("emails", "Ready");
        if message.contains("the database URL is not a Postgres URI: write postgres://") {
            Ok(())
        } else {
            Err(format!("{text} {message}"))
        }
    })
    .await;
    harness.secret("postgres://nobody:secretpassword@127.0.0.1:1/d");
    let message = harness.until("Ready", "False ConnectionFailed").await;
    assert!(!message.contains("secretpassword"), "{message}");
    harness.until("Stalled", "False Succeeded").await;
    harness.secret(&postgres::url("no_such_database"));
    check("False AccessDenied", "no_such_database").await;
    harness.secret(&postgres::url(&harness.db.name));
    harness.until("Ready", "True Succeeded").await;
    let events = harness.kubectl(&["get", "events"]);
    assert!(events.contains("SecretNotFound") && !events.contains("secretpassword"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_newer_release_are_not_changed() {
    let harness = Harness::new("newer").await;
    harness.db.run("insert into rowlock.migration values (999, 'tomorrow', 999)").await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    let message = harness.until("Stalled", "True SchemaTooNew").await;
    assert!(message.contains("use a newer release"), "{message}");
    harness.until("SchemaReady", "False SchemaTooNew").await;
    harness.until("DatabaseReachable", "True Succeeded").await;
    harness.db.run("delete from rowlock.migration where version = 999").await;
    harness.until("Ready", "True Succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_database_privilege_is_named() {
    let harness = Harness::new("powerless").await;
    let role = format!("powerless_{}", harness.db.name);
    harness.db.run("drop schema rowlock cascade").await;
    harness.db.run(format!("create role {role} login password 'x'")).await;
    let url = postgres::url(&harness.db.name);
    let (_, host) = url.split_once('@').unwrap();
    harness.secret(&format!("postgres://{role}:x@{host}"));
    harness.task_queue("emails", EMAILS);
    let operator = harness.operator().await;
    let message = harness.until("Stalled", "True MigrationFailed").await;
    assert!(message.contains("the owner of the database"), "{message}");
    harness.db.run(format!("grant create on database {} to {role}", harness.db.name)).await;
    harness.until("Ready", "True Succeeded").await;
    operator.stop().await;
    harness.db.run(format!("drop owned by {role} cascade; drop role {role}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_pod_template_leaves_the_running_pods_alone() {
    let harness = Harness::new("refused").await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    for (template, says) in [
        (
            json!({ "spec": { "containers": [{ "name": "handler", "image": "emails:2", "imagee": "x" }] } }),
            "imagee",
        ),
        (json!({ "spec": { "containers": [{ "name": "handler" }] } }), "image"),
        (
            json!({ "spec": { "containers": [{ "name": "handler", "image": "a", "env": [{ "name": "A" },
                { "name": "A" }] }] } }),
            "duplicate",
        ),
    ] {
        harness.change(&json!({ "template": template }));
        until("the template is refused", || {
            let (text, message) = harness.condition("emails", "Stalled");
            if text == "True TemplateRejected" && message.contains(says) {
                Ok(())
            } else {
                Err(format!("{text} {message}"))
            }
        })
        .await;
    }
    // Each rejection has an event with its own message; before, the first message was shown for all.
    until("the last refusal has an event", || {
        let events = harness.kubectl(&["get", "events"]);
        if events.contains("imagee") && events.contains("uplicate") { Ok(()) } else { Err(events) }
    })
    .await;
    // The message speaks of the template, which has no init container.
    let (_, message) = harness.condition("emails", "Stalled");
    assert!(message.contains("containers[name=\"handler\"]"), "{message}");
    // The running pods are still scaled.
    harness.db.enqueue_many(1000).await;
    harness.until_replicas(4).await;
    let deployment = harness.deployment();
    assert_eq!(deployment["spec"]["template"]["spec"]["initContainers"][0]["image"], "emails:1");
    let made_from = &deployment["metadata"]["annotations"]["rowlock.dev/generation"];
    assert_eq!(
        made_from, "1",
        "of a later one it would look like a change of the operator's own, which waits for a rollout slot"
    );
    let sound = json!({ "spec": { "containers": [{ "name": "handler", "image": "emails:3" }] } });
    harness.change(&json!({ "template": sound }));
    harness.until("Stalled", "False Succeeded").await;
    until("the new image is used", || {
        let image = harness.deployment()["spec"]["template"]["spec"]["initContainers"][0]["image"].clone();
        if image == "emails:3" { Ok(()) } else { Err(image.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_another_owner_gets_no_pods() {
    let harness = Harness::new("anothers").await;
    rowlock_queue::declare(&harness.db.db, &rowlock_tests::declaration("mail")).await.unwrap();
    harness.task_queue("emails", &EMAILS.replace(", autoscaling: { scaleDownAfter: 1s }", ""));
    harness.task_queue("letters", &EMAILS.replace(", autoscaling: { scaleDownAfter: 1s }", ""));
    let _operator = harness.operator().await;
    let message = harness.until("Stalled", "True OwnedByAnother").await;
    assert!(message.contains("belongs to tests"), "{message}");
    until("the second TaskQueue has no queue either", || {
        let (text, message) = harness.condition("letters", "Stalled");
        if message.contains("an older TaskQueue") { Ok(()) } else { Err(format!("{text} {message}")) }
    })
    .await;
    let replicas = harness.deployment()["spec"]["replicas"].clone();
    assert!(replicas == 0 || replicas.is_null(), "{replicas}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_and_quota_problems_appear_in_conditions() {
    let harness = Harness::new("pods").await;
    harness.task_queue("emails", &EMAILS.replace(", autoscaling: { scaleDownAfter: 1s }", ""));
    let _operator = harness.operator().await;
    harness.until_replicas(4).await;
    harness.until("Ready", "False Progressing").await;
    harness.kubectl(&["create", "serviceaccount", "default"]);
    let metadata = harness.deployment()["spec"]["template"]["metadata"]["labels"].clone();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "emails-1", "labels": metadata },
        "spec": { "containers": [{ "name": "worker", "image": "w" }] }
    });
    harness.apply(&pod.to_string());
    let status = |status: serde_json::Value| {
        let patch = json!({ "status": status }).to_string();
        harness.kubectl(&["patch", "pod", "emails-1", "--subresource=status", "--type=merge", "-p", &patch]);
    };
    let handler = |state: serde_json::Value| {
        json!({ "initContainerStatuses": [{
            "name": "handler", "image": "emails:1", "imageID": "", "ready": false, "restartCount": 4,
            "state": state,
            "lastState": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } }
        }] })
    };
    status(handler(json!({ "waiting": { "reason": "ImagePullBackOff", "message": "not found" } })));
    let message = harness.until("HandlerHealthy", "False ImageNotPulled").await;
    assert!(message.contains("`emails:1`"), "{message}");
    status(handler(json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } })));
    let message = harness.until("Ready", "False CrashLooping").await;
    assert!(message.contains("ran out of memory"), "{message}");
    // One pod is enough to see whether it recovers; it stays one while the container starts again.
    harness.until_replicas(1).await;
    status(handler(json!({ "running": {} })));
    harness.until("Ready", "False CrashLooping").await;
    status(json!({ "initContainerStatuses": [], "conditions": [{ "type": "Ready", "status": "True" }] }));
    harness.until("HandlerHealthy", "True Succeeded").await;
    harness.until("Ready", "True Succeeded").await;
    harness.until_replicas(4).await;
    let quota = json!({ "status": { "conditions": [{
        "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": "exceeded quota: pods=1"
    }] } });
    let patch = quota.to_string();
    harness.kubectl(&["patch", "deployment", "emails", "--subresource=status", "--type=merge", "-p", &patch]);
    let message = harness.until("Stalled", "True PodsRejected").await;
    assert!(message.contains("exceeded quota: pods=1"), "{message}");
}

/// No controller runs here, so the test writes the quota's status.
fn quota(harness: &Harness) {
    let hard = json!({ "limits.memory": "1Gi" });
    harness.apply(
        &json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" },
            "spec": { "hard": hard } })
        .to_string(),
    );
    let patch = json!({ "status": { "hard": hard, "used": { "limits.memory": "0" } } }).to_string();
    harness.kubectl(&["patch", "resourcequota", "q", "--subresource=status", "--type=merge", "-p", &patch]);
}

/// A pod like those of the queue's Deployment, which no watch sees.
fn pod(harness: &Harness) -> Value {
    let spec = harness.deployment()["spec"]["template"]["spec"].clone();
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": spec })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_requires_limits_is_named_with_the_chart_value_that_sets_them() {
    let harness = Harness::new("limits-asked").await;
    harness.kubectl(&["create", "serviceaccount", "default"]);
    quota(&harness);
    let limits = "image: 'emails:1', resources: { limits: { memory: 64Mi } }";
    harness.task_queue("emails", &EMAILS.replace("image: 'emails:1'", limits));
    let operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    let text = until("a pod is refused", || {
        let refusal = harness.refusal(&pod(&harness));
        refusal
            .filter(|text| text.contains("for: worker"))
            .ok_or("it is not, or for another reason".to_owned())
    })
    .await;
    let failure =
        json!({ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": text });
    let patch = json!({ "status": { "conditions": [failure] } }).to_string();
    harness.kubectl(&["patch", "deployment", "emails", "--subresource=status", "--type=merge", "-p", &patch]);
    let message = harness.until("Stalled", "True PodsRejected").await;
    assert!(message.contains("workerResources of the operator's chart"), "{message}");
    operator.stop().await;
    let limited = json!({ "limits": { "memory": "96Mi" } });
    let give = |config: &mut Config| config.worker_resources = serde_json::from_value(limited).unwrap();
    let _operator = harness.operator_with(give).await;
    until("a pod is accepted", || harness.refusal(&pod(&harness)).map_or(Ok(()), Err)).await;
}
