//! When a queue is scaled in, idle pods go, and no task is cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, ensure};
use kube::ResourceExt;
use rowlock_tests::history::Demands;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::harness::{Harness, until, with_harness};

/// How often the queue is scaled in, from how many pods, and to how many.
const ROUNDS: usize = 4;
const FROM: usize = 6;
const TO: usize = 3;

/// The annotation that the operator sets on the pods that it has chosen.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// How long a task takes. With about two of them at any time, some pods are idle, and any pod may begin one
/// at any moment.
const MILLIS: u64 = 1500;

#[tokio::test(flavor = "multi_thread")]
async fn idle_pods_go_and_no_task_is_cut_off() -> Result<()> {
    with_harness("scale-in", async |harness| {
        harness.task_queue(&json!({ "workers": {
            "total": FROM, "perPod": 1, "scaling": "External", "replicas": FROM, "autoscaling": null,
        } }))?;
        harness.wait_ready();
        let stop = CancellationToken::new();
        let (fed, rounds) = tokio::join!(feed(harness, &stop), async {
            let rounds = rounds(harness).await;
            stop.cancel();
            rounds
        });
        let (chosen, gone) = rounds?;
        fed?;
        harness.until_drained().await?;
        let summary = harness.check(Demands { drained: true, undisturbed: true }).await?;
        ensure!((summary.failures, summary.rescued_instances) == (0, 0), "{summary}");
        eprintln!("scale-in: {chosen} of the {gone} pods that went were chosen");
        ensure!(gone == ROUNDS * (FROM - TO), "{gone} pods went");
        ensure!(95 * gone <= 100 * chosen, "{chosen} of {gone}");
        Ok(())
    })
    .await
}

/// Keeps about two tasks running, until it is stopped.
async fn feed(harness: &Harness, stop: &CancellationToken) -> Result<()> {
    while !stop.is_cancelled() {
        if harness.open().await? < 2 {
            harness.enqueue(1, &json!({ "ms": MILLIS })).await?;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Returns how many of the pods that went were chosen, and how many went.
async fn rounds(harness: &Harness) -> Result<(usize, usize)> {
    let (mut chosen, mut gone) = (0, 0);
    for round in 0..ROUNDS {
        harness.change(&json!({ "workers": { "replicas": FROM } }));
        let before = harness.until_pods(FROM).await?;
        let before: BTreeSet<String> = before.iter().filter_map(ResourceExt::uid).collect();
        // Tasks run in some of them.
        let done = harness.completed().await?;
        harness.until_completed(done + 2).await?;
        harness.change(&json!({ "workers": { "replicas": TO } }));
        let (went, were_chosen) = until_gone(harness, &before).await?;
        eprintln!("scale-in: round {round}: {were_chosen} of {went} were chosen");
        (chosen, gone) = (chosen + were_chosen, gone + went);
    }
    Ok((chosen, gone))
}

/// Waits until only the wanted pods are left. Returns how many went, and how many of them had a deletion cost
/// when they were seen last.
async fn until_gone(harness: &Harness, before: &BTreeSet<String>) -> Result<(usize, usize)> {
    let costs: Mutex<BTreeMap<String, bool>> = Mutex::default();
    let left = until("the pods have gone", || async {
        let pods = harness.pods().await?;
        let pods = pods.iter().filter_map(|pod| Some((pod.uid()?, pod.annotations().contains_key(COST))));
        let pods: BTreeMap<String, bool> = pods.collect();
        costs.lock().unwrap().extend(pods.clone());
        ensure!(pods.len() == TO, "{} pods", pods.len());
        Ok(pods)
    })
    .await?;
    let went: Vec<&String> = before.iter().filter(|uid| !left.contains_key(*uid)).collect();
    let costs = costs.lock().unwrap();
    let chosen = went.iter().filter(|uid| costs.get(**uid) == Some(&true)).count();
    Ok((went.len(), chosen))
}
