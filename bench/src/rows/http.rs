//! What an instance gets out of an HTTP handler, beside what wrk gets out of it. Both are counted in the handler.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};

use crate::counts::median;
use crate::lab::Lab;
use crate::outside::{Handler, Instance};
use crate::rows::load::{Load, load};
use crate::table::Row;

const WORKERS: u32 = 64;
const WINDOW: Duration = Duration::from_secs(6);
const GOAL: f64 = 0.8;

/// Of the backlog: more than a window takes, also when an instance is faster than wrk.
const SPARE_SECONDS: u32 = 6;

/// What is loaded when there is no wrk to tell how much is needed.
const ASSUMED_RATE: f64 = 30_000.0;

pub(crate) async fn measure(lab: &Lab) -> Result<Vec<Row>> {
    let waits = row(lab, "HTTP handler, 1 ms of waiting, 64 at a time", "sleep").await?;
    let computes = row(lab, "HTTP handler, 1 ms of computing, 64 at a time", "spin").await?;
    Ok(vec![waits, computes])
}

async fn row(lab: &Lab, name: &str, work: &str) -> Result<Row> {
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..lab.repeats {
        if let Some(program) = &lab.tools.wrk {
            peers.push(wrk_rate(lab, program, work).await?);
        }
        let expected = peers.last().copied().unwrap_or(ASSUMED_RATE);
        ours.push(instance_rate(lab, work, expected).await?);
    }
    let row = Row::beside(name, median(&ours), "tasks/s", "wrk", median(&peers), GOAL);
    Ok(if peers.is_empty() { row.without_peer("wrk, which is not on PATH") } else { row })
}

async fn wrk_rate(lab: &Lab, program: &Path, work: &str) -> Result<f64> {
    let handler = Handler::start(lab, work, "1ms").await?;
    let window = lab.window(WINDOW);
    let mut process = start_wrk(lab, program, &handler, window * 2 + Duration::from_secs(5))?;
    let rate = handler.rate(window).await?;
    ensure!(process.try_wait()?.is_none(), "wrk ended too early");
    process.kill().await?;
    Ok(rate)
}

fn start_wrk(lab: &Lab, program: &Path, handler: &Handler, length: Duration) -> Result<Child> {
    Command::new(program)
        .args(["-t1", &format!("-c{WORKERS}"), &format!("-d{}s", length.as_secs()), "-s"])
        .arg(&lab.tools.wrk_script)
        .arg(handler.url())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start wrk")
}

async fn instance_rate(lab: &Lab, work: &str, expected: f64) -> Result<f64> {
    let window = lab.window(WINDOW);
    let database = lab.queue(WORKERS).await?;
    let tasks = needed(expected, window);
    load(&database, tasks, Load::Single).await?;
    database.settle_down().await?;
    let handler = Handler::start(lab, work, "1ms").await?;
    let instance = Instance::start(lab, &database, &handler, WORKERS)?;
    let rate = handler.rate(window).await?;
    ensure!(handler.counts().await?.served < tasks, "the backlog ran dry within the window");
    instance.kill().await?;
    lab.discard(database).await?;
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
