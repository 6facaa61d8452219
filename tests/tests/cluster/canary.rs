//! A canary with real pods: a handler that fails goes back, and one that works goes to all pods.

use anyhow::{Result, ensure};
use kube::ResourceExt;
use rowlock_tests::history::Demands;
use serde_json::{Value, json};

use crate::harness::{Harness, with_harness};
use crate::polling::until;

/// As long as both parts of the test take with all slots.
const TASKS: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_goes_back_and_one_that_works_goes_to_all_pods() -> Result<()> {
    with_harness("canary", test).await
}

async fn test(harness: &Harness) -> Result<()> {
    harness.task_queue(&json!({
        "workers": { "total": 12, "perPod": 4, "autoscaling": { "min": 12 } },
        "rollout": { "canary": { "share": 1, "minRuns": 20, "minTime": "1s" } },
    }))?;
    harness.wait_ready();
    let old: Vec<String> = harness.until_pods(3).await?.iter().map(ResourceExt::name_any).collect();
    harness.enqueue(TASKS, &json!({ "ms": 500 })).await?;
    handler(harness, "fail");
    let message = harness.until_condition("Stalled", "True CanaryFailed").await?;
    ensure!(message.contains("of the new pods failed"), "{message}");
    // Of four pods, one was new.
    let failed = harness.count("select count(*) from rowlock.task_error").await?;
    let done = harness.completed().await?;
    eprintln!("{failed} runs failed and {done} completed");
    ensure!(5 <= failed && 4 * failed <= failed + done, "{failed} runs failed and {done} completed");
    until("only the old pods are left", || async {
        let left: Vec<String> = harness.pods().await?.iter().map(ResourceExt::name_any).collect();
        ensure!(left.len() == old.len() && old.iter().all(|name| left.contains(name)), "{left:?} of {old:?}");
        Ok(())
    })
    .await?;
    handler(harness, "other");
    until("all pods are new", || async {
        let pods = harness.ready_pods().await?;
        let are_new = pods.iter().all(|pod| !old.contains(&pod.name_any()));
        ensure!(are_new && pods.len() == old.len(), "{} pods", pods.len());
        Ok(())
    })
    .await?;
    harness.until_condition("Stalled", "False Succeeded").await?;
    harness.until_drained().await?;
    harness.check(Demands { drained: true, undisturbed: true }).await?;
    Ok(())
}

/// Gives the handler another mode.
fn handler(harness: &Harness, mode: &str) {
    let journal: Value = json!({ "name": "JOURNAL", "value": harness.journal.at.to_string() });
    let handler = harness.handler(&json!({ "env": [journal, { "name": "MODE", "value": mode }] }));
    harness.change(&json!({ "template": { "spec": { "containers": [handler] } } }));
}
