//! Many instances on one queue, compared with a few: more of them must not get in each other's way.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::measurements::in_process::Instances;
use crate::measurements::produce::Backlog;
use crate::samples::median;
use crate::table::Row;
use crate::testbed::Testbed;

/// The peer, and those compared with it.
const FEW: u32 = 8;
const MANY: [u32; 2] = [64, 200];
/// A queue may have 10,000 in all.
const SLOTS: u32 = 50;
const WORK: Duration = Duration::from_millis(1);
const WINDOW: Duration = Duration::from_secs(8);
const GOAL: f64 = 0.9;

pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let (mut few, mut many) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..testbed.repeats {
        few.push(rate(testbed, FEW).await?);
        for (rates, instances) in many.iter_mut().zip(MANY) {
            rates.push(rate(testbed, instances).await?);
        }
    }
    let row = |(rates, instances): (&Vec<f64>, u32)| {
        let name = format!("{instances} instances of {SLOTS} slots, 1 ms of waiting");
        Row::with_peer(&name, median(rates), "tasks/s", &format!("{FEW} instances"), median(&few), GOAL)
    };
    Ok(many.iter().zip(MANY).map(row).collect())
}

async fn rate(testbed: &Testbed, instances: u32) -> Result<f64> {
    let database = testbed.queue(instances * SLOTS).await?;
    let mut instances = Instances::start(&database, instances, SLOTS, WORK)?;
    let backlog = Backlog::keep(&database, Arc::clone(&instances.started)).await?;
    // Slots are granted by heartbeats, one a second; those of many instances take a few rounds.
    instances.wait(testbed.window(WINDOW)).await?;
    let rate = instances.rate(testbed.window(WINDOW)).await?;
    backlog.end().await?;
    instances.drain().await?;
    testbed.discard(database).await?;
    Ok(rate)
}
