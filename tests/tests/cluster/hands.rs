//! What people do by hand beside the operator.

use anyhow::{Context, Result, ensure};
use rowlock_tests::history::Demands;
use serde_json::json;

use crate::cluster::cluster;
use crate::stage::{NAME, Stage, on_stage, until};

const CALM: Demands = Demands { drained: true, undisturbed: true };

#[tokio::test(flavor = "multi_thread")]
async fn what_is_edited_or_undone_in_the_deployment_is_restored_and_cuts_nobody_off() -> Result<()> {
    on_stage("edited", async |stage| {
        stage.task_queue(&json!({ "workers": { "autoscaling": { "min": 8 } } }))?;
        stage.wait_ready();
        stage.until_pods(2).await?;
        stage.enqueue(300, &json!({ "ms": 500 })).await?;
        let deployment = format!("deployment/{NAME}");
        stage.kubectl(&["set", "env", &deployment, "-c", "worker", "THEIRS=1"]);
        restored(stage, |template| !template.contains("THEIRS")).await?;
        stage.change(&json!({ "timeout": "40s" }));
        restored(stage, |template| template.contains("\"terminationGracePeriodSeconds\":45")).await?;
        stage.kubectl(&["rollout", "status", &deployment, "--timeout=180s"]);
        stage.kubectl(&["rollout", "undo", &deployment]);
        restored(stage, |template| template.contains("\"terminationGracePeriodSeconds\":45")).await?;
        stage.kubectl(&["rollout", "status", &deployment, "--timeout=180s"]);
        let events = stage.kubectl(&["get", "events"]);
        ensure!(events.contains("TemplateRestored"), "{events}");
        stage.until_drained().await?;
        let summary = stage.check(CALM).await?;
        ensure!(summary.failures == 0, "{summary}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_pods_stay_as_many_as_somebody_made_them() -> Result<()> {
    on_stage("suspended", async |stage| {
        stage.task_queue(&json!({ "suspendScaling": true }))?;
        stage.wait_ready();
        stage.kubectl(&["scale", &format!("deployment/{NAME}"), "--replicas=1"]);
        stage.until_pods(1).await?;
        stage.enqueue(100, &json!({ "ms": 100 })).await?;
        stage.until_drained().await?;
        ensure!(stage.replicas().await? == Some(1), "{:?}", stage.replicas().await?);
        stage.change(&json!({ "suspendScaling": false }));
        stage.until_no_pods().await?;
        stage.check(CALM).await?;
        Ok(())
    })
    .await
}

/// A real one, which reads and writes the scale; fewer pods than its least it raises without any metrics.
#[tokio::test(flavor = "multi_thread")]
async fn a_horizontal_pod_autoscaler_and_kubectl_scale_a_task_queue() -> Result<()> {
    on_stage("external", async |stage| {
        stage.task_queue(&json!({ "workers": { "scaling": "External", "autoscaling": null } }))?;
        stage.wait_ready();
        let replicas = stage.replicas().await?;
        ensure!(replicas == Some(1), "{replicas:?}");
        let target = json!({ "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue", "name": NAME });
        stage.apply(&json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": { "name": NAME },
            "spec": { "scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 4 } }))?;
        stage.until_pods(2).await?;
        stage.kubectl(&["wait", "--for=condition=AbleToScale", &format!("hpa/{NAME}"), "--timeout=60s"]);
        stage.enqueue(300, &json!({ "ms": 200 })).await?;
        stage.kubectl(&["delete", "hpa", NAME]);
        stage.kubectl(&["scale", &format!("tq/{NAME}"), "--replicas=1"]);
        stage.until_replicas(|replicas| replicas == 1).await?;
        stage.until_drained().await?;
        let (contested, message) = stage.condition("Contested").await?;
        ensure!(contested == "False Succeeded", "{contested}: {message}");
        stage.kubectl(&["scale", &format!("tq/{NAME}"), "--replicas=0"]);
        stage.until_no_pods().await?;
        stage.check(CALM).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_changed_while_tasks_run_is_taken_from_the_secret() -> Result<()> {
    on_stage("rotated", async |stage| {
        stage.task_queue(&json!({ "workers": { "autoscaling": { "min": 8 } } }))?;
        stage.wait_ready();
        stage.enqueue(100, &json!({ "ms": 500 })).await?;
        stage.until_pods(2).await?;
        let owner = stage.namespace.replace('-', "_");
        stage.run(&format!("alter role {owner} password 'new'")).await?;
        stage.secret(&format!("postgres://{owner}:new@db:5432/{owner}"))?;
        // Kubernetes takes up to a minute to change their files. Whoever is in stays in meanwhile.
        until("both workers have the new URL", || async {
            let selector = format!("rowlock.dev/task-queue={NAME}");
            let said = stage.kubectl(&["logs", "-l", &selector, "-c", "worker", "--tail=-1"]);
            let having = said.matches("the database's URL or CA has changed").count();
            ensure!(having == 2, "{having}");
            Ok(())
        })
        .await?;
        stage.enqueue(100, &json!({ "ms": 500 })).await?;
        // Nobody comes in any more by the old one.
        stage
            .run(&format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{owner}'"))
            .await?;
        stage.until_drained().await?;
        stage.until_condition("DatabaseReachable", "True Succeeded").await?;
        let summary = stage.check(Demands { drained: true, undisturbed: false }).await?;
        ensure!(summary.failures == 0, "{summary}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_another_name_is_taken_up_without_cutting_anybody_off() -> Result<()> {
    on_stage("renamed", async |stage| {
        stage.task_queue(&json!({}))?;
        stage.wait_ready();
        stage.enqueue(300, &json!({ "ms": 500 })).await?;
        stage.until_completed(10).await?;
        let owner = stage.namespace.replace('-', "_");
        stage.secret_named("restored", &format!("postgres://{owner}:{owner}@db:5432/{owner}"))?;
        stage.change(&json!({ "database": { "secretRef": { "name": "restored" } } }));
        restored(stage, |template| template.contains("\"secretName\":\"restored\"")).await?;
        stage.kubectl(&["rollout", "status", &format!("deployment/{NAME}"), "--timeout=180s"]);
        stage.kubectl(&["delete", "secret", "db"]);
        stage.until_drained().await?;
        let summary = stage.check(CALM).await?;
        ensure!(summary.failures == 0, "{summary}");
        stage.until_condition("Ready", "True Succeeded").await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_of_somebody_else_is_left_alone_and_in_the_way() -> Result<()> {
    on_stage("foreign", async |stage| {
        let image = format!("{}rowlock-handler:1", cluster().images);
        let theirs = format!("--image={image}");
        stage.kubectl(&["create", "deployment", NAME, &theirs, "--replicas=1"]);
        stage.task_queue(&json!({}))?;
        stage.until_condition("Stalled", "True OwnedByAnother").await?;
        stage.enqueue(20, &json!({})).await?;
        stage.until_condition("Ready", "False OwnedByAnother").await?;
        let found = stage.deployment().await?.context("theirs")?;
        let spec = found.spec.context("a spec")?;
        let containers = spec.template.spec.context("pods")?.containers;
        ensure!(found.metadata.owner_references.is_none() && spec.replicas == Some(1), "it was changed");
        ensure!(containers.len() == 1 && containers[0].image.as_deref() == Some(&image), "{containers:?}");
        stage.kubectl(&["delete", "deployment", NAME]);
        stage.until_condition("Stalled", "False Succeeded").await?;
        stage.until_drained().await?;
        stage.check(CALM).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_task_queue_for_the_same_queue_is_refused_and_the_first_goes_on() -> Result<()> {
    on_stage("twice", async |stage| {
        stage.task_queue(&json!({ "workers": { "autoscaling": { "min": 4 } } }))?;
        stage.wait_ready();
        let spec = stage.spec(&json!({ "queueName": NAME, "workers": { "total": 1 } }));
        stage.apply(&json!({ "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue",
            "metadata": { "name": "second" }, "spec": spec }))?;
        stage.kubectl(&["wait", "--for=condition=Stalled", "tq/second", "--timeout=180s"]);
        let said = stage.kubectl(&["get", "tq", "second", "-o", "jsonpath={.status.conditions}"]);
        ensure!(said.contains("OwnedByAnother") && said.contains(&format!("`{NAME}`")), "{said}");
        stage.enqueue(100, &json!({})).await?;
        stage.until_drained().await?;
        let total = stage.count("select total_workers::bigint from rowlock.queue").await?;
        ensure!(total == 8, "the second one changed the queue: {total}");
        stage.check(CALM).await?;
        Ok(())
    })
    .await
}

async fn restored(stage: &Stage, holds: impl Fn(&str) -> bool) -> Result<()> {
    until("the template is the operator's", || async {
        let spec = stage.deployment().await?.and_then(|found| found.spec);
        let template = serde_json::to_string(&spec.map(|spec| spec.template))?;
        ensure!(holds(&template), "{template}");
        Ok(())
    })
    .await
}
