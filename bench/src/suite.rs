//! Runs the main benchmarks: prepares everything, then measures one group of rows after the other.

use anyhow::{Result, bail};

use crate::args::{Group, MainArgs};
use crate::measurements::{drain, enqueue, http, idle, latency, memory, traces};
use crate::table::{Row, Table};
use crate::testbed::Testbed;
use crate::tools::Tools;

const GROUPS: [Group; 7] =
    [Group::Enqueue, Group::Drain, Group::Latency, Group::Http, Group::Memory, Group::Idle, Group::Traces];

/// If a group fails, the others are still measured, and the exit code is 1.
pub(crate) async fn run(args: MainArgs) -> Result<()> {
    let tools = Tools::build().await?;
    let mut testbed = Testbed::open(&args, tools).await?;
    let mut table = Table::new("main", args.is_complete())?;
    let mut failed = Vec::new();
    for group in GROUPS.into_iter().filter(|&group| args.wants(group)) {
        match measure(&testbed, group).await {
            Ok(rows) => table.add(rows)?,
            Err(error) => {
                eprintln!("{group:?}: {error:#}");
                failed.push(group);
            }
        }
    }
    testbed.close().await?;
    table.print()?;
    if !failed.is_empty() {
        bail!("not measured: {failed:?}");
    }
    Ok(())
}

async fn measure(testbed: &Testbed, group: Group) -> Result<Vec<Row>> {
    match group {
        Group::Enqueue => enqueue::measure(testbed).await,
        Group::Drain => drain::measure(testbed).await,
        Group::Latency => latency::measure(testbed).await,
        Group::Http => http::measure(testbed).await,
        Group::Memory => memory::measure(testbed).await,
        Group::Idle => idle::measure(testbed).await,
        Group::Traces => traces::measure(testbed).await,
    }
}
