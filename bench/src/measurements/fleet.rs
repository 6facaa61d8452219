//! Many instances on one queue, compared with a few that have as many slots together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::measurements::in_process::Instances;
use crate::measurements::produce::Backlog;
use crate::samples::median;
use crate::table::Row;
use crate::testbed::Testbed;

/// The peer, and those compared with it: instances, and slots of each.
const FEW: (u32, u32) = (8, 64);
const MANY: [(u32, u32); 2] = [(64, 8), (200, 3)];
const WORK: Duration = Duration::from_millis(1);
const WINDOW: Duration = Duration::from_secs(8);
const GOAL: f64 = 0.9;

pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let (mut few, mut many) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..testbed.repeats {
        few.push(rate(testbed, FEW).await?);
        for (rates, fleet) in many.iter_mut().zip(MANY) {
            rates.push(rate(testbed, fleet).await?);
        }
    }
    let row = |(rates, (instances, slots)): (&Vec<f64>, (u32, u32))| {
        let name = format!("{instances} instances of {slots} slots, 1 ms of waiting");
        let peer = format!("{} instances of {} slots", FEW.0, FEW.1);
        Row::with_peer(&name, median(rates), "tasks/s", &peer, median(&few), GOAL)
    };
    Ok(many.iter().zip(MANY).map(row).collect())
}

async fn rate(testbed: &Testbed, (instances, slots): (u32, u32)) -> Result<f64> {
    let database = testbed.queue(instances * slots).await?;
    let mut instances = Instances::start(&database, instances, slots, WORK)?;
    let backlog = Backlog::keep(&database, Arc::clone(&instances.started)).await?;
    // Slots are granted by heartbeats, one a second; those of many instances take a few rounds.
    instances.wait(testbed.window(WINDOW)).await?;
    let rate = instances.rate(testbed.window(WINDOW)).await?;
    backlog.end().await?;
    instances.drain().await?;
    testbed.discard(database).await?;
    Ok(rate)
}
