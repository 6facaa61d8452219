//! Housekeeping of every kind, while tasks run: nobody notices. Alone, as a drained node and an upgraded operator are everybody's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use rowlock_tests::checkout;
use rowlock_tests::history::Demands;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cluster::{OPERATOR, cluster};
use crate::kubectl::{helm, kubectl};
use crate::stage::{NAME, PATIENCE, Stage, alone};

/// A task takes one of these.
const MILLIS: [u32; 4] = [500, 1000, 1500, 2000];

/// What waits at any time, so that every worker always has something to do.
const WAITING: i64 = 120;

/// How many are done between two changes.
const BETWEEN: i64 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn changes_rollouts_drains_and_upgrades_cut_nobody_off_and_use_no_attempt() -> Result<()> {
    alone("changes", play).await
}

async fn play(stage: &Stage) -> Result<()> {
    stage.task_queue(&json!({ "workers": { "total": 16, "perPod": 8 } }))?;
    stage.wait_ready();
    let stop = CancellationToken::new();
    let (fed, changed) = tokio::join!(feed(stage, &stop), async {
        let changed = change(stage).await;
        stop.cancel();
        changed
    });
    changed?;
    fed?;
    stage.until_drained().await?;
    let summary = stage.check(Demands { drained: true, undisturbed: true }).await?;
    ensure!((summary.failures, summary.rescued_instances) == (0, 0), "{summary}");
    Ok(())
}

/// Enqueues as long as it goes on.
async fn feed(stage: &Stage, stop: &CancellationToken) -> Result<()> {
    while !stop.is_cancelled() {
        if stage.open().await? < WAITING {
            for millis in MILLIS {
                stage.enqueue(60, &json!({ "ms": millis })).await?;
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

async fn change(stage: &Stage) -> Result<()> {
    stage.until_pods(2).await?;
    step(stage, "workers.total").await?;
    stage.change(&json!({ "workers": { "total": 32 } }));
    stage.until_pods(4).await?;
    step(stage, "workers.perPod").await?;
    stage.change(&json!({ "workers": { "perPod": 16 } }));
    rolled_out(stage, "ROWLOCK_WORKERS", "16").await?;
    stage.until_replicas(|replicas| replicas == 2).await?;
    step(stage, "a new image").await?;
    let new = stage.handler(&json!({ "image": format!("{}rowlock-handler:2", cluster().images) }));
    stage.change(&json!({ "template": { "spec": { "containers": [new] } } }));
    rolled_out(stage, "handler", ":2").await?;
    step(stage, "a restart").await?;
    let deployment = format!("deployment/{NAME}");
    stage.kubectl(&["rollout", "restart", &deployment]);
    stage.kubectl(&["rollout", "status", &deployment, "--timeout=180s"]);
    step(stage, "a pod is deleted").await?;
    let pod = stage.until_pods(2).await?.first().context("a pod")?.name_any();
    stage.kubectl(&["delete", "pod", &pod, "--timeout=120s"]);
    stage.until_pods(2).await?;
    step(stage, "a node is drained").await?;
    drain(stage).await?;
    step(stage, "the operator is upgraded").await?;
    // Both replicas are replaced.
    let annotation = format!("podAnnotations.upgraded=\"{}\"", std::process::id());
    tokio::task::spawn_blocking(move || upgrade(&["--set-string", &annotation])).await?;
    step(stage, "fewer workers").await?;
    stage.change(&json!({ "workers": { "total": 16 } }));
    stage.until_replicas(|replicas| replicas == 1).await?;
    step(stage, "the end").await
}

/// Some tasks are done in between, so that each change meets others.
async fn step(stage: &Stage, what: &str) -> Result<()> {
    let done = stage.completed().await?;
    eprintln!("changes: {done} done; next: {what}");
    stage.until_completed(done + BETWEEN).await
}

/// Until the operator has written that into the template, and the pods are as it says.
async fn rolled_out(stage: &Stage, name: &str, value: &str) -> Result<()> {
    crate::stage::until("the template has changed", || async {
        let template = serde_json::to_string(&stage.deployment().await?.context("a Deployment")?.spec)?;
        let found = template.contains(value) && template.contains(name);
        ensure!(found && template.contains(&format!("{value}\"")), "{template}");
        Ok(())
    })
    .await?;
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    stage.kubectl(&["rollout", "status", &format!("deployment/{NAME}"), &timeout]);
    Ok(())
}

async fn drain(stage: &Stage) -> Result<()> {
    let pods = stage.until_pods(2).await?;
    let node = pods.first().and_then(|pod| pod.spec.as_ref()?.node_name.clone()).context("a node")?;
    let drained = tokio::task::spawn_blocking({
        let node = node.clone();
        move || kubectl(&["drain", &node, "--ignore-daemonsets", "--timeout=170s"])
    });
    let said = drained.await;
    tokio::task::spawn_blocking(move || kubectl(&["uncordon", &node])).await?;
    said?;
    stage.until_pods(2).await?;
    Ok(())
}

/// A release with other values.
pub(crate) fn upgrade(values: &[&str]) {
    let chart = checkout().join("charts/rowlock").display().to_string();
    let args = ["upgrade", "rowlock", &chart, "-n", OPERATOR, "--reuse-values", "--wait", "--timeout", "3m"];
    helm(&[&args, values].concat());
}
