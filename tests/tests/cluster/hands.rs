//! What people do by hand beside the operator.

use anyhow::{Result, ensure};
use rowlock_tests::history::Demands;
use serde_json::json;

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

#[tokio::test(flavor = "multi_thread")]
async fn a_password_changed_while_tasks_run_is_taken_from_the_secret() -> Result<()> {
    on_stage("rotated", async |stage| {
        stage.task_queue(&json!({}))?;
        stage.wait_ready();
        stage.enqueue(300, &json!({ "ms": 500 })).await?;
        stage.until_completed(10).await?;
        let owner = stage.namespace.replace('-', "_");
        stage.run(&format!("alter role {owner} password 'new'")).await?;
        stage.secret(&format!("postgres://{owner}:new@db:5432/{owner}"))?;
        // Whoever is in stays in; nobody comes in any more by the old one.
        stage
            .run(&format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{owner}'"))
            .await?;
        stage.until_drained().await?;
        stage.until_condition("DatabaseReachable", "True Succeeded").await?;
        stage.until_no_pods().await?;
        let summary = stage.check(Demands { drained: true, undisturbed: false }).await?;
        ensure!(summary.failures == 0, "{summary}");
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
