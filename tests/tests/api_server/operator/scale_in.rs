//! A scale-in: the operator chooses the pods that go, before it lowers the number. The tests create pods as a
//! `ReplicaSet` does, write their status as a kubelet does, and delete them as Kubernetes does.

use std::net::SocketAddr;
use std::time::Duration;

use rowlock_queue::join_in_pod;
use rowlock_tests::TestInstance;
use serde_json::{Value, json};

use super::harness::{EMAILS, Harness, Running, page, until, until_async};
use super::target;

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The lowest deletion cost.
const LOWEST: &str = "-2147483648";

const SCALING: &str = "scaling: External, replicas: 4";

/// Four ready pods of a queue that others scale, each with an instance. Those of `busy` run a task.
async fn four_pods(name: &str, busy: &[&str]) -> (Harness, Running, SocketAddr) {
    let harness = Harness::new(name).await;
    harness.task_queue("emails", &EMAILS.replace("autoscaling: { scaleDownAfter: 1s }", SCALING));
    let (operator, pages) = harness.operator_with_pages().await;
    harness.until_replicas(4).await;
    add_pods(&harness, "emails", &PODS, busy).await;
    (harness, operator, pages)
}

const PODS: [&str; 4] = ["a", "b", "c", "d"];

async fn add_pods(harness: &Harness, deployment: &str, pods: &[&str], busy: &[&str]) {
    harness.kubectl(&["create", "serviceaccount", "default"]);
    for pod in pods {
        add_pod(harness, deployment, pod, busy.contains(pod)).await;
    }
}

async fn add_pod(harness: &Harness, deployment: &str, name: &str, is_busy: bool) {
    let template = harness.get("deployment", deployment)["spec"]["template"].clone();
    let mut labels = template["metadata"]["labels"].clone();
    labels["pod-template-hash"] = json!("7d9f");
    let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{deployment}-7d9f"),
        "uid": "r1", "controller": true });
    let metadata = json!({ "name": name, "labels": labels, "ownerReferences": [owner] });
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] });
    harness.apply(&pod.to_string());
    let uid = harness.kubectl(&["get", "pod", name, "-o", "jsonpath={.metadata.uid}"]);
    let db = &harness.db.db;
    let joined = join_in_pod(db, "mail", name, 10, Some(&uid)).await.unwrap();
    if is_busy {
        let watermarks = joined.watermarks.clone();
        harness.db.enqueue().await;
        let mut instance = TestInstance { db: db.clone(), joined, watermarks };
        assert_eq!(instance.claim(1).await.tasks.len(), 1);
    }
    let ready = json!([{ "type": "Ready", "status": "True" }]);
    let patch = json!({ "status": { "phase": "Running", "conditions": ready } }).to_string();
    harness.kubectl(&["patch", "pod", name, "--subresource=status", "--type=merge", "-p", &patch]);
}

fn pods(harness: &Harness) -> Vec<Value> {
    let list = harness.kubectl(&["get", "pods", "-o", "json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    list["items"].as_array().cloned().unwrap_or_default()
}

/// The pods with a deletion cost.
fn costs(harness: &Harness) -> Vec<(String, String)> {
    let cost = |pod: &Value| {
        let metadata = &pod["metadata"];
        let cost = metadata["annotations"][COST].as_str()?;
        Some((metadata["name"].as_str().unwrap_or_default().to_owned(), cost.to_owned()))
    };
    pods(harness).iter().filter_map(cost).collect()
}

fn lowest(names: &[&str]) -> Vec<(String, String)> {
    names.iter().map(|name| ((*name).to_owned(), LOWEST.to_owned())).collect()
}

/// The marked instances, by name.
async fn marked(harness: &Harness) -> String {
    let names = "select coalesce(string_agg(name, ' ' order by name), '') from rowlock.instance \
                 where drain_until > now()";
    harness.db.one(names).await
}

/// Waits until the operator has counted that many chosen pods and others that went.
async fn until_counted(harness: &Harness, pages: SocketAddr, chosen: u32, others: u32) {
    let line = |chosen: bool, number: u32| {
        format!(
            "rowlock_operator_scale_in_pods_total{{chosen=\"{chosen}\",namespace=\"{}\",queue=\"mail\"}} \
             {number}\n",
            harness.namespace
        )
    };
    until("the pods that went are counted", || {
        let metrics = page(pages, "/metrics");
        let counted = metrics.contains(&line(true, chosen)) && metrics.contains(&line(false, others));
        if counted { Ok(()) } else { Err(metrics) }
    })
    .await;
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap()
}

fn delete(harness: &Harness, pod: &str) {
    harness.kubectl(&["delete", "pod", pod, "--force", "--grace-period=0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_pods_are_marked_and_get_the_lowest_cost_before_the_number_falls() {
    let (harness, _operator, pages) = four_pods("scale-in", &["a", "c"]).await;
    until_counted(&harness, pages, 0, 0).await;
    harness.change(&json!({ "workers": { "replicas": 2 } }));
    harness.until_replicas(2).await;
    assert_eq!(costs(&harness), lowest(&["b", "d"]));
    assert_eq!(marked(&harness).await, "b d");
    // Versions count the writes of the whole API server.
    let lowered = version(&harness.deployment());
    for pod in pods(&harness) {
        assert!(version(&pod) < lowered, "{pod}");
    }
    delete(&harness, "b");
    delete(&harness, "d");
    until_counted(&harness, pages, 2, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_went_instead_of_the_chosen_ones_are_counted() {
    let (harness, _operator, pages) = four_pods("scale-in-others", &["a", "c"]).await;
    harness.change(&json!({ "workers": { "replicas": 2 } }));
    harness.until_replicas(2).await;
    delete(&harness, "a");
    delete(&harness, "b");
    until_counted(&harness, pages, 1, 1).await;
    // The chosen one that stays runs tasks again.
    until_async("its mark and its cost are removed", || async {
        let (marked, costs) = (marked(&harness).await, costs(&harness));
        if marked.is_empty() && costs.is_empty() { Ok(()) } else { Err(format!("{marked} {costs:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reversal_removes_marks_and_costs() {
    // Of busy pods, the scale-in waits until the chosen ones have finished, or for a few seconds.
    let (harness, _operator, pages) = four_pods("scale-in-undone", &["a", "b", "c", "d"]).await;
    let before = |pod: &str| harness.kubectl(&["annotate", "pod", pod, &format!("{COST}=7")]);
    before("a");
    before("b");
    harness.change(&json!({ "workers": { "replicas": 2 } }));
    until("two pods have the lowest cost", || {
        let costs = costs(&harness);
        let lowest = costs.iter().filter(|(_, cost)| cost == LOWEST).count();
        if lowest == 2 { Ok(()) } else { Err(format!("{costs:?}")) }
    })
    .await;
    harness.change(&json!({ "workers": { "replicas": 4 } }));
    let theirs = [("a".to_owned(), "7".to_owned()), ("b".to_owned(), "7".to_owned())];
    until_async("marks and costs are as before", || async {
        let (marked, costs) = (marked(&harness).await, costs(&harness));
        if marked.is_empty() && costs == theirs { Ok(()) } else { Err(format!("{marked} {costs:?}")) }
    })
    .await;
    harness.until_replicas(4).await;
    until_counted(&harness, pages, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pods_are_chosen_during_a_rollout() {
    let (harness, _operator, _) = four_pods("scale-in-rollout", &["a", "c"]).await;
    let rollout = |updated: u32| {
        let status = json!({ "observedGeneration": 1000, "replicas": 4, "updatedReplicas": updated });
        let patch = json!({ "status": status }).to_string();
        let args = ["patch", "deployment", "emails", "--subresource=status", "--type=merge", "-p", &patch];
        harness.kubectl(&args);
    };
    rollout(2);
    until("the operator has seen the rollout", || {
        let pods = harness.get("tq", "emails")["status"]["pods"].clone();
        if pods == 4 { Ok(()) } else { Err(pods.to_string()) }
    })
    .await;
    harness.change(&json!({ "workers": { "replicas": 2 } }));
    // Several passes; an absent change has no event to await.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(harness.deployment()["spec"]["replicas"], 4);
    assert_eq!((costs(&harness), marked(&harness).await), (vec![], String::new()));
    rollout(4);
    harness.until_replicas(2).await;
    assert_eq!(costs(&harness), lowest(&["b", "d"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scale_to_zero_needs_no_choice() {
    let (harness, _operator, _) = four_pods("scale-in-zero", &["a", "c"]).await;
    harness.change(&json!({ "workers": { "replicas": 0 } }));
    harness.until_replicas(0).await;
    assert_eq!((costs(&harness), marked(&harness).await), (vec![], String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_of_a_users_own_deployment_are_chosen_too() {
    let harness = Harness::new("scale-in-target").await;
    harness.apply(&target::shop("shop").to_string());
    harness.add_sidecar();
    harness.task_queue("emails", &target::spec().replace("autoscaling: { scaleDownAfter: 1s }", SCALING));
    let (_operator, pages) = harness.operator_with_pages().await;
    harness.until_replicas_of("shop", 4).await;
    add_pods(&harness, "shop", &PODS, &["a", "c"]).await;
    harness.change(&json!({ "workers": { "replicas": 2 } }));
    harness.until_replicas_of("shop", 2).await;
    assert_eq!(costs(&harness), lowest(&["b", "d"]));
    assert_eq!(marked(&harness).await, "b d");
    delete(&harness, "b");
    delete(&harness, "d");
    until_counted(&harness, pages, 2, 0).await;
}

/// Refuses the deletion cost of five pods, as a webhook might.
const POLICY: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: { name: scale-in-refused }
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - { apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE", "UPDATE"], resources: ["pods"] }
  validations:
    - expression: >-
        !(object.metadata.name in ["c", "d", "e", "f", "g", "probe"]) || !has(object.metadata.annotations)
        || !("controller.kubernetes.io/pod-deletion-cost" in object.metadata.annotations)
      message: "no deletion costs here"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: { name: scale-in-refused }
spec:
  policyName: scale-in-refused
  validationActions: ["Deny"]
  matchResources:
    namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: NAMESPACE } }
"#;

/// The operator writes eight costs at a time. Before the fix, a refusal among them skipped all others.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_refuses_its_cost_does_not_keep_others_from_theirs() {
    let harness = Harness::new("scale-in-refused").await;
    let spec = EMAILS
        .replace("total: 40, perPod: 10", "total: 12, perPod: 1")
        .replace("autoscaling: { scaleDownAfter: 1s }", "scaling: External, replicas: 12");
    harness.task_queue("emails", &spec);
    let (_operator, _) = harness.operator_with_pages().await;
    harness.until_replicas(12).await;
    let pods = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    // A busy pod stays.
    add_pods(&harness, "emails", &pods, &["a", "b"]).await;
    harness.apply(&POLICY.replace("NAMESPACE", &harness.namespace));
    let metadata = json!({ "name": "probe", "annotations": { COST: "7" } });
    let containers = json!([{ "name": "c", "image": "i" }]);
    let probe = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": { "containers": containers } });
    until("the policy is active", || harness.refusal(&probe).ok_or_else(|| "it is not".to_owned())).await;
    harness.change(&json!({ "workers": { "replicas": 2 } }));
    until("the others have their costs", || {
        let costs = costs(&harness);
        if costs == lowest(&["h", "i", "j", "k", "l"]) { Ok(()) } else { Err(format!("{costs:?}")) }
    })
    .await;
    harness.until_replicas(2).await;
    for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
        harness.kubectl(&["delete", kind, "scale-in-refused"]);
    }
}
