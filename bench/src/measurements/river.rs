//! River's own client, run by `bench/peers/river`.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

use crate::testbed::Testbed;

#[derive(Debug, Deserialize)]
struct Report {
    jobs_per_second: f64,
}

/// Jobs per second, from the start of River's client until all jobs are completed in the database.
pub(crate) async fn drain(testbed: &Testbed, jobs: u32, max_workers: u32) -> Result<f64> {
    let database = testbed.database().await?;
    let output = Command::new(&testbed.tools.river)
        .args(["-jobs", &jobs.to_string(), "-max-workers", &max_workers.to_string()])
        .env("DATABASE_URL", &database.url)
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot start the River peer")?;
    ensure!(output.status.success(), "the River peer failed ({})", output.status);
    let report: Report = serde_json::from_slice(&output.stdout).context("the River peer's report")?;
    testbed.discard(database).await?;
    Ok(report.jobs_per_second)
}
