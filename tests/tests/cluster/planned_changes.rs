//! Planned changes of every kind while tasks run interrupt no task, and no alert fires. The test runs alone,
//! as a drained node and an upgraded operator affect every namespace.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use rowlock_tests::checkout;
use rowlock_tests::history::Demands;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cluster::{OPERATOR, cluster};
use crate::harness::{Harness, NAME, TIMEOUT, exclusively};
use crate::kubectl::{helm, kubectl};
use crate::prometheus::Monitoring;

/// A task takes one of these.
const MILLIS: [u32; 4] = [500, 1000, 1500, 2000];

/// The backlog at any time, so that every slot is always busy.
const WAITING: i64 = 120;

/// How many tasks complete between two changes.
const BETWEEN: i64 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn planned_changes_interrupt_no_task_and_use_no_attempt() -> Result<()> {
    exclusively("changes", test).await
}

async fn test(harness: &Harness) -> Result<()> {
    harness.task_queue(&json!({ "workers": { "total": 16, "perPod": 8 } }))?;
    harness.wait_ready();
    let monitoring = Monitoring::start(harness).await?;
    let stop = CancellationToken::new();
    let (fed, changed) = tokio::join!(feed(harness, &stop), async {
        let changed = change(harness).await;
        stop.cancel();
        changed
    });
    changed?;
    fed?;
    harness.until_drained().await?;
    if let Some(monitoring) = monitoring {
        monitoring.was_silent().await?;
    }
    let summary = harness.check(Demands { drained: true, undisturbed: true }).await?;
    ensure!((summary.failures, summary.rescued_instances) == (0, 0), "{summary}");
    Ok(())
}

/// Enqueues until it is stopped.
async fn feed(harness: &Harness, stop: &CancellationToken) -> Result<()> {
    while !stop.is_cancelled() {
        if harness.open().await? < WAITING {
            for millis in MILLIS {
                harness.enqueue(60, &json!({ "ms": millis })).await?;
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

async fn change(harness: &Harness) -> Result<()> {
    harness.until_pods(2).await?;
    step(harness, "workers.total").await?;
    harness.change(&json!({ "workers": { "total": 32 } }));
    harness.until_pods(4).await?;
    step(harness, "workers.perPod").await?;
    harness.change(&json!({ "workers": { "perPod": 16 } }));
    rolled_out(harness, "ROWLOCK_SLOTS", "16").await?;
    harness.until_replicas(|replicas| replicas == 2).await?;
    step(harness, "a new image").await?;
    let new = harness.handler(&json!({ "image": format!("{}rowlock-handler:2", cluster().images) }));
    harness.change(&json!({ "template": { "spec": { "containers": [new] } } }));
    rolled_out(harness, "handler", ":2").await?;
    step(harness, "a restart").await?;
    let deployment = format!("deployment/{NAME}");
    harness.kubectl(&["rollout", "restart", &deployment]);
    harness.kubectl(&["rollout", "status", &deployment, "--timeout=180s"]);
    step(harness, "a pod is deleted").await?;
    let pod = harness.until_pods(2).await?.first().context("a pod")?.name_any();
    harness.kubectl(&["delete", "pod", &pod, "--timeout=120s"]);
    harness.until_pods(2).await?;
    step(harness, "a node is drained").await?;
    drain(harness).await?;
    step(harness, "the operator is upgraded").await?;
    // Both replicas are replaced.
    let annotation = format!("podAnnotations.upgraded=\"{}\"", std::process::id());
    tokio::task::spawn_blocking(move || upgrade(&["--set-string", &annotation])).await?;
    step(harness, "fewer workers").await?;
    harness.change(&json!({ "workers": { "total": 16 } }));
    harness.until_replicas(|replicas| replicas == 1).await?;
    step(harness, "the end").await
}

/// Some tasks complete in between, so that each change affects other tasks.
async fn step(harness: &Harness, what: &str) -> Result<()> {
    let done = harness.completed().await?;
    eprintln!("changes: {done} done; next: {what}");
    harness.until_completed(done + BETWEEN).await
}

/// Waits until the operator has written this into the template and all pods are up to date.
async fn rolled_out(harness: &Harness, name: &str, value: &str) -> Result<()> {
    crate::harness::until("the template has changed", || async {
        let template = serde_json::to_string(&harness.deployment().await?.context("a Deployment")?.spec)?;
        let found = template.contains(value) && template.contains(name);
        ensure!(found && template.contains(&format!("{value}\"")), "{template}");
        Ok(())
    })
    .await?;
    let timeout = format!("--timeout={}s", TIMEOUT.as_secs());
    harness.kubectl(&["rollout", "status", &format!("deployment/{NAME}"), &timeout]);
    Ok(())
}

async fn drain(harness: &Harness) -> Result<()> {
    let pods = harness.until_pods(2).await?;
    let node = pods.first().and_then(|pod| pod.spec.as_ref()?.node_name.clone()).context("a node")?;
    let drained = tokio::task::spawn_blocking({
        let node = node.clone();
        move || kubectl(&["drain", &node, "--ignore-daemonsets", "--timeout=170s"])
    });
    let message = drained.await;
    tokio::task::spawn_blocking(move || kubectl(&["uncordon", &node])).await?;
    message?;
    harness.until_pods(2).await?;
    Ok(())
}

/// A release with other values.
pub(crate) fn upgrade(values: &[&str]) {
    let chart = checkout().join("charts/rowlock").display().to_string();
    let args = ["upgrade", "rowlock", &chart, "-n", OPERATOR, "--reuse-values", "--wait", "--timeout", "3m"];
    helm(&[&args, values].concat());
}
