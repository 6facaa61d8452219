//! A user follows the guide in docs/kubernetes.md.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use rowlock_tests::history::Demands;

use crate::harness::{Harness, NAME, with_harness};
use crate::journal::now;

const TASKS: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tasks_start_pods_and_complete_once_each() -> Result<()> {
    with_harness("guide", test).await
}

async fn test(harness: &Harness) -> Result<()> {
    harness.task_queue(&serde_json::json!({}))?;
    harness.wait_ready();
    ensure!(harness.replicas().await? == Some(0), "pods run although there are no tasks");
    let at = now();
    harness.enqueued(psql(&harness.url)?, at);
    let most = harness.until_replicas(|replicas| 0 < replicas).await?;
    ensure!(most == 2, "{most} pods for 8 workers of 4");
    harness.until_drained().await?;
    harness.until_no_pods().await?;
    let demands = Demands { drained: true, undisturbed: true };
    let summary = harness.check(demands).await?;
    ensure!((summary.completed, summary.runs, summary.failures) == (TASKS, TASKS, 0), "{summary}");
    let shown = harness.kubectl(&["get", "tq"]);
    ensure!(shown.contains(NAME) && shown.contains("True"), "{shown}");
    Ok(())
}

/// Enqueues in one transaction and returns the ids.
fn psql(url: &str) -> Result<Vec<i64>> {
    let select =
        format!("select rowlock.enqueue('{NAME}', 'email', '{{}}') from generate_series(1, {TASKS})");
    let args = ["-Xqt", "-v", "ON_ERROR_STOP=1", "-c", "begin", "-c", &select, "-c", "commit"];
    let output = Command::new("psql").args(args).arg(url).output().context("psql")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    text.split_whitespace().map(|id| id.parse().context("an id")).collect()
}
