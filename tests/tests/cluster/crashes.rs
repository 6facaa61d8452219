//! Crashes and lost connections lose no task, and no instance settles tasks whose lease it lost.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rowlock_tests::history::{Demands, Summary};
use serde_json::json;

use crate::cluster::{cluster, container};
use crate::harness::{Harness, until, with_harness};

/// Tasks claimed and not settled may run again; none is open at the end.
const DISTURBED: Demands = Demands { drained: true, undisturbed: false };

/// The most tasks that a pod of the harness runs at the same time.
const PER_POD: usize = 4;

/// The most tasks that such a pod holds: those its handler runs, and those that have just finished and are
/// being settled while the next ones are claimed already.
const CLAIMED: usize = 2 * PER_POD;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_loses_no_task() -> Result<()> {
    with_harness("worker-killed", async |harness| {
        let Some(own) = cluster().own() else { return Ok(()) };
        let pod = busy(harness, &json!({ "ms": 3000 })).await?;
        harness.failed(&pod);
        own.kill(&container(&pod, "worker")?)?;
        let summary = done(harness).await?;
        ensure!((1..=CLAIMED).contains(&summary.leases_lost), "{summary}");
        ensure!(summary.failures == summary.leases_lost, "{summary}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_out_of_memory_costs_only_the_task_that_took_it() -> Result<()> {
    with_harness("out-of-memory", async |harness| {
        let handler = harness.handler(&json!({ "resources": { "limits": { "memory": "64Mi" } } }));
        harness.task_queue(&json!({ "template": { "spec": { "containers": [handler] } } }))?;
        harness.wait_ready();
        harness.enqueue(40, &json!({ "ms": 1000 })).await?;
        harness.enqueue(1, &json!({ "how": "memory" })).await?;
        harness.enqueue(40, &json!({ "ms": 1000 })).await?;
        let summary = done(harness).await?;
        // The tasks that ran next to it use no attempt. It runs alone then, and is dead after its second end.
        ensure!(summary.failures == summary.interruptions + 1 && summary.leases_lost == 0, "{summary}");
        ensure!((summary.completed, summary.dead) == (80, 1), "{summary}");
        // The kubelet reports the reason about when the worker notices the end, or a little later.
        let named = "select count(*) from rowlock.task_error e join rowlock.dead d using (id) \
                     where e.error like 'the handler ended (%exit code 137) while this task ran alone%'";
        until("its errors name the reason", || async {
            let named = harness.count(named).await?;
            ensure!(0 < named, "none does");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_force_deleted_pod_loses_no_task() -> Result<()> {
    with_harness("forced-away", async |harness| {
        let pod = busy(harness, &json!({ "ms": 6000 })).await?;
        harness.failed(&pod);
        harness.kubectl(&["delete", "pod", &pod.name_any(), "--force", "--grace-period=0"]);
        let summary = done(harness).await?;
        // Handler and worker are killed together. A worker that sees its handler die first reports failures;
        // otherwise its leases expire. If it has already received SIGTERM, it releases them.
        ensure!(40 < summary.runs && summary.failures <= CLAIMED, "{summary}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_short_grace_period_loses_no_task() -> Result<()> {
    with_harness("short-grace", async |harness| {
        let pod = busy(harness, &json!({ "ms": 9000 })).await?;
        harness.failed(&pod);
        harness.kubectl(&["delete", "pod", &pod.name_any(), "--grace-period=5"]);
        let summary = done(harness).await?;
        // A worker does not know of a grace period shorter than its pod's. If it is killed first, its tasks
        // are interrupted, which uses no attempt; if its handler ends first, running tasks may have failed.
        ensure!((41..=40 + CLAIMED).contains(&summary.runs) && summary.failures <= CLAIMED, "{summary}");
        ensure!(summary.leases_lost == 0, "{summary}");
        Ok(())
    })
    .await
}

/// One of two pods while both run this kind of task.
async fn busy(harness: &Harness, payload: &serde_json::Value) -> Result<Pod> {
    harness.task_queue(&json!({}))?;
    harness.wait_ready();
    harness.enqueue(40, payload).await?;
    harness.until_pods(2).await?;
    harness.until_completed(8).await?;
    until("both pods have handlers", || async {
        let ready = harness.ready_pods().await?;
        ensure!(ready.len() == 2, "{}", ready.len());
        ready.into_iter().next().context("a pod")
    })
    .await
}

async fn done(harness: &Harness) -> Result<Summary> {
    harness.until_drained().await?;
    harness.check(DISTURBED).await
}
