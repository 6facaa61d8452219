//! A `TaskQueue` goes, or its whole namespace: in time, without remains, and its tasks stay.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use rowlock_tests::history::Demands;
use serde_json::json;

use crate::stage::{ENTRY, NAME, Stage, on_stage, until};

/// Tasks of them take a second; most are left.
const TASKS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_takes_its_pods_along_and_a_new_one_of_its_name_goes_on_with_the_tasks() -> Result<()>
{
    on_stage("recreated", async |stage| {
        work(stage).await?;
        stage.kubectl(&["delete", "tq", NAME, "--timeout=60s"]);
        stage.until_no_pods().await?;
        until("nothing is left", || async {
            let left = stage.kubectl(&["get", "deployments,replicasets,poddisruptionbudgets", "-o", "name"]);
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })
        .await?;
        ensure!(0 < stage.open().await?, "the tasks went with it");
        stage.task_queue(&json!({}))?;
        stage.wait_ready();
        stage.until_drained().await?;
        let summary = stage.check(Demands { drained: true, undisturbed: true }).await?;
        ensure!((summary.completed, summary.failures) == (TASKS, 0), "{summary}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_in_time_and_its_tasks_stay() -> Result<()> {
    on_stage("goes", async |stage| {
        work(stage).await?;
        gone(stage).await?;
        let summary = stage.check(Demands { drained: false, undisturbed: true }).await?;
        ensure!(summary.completed + summary.open == TASKS && summary.failures == 0, "{summary}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_in_time_without_its_database() -> Result<()> {
    on_stage("goes-cut", async |stage| {
        work(stage).await?;
        stage.way.let_through(false);
        gone(stage).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_in_time_when_the_operator_may_not_enter_it_any_more() -> Result<()> {
    on_stage("goes-shut", async |stage| {
        work(stage).await?;
        stage.kubectl(&["delete", "rolebinding", ENTRY[2]]);
        gone(stage).await
    })
    .await
}

async fn work(stage: &Stage) -> Result<()> {
    stage.task_queue(&json!({}))?;
    stage.wait_ready();
    stage.enqueue(TASKS, &json!({ "ms": 1000 })).await?;
    stage.until_pods(2).await?;
    stage.until_completed(10).await
}

/// A pod's grace is 25 s; the rest is Kubernetes' own.
async fn gone(stage: &Stage) -> Result<()> {
    stage.kubectl(&["delete", "namespace", &stage.namespace, "--wait=false"]);
    until("the namespace is gone", || async {
        let api: Api<Namespace> = Api::all(stage.client.clone());
        let left = api.get_opt(&stage.namespace).await?;
        ensure!(left.is_none(), "{:?}", left.and_then(|left| left.status));
        Ok(())
    })
    .await
}
