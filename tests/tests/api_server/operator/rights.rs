//! An operator with the chart's permissions, and without some of them.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use rowlock_tests::printed_command;

use super::faulty_api_server::Mode;
use super::harness::{EMAILS, Harness, page, until};
use crate::helm::objects_in;

/// Creates the chart's roles for a release in the namespace and binds all but the namespaced ones to a
/// service account. Returns its user name.
pub(super) fn rights_of_the_chart(harness: &Harness) -> String {
    let objects = tokio::task::block_in_place(|| objects_in(&harness.namespace, "{}"));
    for object in objects.iter().filter(|one| one["apiVersion"] == "rbac.authorization.k8s.io/v1") {
        let lease = object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with("-lease"));
        if object["kind"] != "RoleBinding" || lease {
            harness.apply(&object.to_string());
        }
    }
    format!("system:serviceaccount:{}:rowlock-operator", harness.namespace)
}

/// The chart's role in a namespace.
fn role(harness: &Harness) -> String {
    format!("rowlock-operator-{}-namespace", harness.namespace)
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_permissions_are_named_with_the_command_that_grants_them() {
    let harness = Harness::new("forbidden").await;
    let user = rights_of_the_chart(&harness);
    harness.task_queue("emails", EMAILS);
    let role = role(&harness);
    let _operator = harness.everywhere_as(&user, &role).await.0;
    let message = harness.until("Stalled", "True Forbidden").await;
    let words = printed_command(&message, "create");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert!(words.contains(&harness.namespace.as_str()), "{message}");
    // Not the name of the chart's own binding: this namespace may be added to the chart later.
    assert!(words.contains(&format!("{role}-by-hand").as_str()), "{message}");
    harness.kubectl(&words);
    harness.until("Ready", "True Succeeded").await;
    assert_eq!(harness.get("pdb", "emails")["spec"]["maxUnavailable"], "25%");
    // It has the other verbs.
    harness.kubectl(&["set", "env", "deployment/emails", "-c", "worker", "THEIRS=1"]);
    until("the template is restored", || {
        let events = harness.kubectl(&["get", "events"]);
        if events.contains("TemplateRestored") { Ok(()) } else { Err(events) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_renew_its_lease_stops_writing_before_another_may_begin() {
    let harness = Harness::new("fenced").await;
    let user = rights_of_the_chart(&harness);
    let account = format!("--serviceaccount={}:rowlock-operator", harness.namespace);
    let role = role(&harness);
    harness.kubectl(&["create", "rolebinding", "r", &format!("--clusterrole={role}"), &account]);
    harness.task_queue("emails", EMAILS);
    let (_operator, pages) = harness.everywhere_as(&user, &role).await;
    harness.until("Ready", "True Succeeded").await;
    let binding = harness.kubectl(&["get", "rolebinding", "rowlock-operator-lease", "-o", "json"]);
    harness.kubectl(&["delete", "rolebinding", "rowlock-operator-lease"]);
    let leads = |expected: u8| {
        let line = format!("rowlock_operator_leader {expected}\n");
        move || if page(pages, "/metrics").contains(&line) { Ok(()) } else { Err("not yet".to_owned()) }
    };
    until("it does not lead any more", leads(0)).await;
    // For the others it still holds the Lease; they wait for its whole duration.
    let renewed = harness.get("lease", "rowlock-operator")["spec"]["renewTime"].as_str().unwrap().to_owned();
    let since = Timestamp::now().duration_since(renewed.parse().unwrap());
    assert!(since < SignedDuration::from_secs(15), "{since:?}");
    let before = harness.deployment();
    harness.change(&json!({ "workers": { "autoscaling": { "min": 5 } } }));
    // Several polls; an absent write has no event to await.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(harness.deployment()["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    let mut binding: Value = serde_json::from_str(&binding).unwrap();
    binding["metadata"] = json!({ "name": "rowlock-operator-lease" });
    harness.apply(&binding.to_string());
    harness.until_replicas(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_in_all_namespaces_may_be_taken_away() {
    let harness = Harness::new("taken-away").await;
    let (user, role) = (rights_of_the_chart(&harness), role(&harness));
    let account = format!("--serviceaccount={}:rowlock-operator", harness.namespace);
    let role_flag = format!("--clusterrole={role}");
    harness.kubectl(&["create", "clusterrolebinding", &role, &role_flag, &account]);
    harness.kubectl(&["create", "rolebinding", "r", &role_flag, &account]);
    harness.task_queue("emails", EMAILS);
    // Its pages are served while the API server is slow to say what it may watch.
    let (faults, _operator, pages) = harness.everywhere_with_faults(&user, &role, Mode::Silent).await;
    until("it is alive", || {
        let answer = page(pages, "/healthz");
        if answer.contains("HTTP/1.1 200 OK") { Ok(()) } else { Err(answer) }
    })
    .await;
    faults.set(Mode::Calm);
    harness.until("Ready", "True Succeeded").await;
    let one = format!("/api/v1/namespaces/{}/pods", harness.namespace);
    assert!(faults.has_watched("/api/v1/pods") && !faults.has_watched(&one));
    harness.kubectl(&["delete", "clusterrolebinding", &role]);
    faults.set(Mode::Expired);
    faults.wait_for_refusals(1).await;
    faults.set(Mode::Calm);
    until("it watches the namespace", || {
        if faults.has_watched(&one) { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    harness.db.enqueue_many(1000).await;
    harness.until_replicas(4).await;
    harness.scale(1).await;
    harness.until_replicas(4).await;
    harness.until("Stalled", "False Succeeded").await;
}

/// Before the fix, the operator of one namespace needed permissions in the whole cluster.
#[tokio::test(flavor = "multi_thread")]
async fn with_one_namespace_no_cluster_permissions_are_needed() {
    let harness = Harness::new("roles-alone").await;
    let values = format!("namespace: {}", harness.namespace);
    let objects = tokio::task::block_in_place(|| objects_in(&harness.namespace, &values));
    for object in objects.iter().filter(|one| one["apiVersion"] == "rbac.authorization.k8s.io/v1") {
        assert_eq!(object["metadata"]["namespace"], harness.namespace.as_str(), "{object}");
        harness.apply(&object.to_string());
    }
    let user = format!("system:serviceaccount:{}:rowlock-operator", harness.namespace);
    harness.task_queue("emails", EMAILS);
    let role = role(&harness);
    let _operator = harness.operator_as(&user, |config| config.cluster_role.clone_from(&role)).await;
    harness.until("Ready", "True Succeeded").await;
    // It may not read the uid of `kube-system`, so the namespace's uid identifies the owner.
    let namespace: Value =
        serde_json::from_str(&harness.kubectl(&["get", "ns", &harness.namespace, "-o", "json"])).unwrap();
    let uid = namespace["metadata"]["uid"].as_str().unwrap();
    let owner: String = harness.db.one("select owner from rowlock.queue where name = 'mail'").await;
    assert_eq!(owner, format!("{uid}/{}/emails", harness.namespace));
}
