//! Faults that affect every namespace: each of these tests runs alone.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rowlock_tests::history::Demands;
use serde_json::json;

use crate::cluster::cluster;
use crate::harness::{exclusively, until};
use crate::kubectl::kubectl;
use crate::planned_changes::upgrade;

/// How long a node is disconnected: longer than a lease, and longer than Kubernetes waits for a node.
const AWAY: Duration = Duration::from_mins(1);

/// The worker image of the chart's next release.
const NEXT: &str = "next";

const NO_API: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_disconnected_for_a_minute_loses_no_task() -> Result<()> {
    exclusively("cut-off", async |harness| {
        let Some(own) = cluster().own() else { return Ok(()) };
        harness.task_queue(&json!({ "workers": { "total": 16 } }))?;
        harness.wait_ready();
        harness.enqueue(400, &json!({ "ms": 2000 })).await?;
        let pods = harness.until_pods(4).await?;
        until("every pod runs tasks", || async {
            let busy = harness.count("select count(distinct instance) from rowlock.lease").await?;
            ensure!(busy == 4, "{busy}");
            Ok(())
        })
        .await?;
        let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let away: Vec<&Pod> = pods.iter().filter(|pod| node(pod).as_deref() == Some("node2")).collect();
        ensure!(!away.is_empty() && away.len() < pods.len(), "all pods are on one node");
        for pod in away {
            harness.failed(pod);
        }
        own.enter(&["ip", "-n", "node2", "link", "set", "eth0", "down"])?;
        // The test waits for a minute in which nothing may happen.
        tokio::time::sleep(AWAY).await;
        own.enter(&["ip", "-n", "node2", "link", "set", "eth0", "up"])?;
        // It lost these routes with its link.
        own.enter(&["ip", "-n", "node2", "route", "replace", "default", "via", "10.89.0.1"])?;
        own.enter(&["ip", "-n", "node2", "route", "replace", "10.244.1.0/24", "via", "10.89.0.11"])?;
        kubectl(&["wait", "--for=condition=Ready", "node/node2", "--timeout=120s"]);
        harness.until_drained().await?;
        let summary = harness.check(Demands { drained: true, undisturbed: false }).await?;
        ensure!(0 < summary.leases_lost, "no lease was lost: {summary}");
        ensure!(summary.completed == 400 && summary.dead == 0, "{summary}");
        harness.until_no_pods().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_continue_without_an_api_server() -> Result<()> {
    exclusively("no-api", async |harness| {
        let Some(own) = cluster().own() else { return Ok(()) };
        // Their minimum keeps the pods, however long the API server takes to come back.
        harness.task_queue(&json!({ "workers": { "autoscaling": { "min": 8 } } }))?;
        harness.wait_ready();
        harness.enqueue(450, &json!({ "ms": 1000 })).await?;
        let before = harness.until_pods(2).await?;
        own.stop_api_server()?;
        let done = harness.completed().await?;
        tokio::time::sleep(NO_API).await;
        // Eight slots would complete eight tasks per second.
        let more = harness.completed().await? - done;
        ensure!(30 < more, "{more} tasks in {NO_API:?}");
        own.start_api_server()?;
        until("the API server is back", || async { Ok(harness.pods().await?.len()) }).await?;
        harness.change(&json!({ "workers": { "total": 16, "autoscaling": { "min": 16 } } }));
        harness.until_replicas(|replicas| replicas == 4).await?;
        let names: Vec<String> = harness.pods().await?.iter().map(ResourceExt::name_any).collect();
        ensure!(before.iter().all(|pod| names.contains(&pod.name_any())), "{names:?}");
        harness.until_drained().await?;
        let summary = harness.check(Demands { drained: true, undisturbed: true }).await?;
        ensure!(summary.failures == 0, "{summary}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_a_new_release_take_over_without_interrupting_tasks() -> Result<()> {
    exclusively("release", async |harness| {
        // Their minimum keeps the pods, however long the upgrade takes.
        let workers = json!({ "total": 16, "perPod": 8, "autoscaling": { "min": 16 } });
        harness.task_queue(&json!({ "workers": workers }))?;
        harness.wait_ready();
        harness.enqueue(600, &json!({ "ms": 1000 })).await?;
        let before = harness.until_pods(2).await?;
        let tag = format!("workerImage.tag={NEXT}");
        tokio::task::spawn_blocking(move || upgrade(&["--set", &tag])).await?;
        let image = format!("{}rowlock-worker:{NEXT}", cluster().images);
        until("the pods are of the new release", || async {
            let pods = harness.ready_pods().await?;
            let new = pods
                .iter()
                .filter(|pod| serde_json::to_string(&pod.spec).is_ok_and(|spec| spec.contains(&image)));
            let (new, old) = (
                new.count(),
                pods.iter().filter(|pod| before.iter().any(|one| one.name_any() == pod.name_any())).count(),
            );
            ensure!((new, old) == (2, 0), "{new} of the new, {old} of the old");
            Ok(())
        })
        .await?;
        harness.until_drained().await?;
        let summary = harness.check(Demands { drained: true, undisturbed: true }).await?;
        ensure!(summary.failures == 0, "{summary}");
        Ok(())
    })
    .await
}
