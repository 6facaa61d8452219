//! What a stranger does after reading docs/kubernetes.md.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use rowlock_tests::history::Demands;

use crate::journal::now;
use crate::stage::{NAME, Stage, on_stage};

const TASKS: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tasks_of_one_transaction_wake_pods_are_done_once_each_and_the_pods_go() -> Result<()> {
    on_stage("stranger", play).await
}

async fn play(stage: &Stage) -> Result<()> {
    stage.task_queue(&serde_json::json!({}))?;
    stage.wait_ready();
    ensure!(stage.replicas().await? == Some(0), "nothing to do, and yet pods");
    let at = now();
    stage.enqueued(psql(&stage.url)?, at);
    let most = stage.until_replicas(|replicas| 0 < replicas).await?;
    ensure!(most == 2, "{most} pods for 8 workers of 4");
    stage.until_drained().await?;
    stage.until_no_pods().await?;
    let demands = Demands { drained: true, undisturbed: true };
    let summary = stage.check(demands).await?;
    ensure!((summary.completed, summary.runs, summary.failures) == (TASKS, TASKS, 0), "{summary}");
    let shown = stage.kubectl(&["get", "tq"]);
    ensure!(shown.contains(NAME) && shown.contains("True"), "{shown}");
    Ok(())
}

/// One transaction; the ids it got.
fn psql(url: &str) -> Result<Vec<i64>> {
    let select =
        format!("select rowlock.enqueue('{NAME}', 'email', '{{}}') from generate_series(1, {TASKS})");
    let args = ["-Xqt", "-v", "ON_ERROR_STOP=1", "-c", "begin", "-c", &select, "-c", "commit"];
    let output = Command::new("psql").args(args).arg(url).output().context("psql")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    text.split_whitespace().map(|id| id.parse().context("an id")).collect()
}
