//! Manual changes while the operator runs.

use anyhow::{Context, Result, ensure};
use rowlock_tests::history::Demands;
use serde_json::json;

use crate::cluster::cluster;
use crate::harness::{Harness, NAME, until, with_harness};

const CALM: Demands = Demands { drained: true, undisturbed: true };

#[tokio::test(flavor = "multi_thread")]
async fn manual_changes_of_the_deployment_are_undone_without_interrupting_tasks() -> Result<()> {
    with_harness("edited", async |harness| {
        harness.task_queue(&json!({ "workers": { "autoscaling": { "min": 8 } } }))?;
        harness.wait_ready();
        harness.until_pods(2).await?;
        harness.enqueue(300, &json!({ "ms": 500 })).await?;
        let deployment = format!("deployment/{NAME}");
        harness.kubectl(&["set", "env", &deployment, "-c", "worker", "THEIRS=1"]);
        restored(harness, |template| !template.contains("THEIRS")).await?;
        harness.change(&json!({ "timeout": "40s" }));
        restored(harness, |template| template.contains("\"terminationGracePeriodSeconds\":45")).await?;
        harness.kubectl(&["rollout", "status", &deployment, "--timeout=180s"]);
        harness.kubectl(&["rollout", "undo", &deployment]);
        restored(harness, |template| template.contains("\"terminationGracePeriodSeconds\":45")).await?;
        harness.kubectl(&["rollout", "status", &deployment, "--timeout=180s"]);
        until("an event says so", || async {
            let events = harness.kubectl(&["get", "events"]);
            ensure!(events.contains("TemplateRestored"), "{events}");
            Ok(())
        })
        .await?;
        harness.until_drained().await?;
        let summary = harness.check(CALM).await?;
        ensure!(summary.failures == 0, "{summary}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_scaling_keeps_a_manual_number_of_pods() -> Result<()> {
    with_harness("suspended", async |harness| {
        harness.task_queue(&json!({ "suspendScaling": true }))?;
        harness.wait_ready();
        harness.kubectl(&["scale", &format!("deployment/{NAME}"), "--replicas=1"]);
        harness.until_pods(1).await?;
        harness.enqueue(100, &json!({ "ms": 100 })).await?;
        harness.until_drained().await?;
        ensure!(harness.replicas().await? == Some(1), "{:?}", harness.replicas().await?);
        harness.change(&json!({ "suspendScaling": false }));
        harness.until_no_pods().await?;
        harness.check(CALM).await?;
        Ok(())
    })
    .await
}

/// A real autoscaler, which uses the scale subresource; without metrics it raises the pods to its minimum.
#[tokio::test(flavor = "multi_thread")]
async fn a_horizontal_pod_autoscaler_and_kubectl_scale_a_task_queue() -> Result<()> {
    with_harness("external", async |harness| {
        harness.task_queue(&json!({ "workers": { "scaling": "External", "autoscaling": null } }))?;
        harness.wait_ready();
        let replicas = harness.replicas().await?;
        ensure!(replicas == Some(1), "{replicas:?}");
        let target = json!({ "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue", "name": NAME });
        harness.apply(&json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": { "name": NAME },
            "spec": { "scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 4 } }))?;
        harness.until_pods(2).await?;
        harness.kubectl(&["wait", "--for=condition=AbleToScale", &format!("hpa/{NAME}"), "--timeout=60s"]);
        harness.enqueue(300, &json!({ "ms": 200 })).await?;
        harness.kubectl(&["delete", "hpa", NAME]);
        harness.kubectl(&["scale", &format!("tq/{NAME}"), "--replicas=1"]);
        harness.until_replicas(|replicas| replicas == 1).await?;
        harness.until_drained().await?;
        // If another test ends the operator, a new leader knows the number only after its first pass.
        harness.until_condition("Contested", "False Succeeded").await?;
        harness.kubectl(&["scale", &format!("tq/{NAME}"), "--replicas=0"]);
        harness.until_no_pods().await?;
        harness.check(CALM).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_is_read_from_the_secret_while_tasks_run() -> Result<()> {
    with_harness("rotated", async |harness| {
        harness.task_queue(&json!({ "workers": { "autoscaling": { "min": 8 } } }))?;
        harness.wait_ready();
        harness.enqueue(100, &json!({ "ms": 500 })).await?;
        harness.until_pods(2).await?;
        let owner = harness.namespace.replace('-', "_");
        harness.run(&format!("alter role {owner} password 'new'")).await?;
        harness.secret(&format!("postgres://{owner}:new@db:5432/{owner}"))?;
        // Kubernetes takes up to a minute to change their files. Open connections stay open in the meantime.
        until("both workers have the new URL", || async {
            let selector = format!("rowlock.dev/task-queue={NAME}");
            let text = harness.kubectl(&["logs", "-l", &selector, "-c", "worker", "--tail=-1"]);
            let having = text.matches("the database's URL or CA has changed").count();
            ensure!(having == 2, "{having}");
            Ok(())
        })
        .await?;
        harness.enqueue(100, &json!({ "ms": 500 })).await?;
        // The old password no longer works.
        harness
            .run(&format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{owner}'"))
            .await?;
        harness.until_drained().await?;
        harness.until_condition("DatabaseReachable", "True Succeeded").await?;
        let summary = harness.check(Demands { drained: true, undisturbed: false }).await?;
        ensure!(summary.failures == 0, "{summary}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_is_used_without_interrupting_tasks() -> Result<()> {
    with_harness("renamed", async |harness| {
        harness.task_queue(&json!({}))?;
        harness.wait_ready();
        harness.enqueue(300, &json!({ "ms": 500 })).await?;
        harness.until_completed(10).await?;
        let owner = harness.namespace.replace('-', "_");
        harness.secret_named("restored", &format!("postgres://{owner}:{owner}@db:5432/{owner}"))?;
        harness.change(&json!({ "database": { "secretRef": { "name": "restored" } } }));
        restored(harness, |template| template.contains("\"secretName\":\"restored\"")).await?;
        harness.kubectl(&["rollout", "status", &format!("deployment/{NAME}"), "--timeout=180s"]);
        harness.kubectl(&["delete", "secret", "db"]);
        harness.until_drained().await?;
        let summary = harness.check(CALM).await?;
        ensure!(summary.failures == 0, "{summary}");
        harness.until_condition("Ready", "True Succeeded").await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_deployment_is_not_changed_and_reported() -> Result<()> {
    with_harness("foreign", async |harness| {
        let image = format!("{}rowlock-handler:1", cluster().images);
        let theirs = format!("--image={image}");
        harness.kubectl(&["create", "deployment", NAME, &theirs, "--replicas=1"]);
        harness.task_queue(&json!({}))?;
        harness.until_condition("Stalled", "True OwnedByAnother").await?;
        harness.enqueue(20, &json!({})).await?;
        harness.until_condition("Ready", "False OwnedByAnother").await?;
        let found = harness.deployment().await?.context("theirs")?;
        let spec = found.spec.context("a spec")?;
        let containers = spec.template.spec.context("pods")?.containers;
        ensure!(found.metadata.owner_references.is_none() && spec.replicas == Some(1), "it was changed");
        ensure!(containers.len() == 1 && containers[0].image.as_deref() == Some(&image), "{containers:?}");
        harness.kubectl(&["delete", "deployment", NAME]);
        harness.until_condition("Stalled", "False Succeeded").await?;
        harness.until_drained().await?;
        harness.check(CALM).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_task_queue_for_the_same_queue_is_refused_and_the_first_continues() -> Result<()> {
    with_harness("twice", async |harness| {
        harness.task_queue(&json!({ "workers": { "autoscaling": { "min": 4 } } }))?;
        harness.wait_ready();
        let spec = harness.spec(&json!({ "queueName": NAME, "workers": { "total": 1 } }));
        harness.apply(&json!({ "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue",
            "metadata": { "name": "second" }, "spec": spec }))?;
        harness.kubectl(&["wait", "--for=condition=Stalled", "tq/second", "--timeout=180s"]);
        let text = harness.kubectl(&["get", "tq", "second", "-o", "jsonpath={.status.conditions}"]);
        ensure!(text.contains("OwnedByAnother") && text.contains(&format!("`{NAME}`")), "{text}");
        harness.enqueue(100, &json!({})).await?;
        harness.until_drained().await?;
        let total = harness.count("select total_workers::bigint from rowlock.queue").await?;
        ensure!(total == 8, "the second one changed the queue: {total}");
        harness.check(CALM).await?;
        Ok(())
    })
    .await
}

async fn restored(harness: &Harness, holds: impl Fn(&str) -> bool) -> Result<()> {
    until("the template is the operator's", || async {
        let spec = harness.deployment().await?.and_then(|found| found.spec);
        let template = serde_json::to_string(&spec.map(|spec| spec.template))?;
        ensure!(holds(&template), "{template}");
        Ok(())
    })
    .await
}
