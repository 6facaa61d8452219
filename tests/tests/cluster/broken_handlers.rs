//! Handlers that cannot run are named, and running pods continue.

use anyhow::{Result, ensure};
use rowlock_tests::history::Demands;
use serde_json::{Value, json};

use crate::cluster::cluster;
use crate::harness::{Harness, with_harness};

const CALM: Demands = Demands { drained: true, undisturbed: true };

#[tokio::test(flavor = "multi_thread")]
async fn a_new_handler_that_cannot_start_is_named_and_the_old_pods_continue() -> Result<()> {
    with_harness("new-handler", async |harness| {
        harness.task_queue(&json!({ "workers": { "autoscaling": { "min": 8 } } }))?;
        harness.wait_ready();
        let old = harness.until_pods(2).await?;
        let mode = |mode: &str| {
            let journal = json!({ "name": "JOURNAL", "value": harness.journal.at.to_string() });
            json!({ "env": [journal, { "name": "MODE", "value": mode }] })
        };
        let nowhere = json!({ "image": format!("{}rowlock-nowhere:1", cluster().images) });
        for (change, reason, word) in [
            (nowhere, "ImageNotPulled", "rowlock-nowhere:1"),
            (mode("crash"), "CrashLooping", "kubectl logs"),
            (mode("deaf"), "NotListening", "$PORT"),
        ] {
            handler(harness, &change);
            let message = harness.until_condition("HandlerHealthy", &format!("False {reason}")).await?;
            ensure!(message.contains(word), "{reason}: {message}");
            let done = harness.completed().await?;
            harness.enqueue(20, &json!({ "ms": 100 })).await?;
            harness.until_completed(done + 20).await?;
            let pods = harness.pods().await?;
            let alive = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
            ensure!(alive <= old.len() + 1, "{alive} pods of {reason}");
        }
        handler(harness, &json!({}));
        harness.until_condition("HandlerHealthy", "True Succeeded").await?;
        let summary = harness.check(CALM).await?;
        ensure!(summary.failures == 0, "{summary}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_looping_handler_is_named_and_its_tasks_wait_for_a_fix() -> Result<()> {
    with_harness("crashes", async |harness| {
        let crash = json!({ "env": [{ "name": "MODE", "value": "crash" }] });
        harness
            .task_queue(&json!({ "template": { "spec": { "containers": [harness.handler(&crash)] } } }))?;
        harness.wait_ready();
        harness.enqueue(100, &json!({ "ms": 100 })).await?;
        let message = harness.until_condition("HandlerHealthy", "False CrashLooping").await?;
        ensure!(message.contains("handler") && message.contains("exit code 1"), "{message}");
        harness.until_condition("Ready", "False CrashLooping").await?;
        // Only one such pod is created.
        harness.until_replicas(|replicas| replicas == 1).await?;
        harness.until_condition("ScalingLimited", "True CrashLooping").await?;
        handler(harness, &json!({}));
        harness.until_drained().await?;
        let summary = harness.check(CALM).await?;
        ensure!((summary.completed, summary.failures) == (100, 0), "{summary}");
        Ok(())
    })
    .await
}

/// Replaces the handler's container by a valid one, merged with these fields.
fn handler(harness: &Harness, but: &Value) {
    harness.change(&json!({ "template": { "spec": { "containers": [harness.handler(but)] } } }));
}
