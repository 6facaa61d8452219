//! An operator with the rights that the chart gives, and without some of them.

use std::fs;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::stage::{EMAILS, Stage, page, until};
use rowlock_tests::{checkout, printed_command};

/// The rules of the chart's roles, in their order: cluster-wide, of a namespace, of the Lease.
fn rules_of_the_chart() -> Vec<Value> {
    let text = fs::read_to_string(checkout().join("charts/rowlock/templates/rbac.yaml")).unwrap();
    let roles = text.split("\nrules:\n").skip(1);
    // What is not plain YAML names the Lease, or comes after the rules.
    roles
        .map(|text| {
            let lines = text.lines().take_while(|line| line.starts_with("  "));
            let plain: Vec<&str> = lines.filter(|line| !line.contains("{{")).collect();
            serde_yaml::from_str(&plain.join("\n")).unwrap()
        })
        .collect()
}

/// Makes the chart's roles, and binds all but those of a namespace to a service account; its name as a user.
fn rights_of_the_chart(stage: &Stage) -> String {
    let [cluster, namespace, lease] = <[Value; 3]>::try_from(rules_of_the_chart()).unwrap();
    let own = format!("chart-cluster-{}", stage.namespace);
    let api = "rbac.authorization.k8s.io";
    let account =
        json!([{ "kind": "ServiceAccount", "name": "rowlock-operator", "namespace": stage.namespace }]);
    for (kind, name, rules) in [
        // What is cluster-wide is seen by other tests too.
        ("ClusterRole", own.as_str(), cluster),
        ("ClusterRole", "rowlock-operator-namespace", namespace),
        ("Role", "chart-lease", lease),
    ] {
        let version = format!("{api}/v1");
        let role =
            json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, "rules": rules });
        let role_ref = json!({ "apiGroup": api, "kind": kind, "name": name });
        let binding = json!({
            "apiVersion": version, "kind": format!("{kind}Binding"), "metadata": { "name": name },
            "roleRef": role_ref, "subjects": account
        });
        stage.apply(&role.to_string());
        if name != "rowlock-operator-namespace" {
            stage.apply(&binding.to_string());
        }
    }
    format!("system:serviceaccount:{}:rowlock-operator", stage.namespace)
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_are_named_with_the_command_that_gives_them() {
    let stage = Stage::new("forbidden").await;
    let user = rights_of_the_chart(&stage);
    stage.task_queue("emails", EMAILS);
    let _operator = stage.everywhere_as(&user).await.0;
    let message = stage.until("Stalled", "True Forbidden").await;
    let words = printed_command(&message, "create");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert!(words.contains(&stage.namespace.as_str()), "{message}");
    // Not the name that the chart binds by: it may be told of this namespace later.
    assert!(words.contains(&"rowlock-operator-namespace-by-hand"), "{message}");
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
    stage.kubectl(&["create", "rolebinding", "r", "--clusterrole=rowlock-operator-namespace", &account]);
    stage.task_queue("emails", EMAILS);
    let (_operator, pages) = stage.everywhere_as(&user).await;
    stage.until("Ready", "True Succeeded").await;
    let binding = stage.kubectl(&["get", "rolebinding", "chart-lease", "-o", "json"]);
    stage.kubectl(&["delete", "rolebinding", "chart-lease"]);
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
    binding["metadata"] = json!({ "name": "chart-lease" });
    stage.apply(&binding.to_string());
    stage.until_replicas(1).await;
}
