//! An operator with the rights that the chart gives, and without some of them.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use rowlock_tests::printed_command;

use super::stage::{EMAILS, Stage, page, until};
use crate::helm::objects_in;

/// Makes the chart's roles, as released into the namespace, and binds all but those of a namespace to a service account; its name as a user.
fn rights_of_the_chart(stage: &Stage) -> String {
    let objects = tokio::task::block_in_place(|| objects_in(&stage.namespace, "{}"));
    for object in objects.iter().filter(|one| one["apiVersion"] == "rbac.authorization.k8s.io/v1") {
        let lease = object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with("-lease"));
        if object["kind"] != "RoleBinding" || lease {
            stage.apply(&object.to_string());
        }
    }
    format!("system:serviceaccount:{}:rowlock-operator", stage.namespace)
}

/// The chart's role in a namespace.
fn role(stage: &Stage) -> String {
    format!("rowlock-operator-{}-namespace", stage.namespace)
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_are_named_with_the_command_that_gives_them() {
    let stage = Stage::new("forbidden").await;
    let user = rights_of_the_chart(&stage);
    stage.task_queue("emails", EMAILS);
    let role = role(&stage);
    let _operator = stage.everywhere_as(&user, &role).await.0;
    let message = stage.until("Stalled", "True Forbidden").await;
    let words = printed_command(&message, "create");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert!(words.contains(&stage.namespace.as_str()), "{message}");
    // Not the name that the chart binds by: it may be told of this namespace later.
    assert!(words.contains(&format!("{role}-by-hand").as_str()), "{message}");
    stage.kubectl(&words);
    stage.until("Ready", "True Succeeded").await;
    assert_eq!(stage.get("pdb", "emails")["spec"]["maxUnavailable"], "25%");
    // The other verbs it has.
    stage.kubectl(&["set", "env", "deployment/emails", "-c", "worker", "THEIRS=1"]);
    until("the template is restored", || {
        let events = stage.kubectl(&["get", "events"]);
        if events.contains("TemplateRestored") { Ok(()) } else { Err(events) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_renew_its_lease_stops_writing_before_another_may_begin() {
    let stage = Stage::new("fenced").await;
    let user = rights_of_the_chart(&stage);
    let account = format!("--serviceaccount={}:rowlock-operator", stage.namespace);
    let role = role(&stage);
    stage.kubectl(&["create", "rolebinding", "r", &format!("--clusterrole={role}"), &account]);
    stage.task_queue("emails", EMAILS);
    let (_operator, pages) = stage.everywhere_as(&user, &role).await;
    stage.until("Ready", "True Succeeded").await;
    let binding = stage.kubectl(&["get", "rolebinding", "rowlock-operator-lease", "-o", "json"]);
    stage.kubectl(&["delete", "rolebinding", "rowlock-operator-lease"]);
    let leads = |expected: u8| {
        let line = format!("rowlock_operator_leader {expected}\n");
        move || if page(pages, "/metrics").contains(&line) { Ok(()) } else { Err("not yet".to_owned()) }
    };
    until("it does not lead any more", leads(0)).await;
    // As far as others know it has the Lease still; they wait for its whole duration.
    let renewed = stage.get("lease", "rowlock-operator")["spec"]["renewTime"].as_str().unwrap().to_owned();
    let since = Timestamp::now().duration_since(renewed.parse().unwrap());
    assert!(since < SignedDuration::from_secs(15), "{since:?}");
    let before = stage.deployment();
    stage.change(&json!({ "workers": { "autoscaling": { "min": 5 } } }));
    // Several looks; there is no event for what does not happen.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(stage.deployment()["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    let mut binding: Value = serde_json::from_str(&binding).unwrap();
    binding["metadata"] = json!({ "name": "rowlock-operator-lease" });
    stage.apply(&binding.to_string());
    stage.until_replicas(1).await;
}

/// Before, the operator of one namespace needed rights in the whole cluster.
#[tokio::test(flavor = "multi_thread")]
async fn one_namespace_alone_needs_no_rights_in_the_cluster() {
    let stage = Stage::new("roles-alone").await;
    let values = format!("namespace: {}", stage.namespace);
    let objects = tokio::task::block_in_place(|| objects_in(&stage.namespace, &values));
    for object in objects.iter().filter(|one| one["apiVersion"] == "rbac.authorization.k8s.io/v1") {
        assert_eq!(object["metadata"]["namespace"], stage.namespace.as_str(), "{object}");
        stage.apply(&object.to_string());
    }
    let user = format!("system:serviceaccount:{}:rowlock-operator", stage.namespace);
    stage.task_queue("emails", EMAILS);
    let role = role(&stage);
    let _operator = stage.operator_as(&user, |config| config.cluster_role.clone_from(&role)).await;
    stage.until("Ready", "True Succeeded").await;
    // The cluster's number is not for it to know.
    let namespace: Value =
        serde_json::from_str(&stage.kubectl(&["get", "ns", &stage.namespace, "-o", "json"])).unwrap();
    let uid = namespace["metadata"]["uid"].as_str().unwrap();
    let owner: String = stage.db.one("select owner from rowlock.queue where name = 'mail'").await;
    assert_eq!(owner, format!("{uid}/{}/emails", stage.namespace));
}
