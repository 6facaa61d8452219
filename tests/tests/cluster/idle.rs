//! An idle operator sends no requests.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::cluster::{OPERATOR, cluster};
use crate::harness::{Harness, NAME, until, with_harness};
use crate::kubectl::{kubectl, leader};

const QUIET: Duration = Duration::from_mins(1);

/// After this time, a new leader has done its first writes. The last numbers are written, and so is the event
/// about the last change of the number of pods, which is held back for half a minute.
const TAKES_OVER: Duration = Duration::from_secs(35);

/// More minutes than other tests spend ending operators.
const MINUTES: usize = 5;

const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_minute_has_no_write_and_no_rejected_request() -> Result<()> {
    with_harness("quiet", async |harness| {
        let Some(own) = cluster().own() else { return Ok(()) };
        let audit = own.state.join("audit.log");
        harness.task_queue(&json!({ "workers": { "autoscaling": { "min": 4 } } }))?;
        harness.wait_ready();
        harness.enqueue(100, &json!({})).await?;
        harness.until_drained().await?;
        harness.until_condition("HandlerHealthy", "True Succeeded").await?;
        harness.until_condition("Reconciling", "False Succeeded").await?;
        harness.until_replicas(|replicas| replicas == 1).await?;
        let (before, all) = minute(harness, &audit).await?;
        let wrote: Vec<&Value> = all[before..].iter().filter(|request| is_write(request)).collect();
        ensure!(wrote.is_empty(), "{wrote:#?}");
        ensure!(0 < before, "the operator is not in the audit log");
        let refused: Vec<&Value> =
            all.iter().filter(|request| request["responseStatus"]["code"] == 403).collect();
        ensure!(refused.is_empty(), "{refused:#?}");
        Ok(())
    })
    .await
}

/// How many requests there were before an idle minute, and all requests after it. Other tests end operators
/// in the meantime, and a new leader writes every object once; then another minute is measured.
async fn minute(harness: &Harness, audit: &Path) -> Result<(usize, Vec<Value>)> {
    for _ in 0..MINUTES {
        let led = leader();
        tokio::time::sleep(TAKES_OVER).await;
        let before = requests(harness, audit)?.len();
        tokio::time::sleep(QUIET).await;
        if leader() == led {
            return Ok((before, requests(harness, audit)?));
        }
    }
    bail!("the leader changed in each of {MINUTES} minutes");
}

/// Never requested directly: the API server checks it when an object with an owner is written.
const IMPLIED: &str = "taskqueues/finalizers";

#[tokio::test(flavor = "multi_thread")]
async fn every_permission_in_the_chart_is_used() -> Result<()> {
    with_harness("rights", async |harness| {
        let Some(own) = cluster().own() else { return Ok(()) };
        harness.task_queue(&json!({ "workers": { "autoscaling": { "min": 4 } } }))?;
        harness.wait_ready();
        // Two equal events are one with a count.
        for _ in 0..2 {
            harness.kubectl(&["set", "env", &format!("deployment/{NAME}"), "-c", "worker", "THEIRS=1"]);
            until("the template is restored", || async {
                let found = json!(harness.deployment().await?).to_string();
                ensure!(!found.contains("THEIRS"), "{found}");
                Ok(())
            })
            .await?;
        }
        // Of two pods, one gets a deletion cost.
        harness.change(&json!({ "workers": { "autoscaling": { "min": 8 } } }));
        harness.until_pods(2).await?;
        harness.change(&json!({ "workers": { "autoscaling": { "min": 4 } } }));
        harness.until_replicas(|replicas| replicas == 1).await?;
        // Missing certificates are read, too.
        let ca = json!({ "kind": "ConfigMap", "name": "none" });
        let database = json!({ "secretRef": { "name": "db" }, "caRef": ca });
        let template = json!({ "spec": { "containers": [{ "name": "handler", "image": "none" }] } });
        harness.apply(&json!({ "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue",
            "metadata": { "name": "letters" },
            "spec": { "database": database, "workers": { "total": 1 }, "template": template } }))?;
        // Without a number of pods it starts with one.
        let database = json!({ "secretRef": { "name": "db" } });
        let template = json!({ "spec": { "containers": [harness.handler(&json!({}))] } });
        let workers = json!({ "total": 1, "scaling": "External" });
        harness.apply(&json!({ "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue",
            "metadata": { "name": "notes" },
            "spec": { "database": database, "workers": workers, "template": template } }))?;
        scaled_target(harness)?;
        // A missing volume: the kubelet's event about it is read after a minute.
        let volumes = json!([{ "name": "typo", "configMap": { "name": "typo" } }]);
        let mounts = json!({ "volumeMounts": [{ "name": "typo", "mountPath": "/typo" }] });
        let containers = json!([harness.handler(&mounts)]);
        harness.change(&json!({ "template": { "spec": { "containers": containers, "volumes": volumes } } }));
        until("every permission was used", || async {
            let used = used(&own.state.join("audit.log"))?;
            let unused: Vec<String> = given()?.into_iter().filter(|right| !used.contains(right)).collect();
            ensure!(unused.is_empty(), "{unused:?}");
            Ok(())
        })
        .await
    })
    .await
}

/// A Deployment of a user's own, which is scaled to zero since its queue is empty.
fn scaled_target(harness: &Harness) -> Result<()> {
    let (name, labels) = ("shop", json!({ "rowlock.dev/task-queue": "orders" }));
    let worker =
        json!({ "name": "worker", "image": "none", "env": [{ "name": "ROWLOCK_QUEUE", "value": "orders" }] });
    harness.apply(&json!({ "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": name, "labels": labels },
        "spec": { "replicas": 1, "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [worker] } } } }))?;
    harness.apply(&json!({ "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue",
        "metadata": { "name": "orders" },
        "spec": { "database": { "secretRef": { "name": "db" } }, "targetRef": { "name": name },
            "handler": { "http": { "port": 8080 } },
            "workers": { "total": 4, "autoscaling": { "min": 0 } } } }))
}

/// The rules of the chart's roles, each as `verb resource`.
fn given() -> Result<Vec<String>> {
    let mut rights = Vec::new();
    let roles =
        ["get", "clusterroles,roles", "-A", "-o", "json", "-l", "app.kubernetes.io/name=rowlock-operator"];
    let roles: Value = serde_json::from_str(&kubectl(&roles))?;
    for rule in
        roles["items"].as_array().into_iter().flatten().filter_map(|role| role["rules"].as_array()).flatten()
    {
        let words = |field: &str| rule[field].as_array().cloned().unwrap_or_default();
        for (verb, resource) in
            words("verbs").iter().flat_map(|verb| words("resources").into_iter().map(move |one| (verb, one)))
        {
            rights.push(format!(
                "{} {}",
                verb.as_str().unwrap_or_default(),
                resource.as_str().unwrap_or_default()
            ));
        }
    }
    rights.retain(|right| !right.ends_with(IMPLIED));
    ensure!(10 < rights.len(), "{rights:?}");
    Ok(rights)
}

/// The requests of the operator that were allowed so far.
fn used(audit: &Path) -> Result<HashSet<String>> {
    let mut used = HashSet::new();
    for request in operators(audit, "")? {
        let object = &request["objectRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let subresource = object["subresource"].as_str().map(|name| format!("/{name}")).unwrap_or_default();
        let resource = format!("{}{subresource}", text(&object["resource"]));
        used.insert(format!("{} {resource}", text(&request["verb"])));
        // An apply that created an object needed the verb create, too.
        if request["responseStatus"]["code"] == 201 {
            used.insert(format!("create {resource}"));
        }
    }
    Ok(used)
}

/// The operator's requests in the namespace.
fn requests(harness: &Harness, audit: &Path) -> Result<Vec<Value>> {
    let all = operators(audit, &harness.namespace)?;
    Ok(all.into_iter().filter(|request| request["objectRef"]["namespace"] == harness.namespace).collect())
}

/// The operator's requests in audit lines with this text.
fn operators(audit: &Path, word: &str) -> Result<Vec<Value>> {
    let user = format!("system:serviceaccount:{OPERATOR}:rowlock-operator");
    let mut found = Vec::new();
    for line in BufReader::new(File::open(audit)?).lines() {
        let line = line?;
        if line.contains(&user) && line.contains(word) {
            // The last line may be incomplete.
            found.extend(serde_json::from_str::<Value>(&line));
        }
    }
    Ok(found)
}

fn is_write(request: &Value) -> bool {
    request["verb"].as_str().is_some_and(|verb| WRITES.contains(&verb))
}
