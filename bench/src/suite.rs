//! Runs the main benchmarks: prepares everything, then measures one group of rows after the other.

use anyhow::{Result, bail};

use crate::args::{Group, MainArgs};
use crate::measurements::{
    drain, enqueue, fleet, horizon, http, idle, instance, kills, latency, memory, statistics, traces, wal,
};
use crate::table::{Row, Table};
use crate::testbed::Testbed;
use crate::tools::Tools;

const GROUPS: [Group; 13] = [
    Group::Enqueue,
    Group::Drain,
    Group::Instance,
    Group::Http,
    Group::Latency,
    Group::Wal,
    Group::Fleet,
    Group::Kills,
    Group::Memory,
    Group::Idle,
    Group::Traces,
    Group::Statistics,
    Group::Horizon,
];

/// If a group fails, the others are still measured. The exit code is 1 if a group failed or a goal is missed.
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
    match shortcomings(&failed, &table.missed()) {
        Some(what) => bail!(what),
        None => Ok(()),
    }
}

/// What the run ends with, which is its last line. `None`: all is measured, and no goal is missed.
fn shortcomings(failed: &[Group], missed: &[&str]) -> Option<String> {
    let failed = (!failed.is_empty()).then(|| format!("not measured: {failed:?}"));
    let missed = (!missed.is_empty()).then(|| format!("goals missed: {}", missed.join("; ")));
    let parts: Vec<_> = failed.into_iter().chain(missed).collect();
    (!parts.is_empty()).then(|| parts.join(". "))
}

async fn measure(testbed: &Testbed, group: Group) -> Result<Vec<Row>> {
    match group {
        Group::Enqueue => enqueue::measure(testbed).await,
        Group::Drain => drain::measure(testbed).await,
        Group::Instance => instance::measure(testbed).await,
        Group::Http => http::measure(testbed).await,
        Group::Latency => latency::measure(testbed).await,
        Group::Wal => wal::measure(testbed).await,
        Group::Fleet => fleet::measure(testbed).await,
        Group::Kills => kills::measure(testbed).await,
        Group::Memory => memory::measure(testbed).await,
        Group::Idle => idle::measure(testbed).await,
        Group::Traces => traces::measure(testbed).await,
        Group::Statistics => statistics::measure(testbed).await,
        Group::Horizon => horizon::measure(testbed).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_goal_and_a_group_without_numbers_are_both_named() {
        assert_eq!(shortcomings(&[], &[]), None);
        assert_eq!(shortcomings(&[], &["drain", "idle"]).unwrap(), "goals missed: drain; idle");
        assert_eq!(shortcomings(&[Group::Http], &[]).unwrap(), "not measured: [Http]");
        let both = shortcomings(&[Group::Http], &["drain"]).unwrap();
        assert_eq!(both, "not measured: [Http]. goals missed: drain");
    }
}
