//! Other queues, each run by its own client: the programs in `bench/peers`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

use crate::testbed::Testbed;

/// What a program prints.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) jobs_per_second: f64,
    /// How long jobs waited at half of that rate, in milliseconds.
    pub(crate) p99_ms: Option<f64>,
}

/// A queue whose drain is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// With this `MaxWorkers`.
    River(u32),
    PgBoss,
    Graphile,
}

impl Peer {
    /// Those that keep finished jobs, as Rowlock does.
    pub(crate) const WITH_HISTORY: [Self; 3] = [Self::River(500), Self::River(2000), Self::PgBoss];

    pub(crate) fn title(self) -> String {
        match self {
            Self::River(workers) => format!("River 0.51, MaxWorkers {workers}"),
            Self::PgBoss => "pg-boss 12.38".to_owned(),
            Self::Graphile => "Graphile Worker 0.18, batched".to_owned(),
        }
    }

    /// Jobs per second, from the start of the client until all jobs are settled in the database. `None`: the
    /// peer is not installed.
    pub(crate) async fn drain(self, testbed: &Testbed, jobs: u32) -> Result<Option<f64>> {
        let jobs = jobs.to_string();
        let report = match self {
            Self::River(workers) => {
                let workers = workers.to_string();
                let arguments = ["-jobs", &jobs, "-max-workers", &workers];
                Some(run(testbed, &testbed.tools.river, &arguments).await?)
            }
            Self::PgBoss => run_node(testbed, "pg_boss.mjs", &["--jobs", &jobs]).await?,
            Self::Graphile => run_node(testbed, "graphile.mjs", &["drain", "--jobs", &jobs]).await?,
        };
        Ok(report.map(|report| report.jobs_per_second))
    }
}

/// One process of Graphile Worker with jobs that wait 1 ms.
pub(crate) async fn graphile_instance(
    testbed: &Testbed,
    slots: u32,
    window: Duration,
) -> Result<Option<Report>> {
    let (slots, seconds) = (slots.to_string(), window.as_secs_f64().to_string());
    run_node(testbed, "graphile.mjs", &["instance", "--concurrency", &slots, "--seconds", &seconds]).await
}

async fn run_node(testbed: &Testbed, program: &str, arguments: &[&str]) -> Result<Option<Report>> {
    let Some(node) = &testbed.tools.node else { return Ok(None) };
    let program = node.folder.join(program).display().to_string();
    let arguments: Vec<&str> = std::iter::once(program.as_str()).chain(arguments.iter().copied()).collect();
    run(testbed, &node.program, &arguments).await.map(Some)
}

async fn run(testbed: &Testbed, program: &Path, arguments: &[&str]) -> Result<Report> {
    let database = testbed.database().await?;
    let output = Command::new(program)
        .args(arguments)
        .env("DATABASE_URL", &database.url)
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(output.status.success(), "{} {arguments:?} failed ({})", program.display(), output.status);
    let report = serde_json::from_slice(&output.stdout).context("the peer's report")?;
    testbed.discard(database).await?;
    Ok(report)
}
