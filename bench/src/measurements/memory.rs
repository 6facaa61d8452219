//! Resident memory of an instance whose slots are all occupied, and how long it takes for a scrape.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::measurements::load::{Load, load};
use crate::processes::{Handler, Instance};
use crate::samples::median;
use crate::scrape;
use crate::table::Row;
use crate::testbed::Testbed;

const SLOTS: u32 = 500;
const GOAL_MIB: f64 = 20.0;
const GOAL_SCRAPE_MS: f64 = 2.0;

/// Number of readings over a few seconds with heartbeats, polls and maintenance. The highest counts.
const SAMPLES: u32 = 10;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(300);

pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let (mut peaks, mut scrapes) = (Vec::new(), Vec::new());
    for _ in 0..testbed.repeats {
        let (mib, scrape_ms) = peak(testbed).await?;
        peaks.push(mib);
        scrapes.push(scrape_ms);
    }
    let row = |what: &str, samples: &[f64], unit, goal| {
        let name = format!("instance, 500 tasks in flight, {what}");
        Row::without_peer(&name, median(samples), unit, Some(goal))
    };
    Ok(vec![row("resident", &peaks, "MiB", GOAL_MIB), row("a scrape", &scrapes, "ms", GOAL_SCRAPE_MS)])
}

/// The most resident memory in MiB, and the median time of a scrape in milliseconds.
async fn peak(testbed: &Testbed) -> Result<(f64, f64)> {
    let database = testbed.queue(SLOTS).await?;
    load(&database, SLOTS, Load::Single).await?;
    let handler = Handler::start(testbed, "sleep", "30s").await?;
    let instance = Instance::start(testbed, &database, &handler, SLOTS)?;
    handler.wait_until("all slots occupied", |counts| counts.running == SLOTS).await?;
    let mut most = 0;
    for _ in 0..SAMPLES {
        sleep(SAMPLE_INTERVAL).await;
        most = most.max(instance.resident_kib()?);
    }
    let scrape_ms = scrape::median_ms(instance.address).await?;
    instance.kill().await?;
    testbed.discard(database).await?;
    Ok((f64::from(most) / 1024.0, scrape_ms))
}
