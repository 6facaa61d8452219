//! One instance with tasks that wait 1 ms, and a producer beside it: its rate in this process and over HTTP,
//! beside wrk on the same handler and beside Graphile Worker; and how long tasks wait at half of that rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::measurements::http::wrk_rate;
use crate::measurements::in_process::Instances;
use crate::measurements::peers::{Peer, graphile_instance};
use crate::measurements::produce::{Backlog, steadily};
use crate::processes::{Handler, Instance};
use crate::samples::{median, percentile};
use crate::table::{Better, Row};
use crate::testbed::Testbed;

/// Slots, and the rate that is enough where wrk is faster still.
const SLOTS: [(u32, f64); 3] = [(10, 5_000.0), (64, 20_000.0), (256, 40_000.0)];
/// Of wrk.
const SHARE: f64 = 0.8;
/// The slots of the rows about waits.
const WAITING_SLOTS: u32 = 64;
const GOAL_WAIT_MS: f64 = 50.0;
const WORK: Duration = Duration::from_millis(1);
const WINDOW: Duration = Duration::from_secs(6);
/// How often the producer beside a worker process learns what the handler has served.
const COUNT_EVERY: Duration = Duration::from_millis(20);

/// What the repeats measured with one number of slots, in tasks per second.
#[derive(Default)]
struct Rates {
    in_process: Vec<f64>,
    http: Vec<f64>,
    wrk: Vec<f64>,
    graphile: Vec<f64>,
}

/// How long tasks waited at half of the highest rate: the 99th percentiles in milliseconds.
#[derive(Default)]
struct Waits {
    ours: Vec<f64>,
    graphile: Vec<f64>,
}

pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let (mut rows, mut waits) = (Vec::new(), Waits::default());
    for (slots, enough) in SLOTS {
        let mut rates = Rates::default();
        for _ in 0..testbed.repeats {
            repeat(testbed, slots, &mut rates, &mut waits).await?;
        }
        rows.extend(rate_rows(slots, enough, &rates));
    }
    rows.extend(wait_rows(&waits));
    Ok(rows)
}

async fn repeat(testbed: &Testbed, slots: u32, rates: &mut Rates, waits: &mut Waits) -> Result<()> {
    let window = testbed.window(WINDOW);
    if let Some(program) = &testbed.tools.wrk {
        rates.wrk.push(wrk_rate(testbed, program, "sleep", slots).await?);
    }
    let (rate, p99) = in_process(testbed, slots).await?;
    rates.in_process.push(rate);
    rates.http.push(over_http(testbed, slots).await?);
    let graphile = graphile_instance(testbed, slots, window).await?;
    rates.graphile.extend(graphile.as_ref().map(|report| report.jobs_per_second));
    if slots == WAITING_SLOTS {
        waits.ours.push(p99);
        waits.graphile.extend(graphile.and_then(|report| report.p99_ms));
    }
    Ok(())
}

/// Tasks per second, and the wait at half of that.
async fn in_process(testbed: &Testbed, slots: u32) -> Result<(f64, f64)> {
    let window = testbed.window(WINDOW);
    let database = testbed.queue(slots).await?;
    let mut instances = Instances::start(&database, 1, slots, WORK)?;
    let backlog = Backlog::keep(&database, Arc::clone(&instances.started)).await?;
    let rate = instances.rate(window).await?;
    backlog.end().await?;
    instances.drain().await?;
    testbed.discard(database).await?;
    let p99 = if slots == WAITING_SLOTS { wait_at(testbed, slots, rate / 2.0).await? } else { f64::NAN };
    Ok((rate, p99))
}

async fn wait_at(testbed: &Testbed, slots: u32, per_second: f64) -> Result<f64> {
    let database = testbed.queue(slots).await?;
    let mut instances = Instances::start(&database, 1, slots, WORK)?;
    // The first second warms everything up.
    steadily(&database, per_second, Duration::from_secs(1)).await?;
    instances.wait(Duration::from_secs(1)).await?;
    instances.take_waits();
    let tasks = steadily(&database, per_second, testbed.window(WINDOW)).await?;
    let mut waits = instances.take_waits();
    while waits.len() < tasks as usize {
        instances.wait(COUNT_EVERY).await?;
        waits.extend(instances.take_waits());
    }
    instances.drain().await?;
    testbed.discard(database).await?;
    Ok(percentile(&waits, 99))
}

async fn over_http(testbed: &Testbed, slots: u32) -> Result<f64> {
    let database = testbed.queue(slots).await?;
    let handler = Handler::start(testbed, "sleep", "1ms").await?;
    let instance = Instance::start(testbed, &database, &handler, slots)?;
    let served = Arc::new(AtomicU32::new(0));
    let backlog = Backlog::keep(&database, Arc::clone(&served)).await?;
    let counting = async {
        loop {
            served.store(handler.counts().await?.served, Ordering::Relaxed);
            sleep(COUNT_EVERY).await;
        }
    };
    let rate = tokio::select! {
        rate = handler.rate(testbed.window(WINDOW)) => rate?,
        failed = counting => return failed,
    };
    backlog.end().await?;
    instance.kill().await?;
    testbed.discard(database).await?;
    Ok(rate)
}

fn rate_rows(slots: u32, enough: f64, rates: &Rates) -> Vec<Row> {
    let (wrk, graphile) = (median(&rates.wrk), median(&rates.graphile));
    let goal = (SHARE.min(enough / wrk) * 100.0).round() / 100.0;
    let mut rows = Vec::new();
    for (how, ours) in [("in process", &rates.in_process), ("HTTP", &rates.http)] {
        let name = format!("instance, 1 ms of waiting, {slots} slots, {how}");
        let row = Row::with_peer(&name, median(ours), "tasks/s", "wrk", wrk, goal);
        let missing = || row.clone().peer_missing("wrk, which is not on PATH");
        rows.push(if rates.wrk.is_empty() { missing() } else { row });
    }
    let name = format!("instance, 1 ms of waiting, {slots} slots, in process");
    let peer = Peer::Graphile.title();
    let row = Row::with_peer(&name, median(&rates.in_process), "tasks/s", &peer, graphile, 1.0);
    let missing = || row.clone().peer_missing("Graphile Worker; npm is not on PATH");
    rows.push(if rates.graphile.is_empty() { missing() } else { row });
    rows
}

fn wait_rows(waits: &Waits) -> [Row; 2] {
    let (ours, graphile) = (median(&waits.ours), median(&waits.graphile));
    let name = "wait at half of the highest rate, 64 slots, p99";
    let beside =
        Row::with_peer(name, ours, "ms", &Peer::Graphile.title(), graphile, 0.5).better(Better::Lower);
    let missing = || beside.clone().peer_missing("Graphile Worker; npm is not on PATH");
    [
        Row::without_peer(name, ours, "ms", Some(GOAL_WAIT_MS)),
        if waits.graphile.is_empty() { missing() } else { beside },
    ]
}
