//! Resident memory of an instance whose workers are all busy.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::counts::median;
use crate::lab::Lab;
use crate::outside::{Handler, Instance};
use crate::rows::load::{Load, load};
use crate::table::Row;

const WORKERS: u32 = 500;
const GOAL_MIB: f64 = 20.0;

/// Looked at this often over a few seconds, with heartbeats, polls and maintenance; the highest counts.
const LOOKS: u32 = 10;
const LOOK_EVERY: Duration = Duration::from_millis(300);

pub(crate) async fn measure(lab: &Lab) -> Result<Vec<Row>> {
    let mut peaks = Vec::new();
    for _ in 0..lab.repeats {
        peaks.push(peak(lab).await?);
    }
    Ok(vec![Row::alone("instance, 500 tasks in flight, resident", median(&peaks), "MiB", Some(GOAL_MIB))])
}

async fn peak(lab: &Lab) -> Result<f64> {
    let database = lab.queue(WORKERS).await?;
    load(&database, WORKERS, Load::Single).await?;
    let handler = Handler::start(lab, "sleep", "30s").await?;
    let instance = Instance::start(lab, &database, &handler, WORKERS)?;
    handler.wait_until("all workers busy", |counts| counts.running == WORKERS).await?;
    let mut most = 0;
    for _ in 0..LOOKS {
        sleep(LOOK_EVERY).await;
        most = most.max(instance.resident_kib()?);
    }
    instance.kill().await?;
    lab.discard(database).await?;
    Ok(f64::from(most) / 1024.0)
}
