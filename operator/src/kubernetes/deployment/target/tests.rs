//! What is said about a Deployment that does not fit, and what is kept of it.

use rowlock_crds::{ConditionReason as Reason, Manifest, TaskQueueSpec};
use serde_json::{Value, json};

use super::*;

fn manifest() -> Manifest {
    let spec = "
        queueName: mail
        database: { secretRef: { name: db } }
        workers: { total: 40 }
        targetRef: { name: shop }
    ";
    let spec: TaskQueueSpec = serde_yaml::from_str(spec).unwrap();
    Manifest::new("emails", spec)
}

/// A Deployment with what `rowlock sidecar` prints, and with this change.
fn target(change: impl FnOnce(&mut Value)) -> Deployment {
    let mut target = worker_sidecar(&manifest(), "worker:1").unwrap();
    target["spec"]["selector"] = json!({});
    target["spec"]["template"]["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({ "name": "shop", "env": [{ "name": "PASSWORD", "value": "secret" }] }));
    change(&mut target);
    serde_json::from_value(target).unwrap()
}

/// Sets a variable of the worker; null removes it.
fn set(target: &mut Value, name: &str, value: &Value) {
    let all = target["spec"]["template"]["spec"]["containers"][1]["env"].as_array_mut().unwrap();
    all.retain(|one| one["name"] != name);
    if !value.is_null() {
        all.push(json!({ "name": name, "value": value }));
    }
}

fn pod(target: &mut Value) -> &mut Value {
    &mut target["spec"]["template"]["spec"]
}

#[test]
fn a_deployment_with_the_printed_sidecar_fits() {
    assert_eq!(check(&target(|_| ()), &manifest()), Outcome::Done);
    // As a native sidecar, with a longer grace period, and with a value that is elsewhere.
    let other = target(|target| {
        pod(target)["terminationGracePeriodSeconds"] = 600.into();
        set(target, "ROWLOCK_DRAIN_GRACE", &"60s".into());
        let worker = pod(target)["containers"].as_array_mut().unwrap().remove(1);
        pod(target)["initContainers"] = json!([worker]);
        let all = pod(target)["initContainers"][0]["env"].as_array_mut().unwrap();
        all.retain(|one| one["name"] != "ROWLOCK_SLOTS");
        let elsewhere = json!({ "configMapKeyRef": { "name": "c", "key": "slots" } });
        all.push(json!({ "name": "ROWLOCK_SLOTS", "valueFrom": elsewhere }));
    });
    assert_eq!(check(&other, &manifest()), Outcome::Done);
}

#[test]
fn a_deployment_whose_pods_run_no_task_of_the_queue_is_not_scaled() {
    type Change = fn(&mut Value);
    let table: [(Change, &str); 5] = [
        (
            |target| target["spec"]["template"]["metadata"] = json!({ "labels": { "app": "shop" } }),
            "has pods without the label rowlock.dev/task-queue=emails",
        ),
        (
            |target| drop(pod(target)["containers"].as_array_mut().unwrap().pop()),
            "has no container `worker` with Rowlock's worker",
        ),
        (
            |target| pod(target)["containers"][1]["name"] = "rowlock".into(),
            "has its worker in the container `rowlock`: rename that container to `worker`",
        ),
        (|target| set(target, "ROWLOCK_QUEUE", &"`x`".into()), "has a worker of the queue `'x'`"),
        (
            |target| set(target, "ROWLOCK_QUEUE", &Value::Null),
            "has a container `worker` without the variable ROWLOCK_QUEUE: set it to mail",
        ),
    ];
    for (change, says) in table {
        match check(&target(change), &manifest()) {
            Outcome::Unsuitable(Reason::TargetInvalid, message) => {
                assert!(
                    message.starts_with("the Deployment `shop` has ") && message.contains(says),
                    "{message}"
                );
            }
            other => panic!("{says}: {other:?}"),
        }
    }
}

#[test]
fn a_deployment_whose_pods_differ_is_scaled_and_says_what_to_change() {
    let other = target(|target| {
        set(target, "ROWLOCK_SLOTS", &"5".into());
        set(target, "ROWLOCK_HANDLER_URL", &Value::Null);
        pod(target)["terminationGracePeriodSeconds"] = Value::Null;
        pod(target)["shareProcessNamespace"] = true.into();
    });
    let Outcome::Mismatch(message) = check(&other, &manifest()) else { panic!("it differs") };
    for says in [
        "has ROWLOCK_SLOTS=5 in the container `worker`: set it to 10",
        "lacks ROWLOCK_HANDLER_URL in the container `worker`: set it to http://127.0.0.1:8080/tasks",
        "a terminationGracePeriodSeconds of 30, which cuts tasks short: set it to 65",
        "has shareProcessNamespace",
    ] {
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn a_deployment_of_somebody_else_is_not_scaled() {
    let of_another = target(|target| target["metadata"]["labels"][labels::TASK_QUEUE] = "orders".into());
    let controlled = target(|target| {
        target["metadata"]["ownerReferences"] = json!([
            { "apiVersion": "v1", "kind": "Other", "name": "harmless", "uid": "u" },
            { "apiVersion": "x/v1", "kind": "Shop", "name": "shop", "uid": "u", "controller": true },
        ]);
    });
    for (target, says) in [
        (of_another, "has the label rowlock.dev/task-queue=orders, so that TaskQueue scales it"),
        (controlled, "belongs to the Shop `shop`, which controls it"),
    ] {
        assert!(!may_scale(&target.metadata, "emails"));
        let Outcome::Foreign(message) = check(&target, &manifest()) else { panic!("it is another's") };
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn a_target_that_the_watch_does_not_show_is_missing_or_lacks_its_label() {
    let none = unseen(None, "shop", "emails");
    assert!(matches!(&none, Outcome::Unsuitable(Reason::TargetNotFound, _)), "{none:?}");
    let bare = unseen(Some(&Metadata::default()), "shop", "emails");
    assert!(matches!(&bare, Outcome::Unsuitable(Reason::TargetInvalid, _)), "{bare:?}");
    let labelled = target(|_| ()).metadata;
    assert!(matches!(unseen(Some(&labelled), "shop", "emails"), Outcome::Waiting(_)));
}

/// Variables of other containers may hold passwords, and so may the worker's.
#[test]
fn only_the_variables_that_are_compared_are_kept_in_memory() {
    let kept = target(|target| {
        target["spec"]["template"]["metadata"]["labels"]["app"] = "shop".into();
        set(target, "ROWLOCK_DATABASE_URL", &"postgres://shop:secret@db/shop".into());
    });
    let template = json!(kept.spec.unwrap().template.unwrap());
    assert!(!template.to_string().contains("secret"), "{template}");
    assert_eq!(template["metadata"]["labels"], json!({ (labels::TASK_QUEUE): "emails" }));
    assert_eq!(template["spec"]["containers"][0], json!({ "name": "shop", "env": [] }));
}
