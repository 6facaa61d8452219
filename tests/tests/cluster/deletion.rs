//! Deleting a `TaskQueue` or its namespace: it finishes in time, leaves nothing behind, and keeps the tasks.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use rowlock_tests::history::Demands;
use serde_json::json;

use crate::harness::{ENTRY, Harness, NAME, until, with_harness};

/// Each task takes a second; most are still open.
const TASKS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_task_queue_ends_its_pods_and_a_new_one_continues_its_tasks() -> Result<()> {
    with_harness("recreated", async |harness| {
        work(harness).await?;
        harness.kubectl(&["delete", "tq", NAME, "--timeout=60s"]);
        harness.until_no_pods().await?;
        until("nothing is left", || async {
            let left =
                harness.kubectl(&["get", "deployments,replicasets,poddisruptionbudgets", "-o", "name"]);
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })
        .await?;
        ensure!(0 < harness.open().await?, "the tasks went with it");
        harness.task_queue(&json!({}))?;
        harness.wait_ready();
        harness.until_drained().await?;
        let summary = harness.check(Demands { drained: true, undisturbed: true }).await?;
        ensure!((summary.completed, summary.failures) == (TASKS, 0), "{summary}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_deleted_in_time_and_its_tasks_stay() -> Result<()> {
    with_harness("goes", async |harness| {
        work(harness).await?;
        gone(harness).await?;
        let summary = harness.check(Demands { drained: false, undisturbed: true }).await?;
        ensure!(summary.completed + summary.open == TASKS && summary.failures == 0, "{summary}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_deleted_in_time_without_its_database() -> Result<()> {
    with_harness("goes-cut", async |harness| {
        work(harness).await?;
        harness.route.let_through(false);
        gone(harness).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_deleted_in_time_without_the_operators_permissions() -> Result<()> {
    with_harness("goes-shut", async |harness| {
        work(harness).await?;
        harness.kubectl(&["delete", "rolebinding", ENTRY[2]]);
        gone(harness).await
    })
    .await
}

async fn work(harness: &Harness) -> Result<()> {
    harness.task_queue(&json!({}))?;
    harness.wait_ready();
    harness.enqueue(TASKS, &json!({ "ms": 1000 })).await?;
    harness.until_pods(2).await?;
    harness.until_completed(10).await
}

/// A pod's grace period is 25 s; the rest is time of Kubernetes.
async fn gone(harness: &Harness) -> Result<()> {
    harness.kubectl(&["delete", "namespace", &harness.namespace, "--wait=false"]);
    until("the namespace is gone", || async {
        let api: Api<Namespace> = Api::all(harness.client.clone());
        let left = api.get_opt(&harness.namespace).await?;
        ensure!(left.is_none(), "{:?}", left.and_then(|left| left.status));
        Ok(())
    })
    .await
}
