//! Requests per second that an instance gets from an HTTP handler that computes, compared with wrk. The
//! handler counts both.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};

use crate::measurements::load::{Load, load};
use crate::processes::{Handler, Instance};
use crate::samples::median;
use crate::table::Row;
use crate::testbed::Testbed;

const SLOTS: u32 = 64;
const WINDOW: Duration = Duration::from_secs(6);
const GOAL: f64 = 0.85;

/// Reserve of the backlog, so that it lasts for a window even if an instance is faster than wrk.
const SPARE_SECONDS: u32 = 6;

/// The backlog if wrk is missing; otherwise wrk's rate decides how many tasks are needed.
const ASSUMED_RATE: f64 = 30_000.0;

pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    Ok(vec![row(testbed, "HTTP handler, 1 ms of computing, 64 at a time", "spin").await?])
}

async fn row(testbed: &Testbed, name: &str, work: &str) -> Result<Row> {
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..testbed.repeats {
        if let Some(program) = &testbed.tools.wrk {
            peers.push(wrk_rate(testbed, program, work, SLOTS).await?);
        }
        let expected = peers.last().copied().unwrap_or(ASSUMED_RATE);
        ours.push(instance_rate(testbed, work, expected).await?);
    }
    let row = Row::with_peer(name, median(&ours), "tasks/s", "wrk", median(&peers), GOAL);
    Ok(if peers.is_empty() { row.peer_missing("wrk, which is not on PATH") } else { row })
}

/// Requests per second that wrk gets over as many connections.
pub(crate) async fn wrk_rate(testbed: &Testbed, program: &Path, work: &str, connections: u32) -> Result<f64> {
    let handler = Handler::start(testbed, work, "1ms").await?;
    let window = testbed.window(WINDOW);
    let mut process =
        start_wrk(testbed, program, &handler, connections, window * 2 + Duration::from_secs(5))?;
    let rate = handler.rate(window).await?;
    ensure!(process.try_wait()?.is_none(), "wrk ended too early");
    process.kill().await?;
    Ok(rate)
}

fn start_wrk(
    testbed: &Testbed,
    program: &Path,
    handler: &Handler,
    connections: u32,
    length: Duration,
) -> Result<Child> {
    Command::new(program)
        .args(["-t1", &format!("-c{connections}"), &format!("-d{}s", length.as_secs()), "-s"])
        .arg(&testbed.tools.wrk_script)
        .arg(handler.url())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start wrk")
}

async fn instance_rate(testbed: &Testbed, work: &str, expected: f64) -> Result<f64> {
    let window = testbed.window(WINDOW);
    let database = testbed.queue(SLOTS).await?;
    let tasks = needed(expected, window);
    load(&database, tasks, Load::Single).await?;
    database.settle_down().await?;
    let handler = Handler::start(testbed, work, "1ms").await?;
    let instance = Instance::start(testbed, &database, &handler, SLOTS)?;
    let rate = handler.rate(window).await?;
    ensure!(handler.counts().await?.served < tasks, "the backlog ran dry within the window");
    instance.kill().await?;
    testbed.discard(database).await?;
    Ok(rate)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of tasks are small and positive"
)]
fn needed(rate: f64, window: Duration) -> u32 {
    (rate * (window.as_secs_f64() + f64::from(SPARE_SECONDS))).ceil() as u32
}
