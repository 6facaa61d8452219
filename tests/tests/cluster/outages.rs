//! Outages of the operator, the API server and the database while workers run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use rowlock_tests::history::Demands;
use serde_json::json;

use crate::cluster::{OPERATOR, cluster, container};
use crate::harness::{Harness, until, with_harness};
use crate::kubectl::{kubectl, leader};
use crate::prometheus::Monitoring;

const CALM: Demands = Demands { drained: true, undisturbed: true };

/// How long the database is down: longer than a lease, and longer than a failover takes.
const NO_DATABASE: Duration = Duration::from_mins(1);

/// How often the operator is killed.
const KILLS: u64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn operators_killed_between_writes_are_continued_by_the_next_leader() -> Result<()> {
    with_harness("operator-killed", async |harness| {
        let Some(own) = cluster().own() else { return Ok(()) };
        harness.task_queue(&json!({}))?;
        harness.wait_ready();
        for round in 1..=KILLS {
            harness.enqueue(40, &json!({ "ms": 500 })).await?;
            // A new template, number of pods and number of slots: several writes, with a kill between them.
            harness.change(&json!({ "timeout": format!("{}s", 20 + round),
                "workers": { "total": 4 * (1 + round % 3) } }));
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..1500))).await;
            for pod in operators(harness).await? {
                // It may still be starting after the last kill.
                if let Ok(id) = container(&pod, "operator") {
                    let _ = own.kill(&id);
                }
            }
        }
        until("the last change is applied", || async {
            let spec = harness.deployment().await?.and_then(|found| found.spec).context("no Deployment")?;
            let grace = spec.template.spec.and_then(|pod| pod.termination_grace_period_seconds);
            ensure!(grace == Some(25 + i64::try_from(KILLS)?), "{grace:?}");
            Ok(())
        })
        .await?;
        harness.until_drained().await?;
        harness.until_no_pods().await?;
        let summary = harness.check(CALM).await?;
        ensure!(summary.failures == 0, "{summary}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_replica_takes_over_within_seconds() -> Result<()> {
    with_harness("failover", async |harness| {
        harness.task_queue(&json!({}))?;
        harness.wait_ready();
        let before = leader();
        let pods = operators(harness).await?;
        let name = pods
            .iter()
            .map(ResourceExt::name_any)
            .find(|name| before.starts_with(name))
            .context("a leader")?;
        tokio::task::block_in_place(|| kubectl(&["delete", "pod", &name, "-n", OPERATOR, "--wait=false"]));
        harness.enqueue(20, &json!({})).await?;
        harness.until_drained().await?;
        let after = leader();
        ensure!(!after.starts_with(&name) && !after.is_empty(), "{before}, then {after}");
        harness.check(CALM).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_a_database_keeps_the_pods_and_uses_no_attempt() -> Result<()> {
    with_harness("no-database", async |harness| {
        harness.task_queue(&json!({}))?;
        harness.wait_ready();
        harness.enqueue(300, &json!({ "ms": 1000 })).await?;
        harness.until_pods(2).await?;
        harness.until_completed(10).await?;
        let monitoring = Monitoring::start(harness).await?;
        harness.route.let_through(false);
        harness.until_condition("DatabaseReachable", "False ConnectionFailed").await?;
        tokio::time::sleep(NO_DATABASE).await;
        ensure!(harness.replicas().await? == Some(2), "pods were removed");
        ensure!(harness.pods().await?.len() == 2, "pods ended");
        harness.route.let_through(true);
        harness.until_condition("DatabaseReachable", "True Succeeded").await?;
        harness.until_drained().await?;
        harness.until_no_pods().await?;
        let summary = harness.check(Demands { drained: true, undisturbed: false }).await?;
        ensure!(summary.failures == 0, "{summary}");
        match monitoring {
            Some(monitoring) => alerts_about_a_dead_task(harness, &monitoring).await,
            None => Ok(()),
        }
    })
    .await
}

/// The outage raised no alert. A task that dies does, and it resolves.
async fn alerts_about_a_dead_task(harness: &Harness, monitoring: &Monitoring) -> Result<()> {
    // Other tests end operators meanwhile.
    let mut fired = monitoring.fired().await?;
    fired.remove("RowlockNoLeader");
    ensure!(fired.is_empty(), "{fired:?}");
    harness.run("select rowlock.enqueue('emails', 'email', '{\"how\": \"never\"}'::json)").await?;
    monitoring.until_firing("RowlockTasksDying", true).await?;
    // A quarter of an hour passes.
    harness.run("update rowlock.dead set at = at - interval '15 minutes'").await?;
    monitoring.until_firing("RowlockTasksDying", false).await
}

async fn operators(harness: &Harness) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(harness.client.clone(), OPERATOR);
    Ok(api.list(&ListParams::default().labels("app.kubernetes.io/name=rowlock-operator")).await?.items)
}
