//! The operator with a hundred TaskQueues, a real API server and a real Postgres: how soon it scales up, and
//! what it costs while idle. There are no pods; a Deployment's `spec.replicas` counts.

mod cluster;
mod process;
mod testbed;

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::args::OperatorArgs;
use crate::samples::{median, percentile};
use crate::table::{Row, Table};
use testbed::Testbed;

/// The goals.
const GOAL_HUNDRED_PODS_SECONDS: f64 = 2.0;
const GOAL_WAKE_SECONDS: f64 = 1.0;
const GOAL_MIB: f64 = 25.0;
const GOAL_CORES: f64 = 0.05;
const GOAL_STATEMENTS_PER_TICK: f64 = 1.0;

/// How often the operator polls the database.
const TICK: Duration = Duration::from_secs(2);

/// By then the operator has migrated the schema and written all Deployments and statuses.
const SETTLE: Duration = Duration::from_secs(20);

pub(crate) async fn run(args: OperatorArgs) -> Result<()> {
    let mut table = Table::new("operator", args.is_complete())?;
    let mut testbed = Testbed::open(args.queues).await?;
    sleep(SETTLE).await;
    table.add(measure_idle(&testbed, &args).await?)?;
    table.add(measure_hundred_pods(&mut testbed, args.repeats).await?)?;
    table.add(measure_wake_up(&mut testbed, args.repeats).await?)?;
    let most = testbed.operator.peak_mib()?;
    table.add(vec![Row::without_peer(
        "operator, all of that, peak resident",
        most,
        "MiB",
        Some(GOAL_MIB),
    )])?;
    testbed.close().await?;
    table.print()
}

/// The cost of the idle operator.
async fn measure_idle(testbed: &Testbed, args: &OperatorArgs) -> Result<Vec<Row>> {
    let window = Duration::from_secs(args.window);
    let (cpu, counted) = (testbed.operator.cpu()?, testbed.counts().await?);
    sleep(window).await;
    let cores = testbed.operator.cpu()?.saturating_sub(cpu).as_secs_f64() / window.as_secs_f64();
    let then = testbed.counts().await?;
    let ticks = window.as_secs_f64() / TICK.as_secs_f64();
    let name = |what: &str| format!("operator, {} task queues asleep, {what}", args.queues);
    let mut rows = vec![
        Row::without_peer(&name("resident"), testbed.operator.resident_mib()?, "MiB", Some(GOAL_MIB)),
        Row::without_peer(&name("CPU"), cores, "cores", Some(GOAL_CORES)),
        Row::without_peer(&name("writes"), then.writes - counted.writes, "requests", Some(0.0)),
    ];
    if let (Some(looks), Some(all)) = (counted.statistics_queries(&then), counted.statements(&then)) {
        let (looks, all) = (looks / ticks, all / window.as_secs_f64());
        rows.push(Row::without_peer(
            &name("statistics queries"),
            looks,
            "per tick",
            Some(GOAL_STATEMENTS_PER_TICK),
        ));
        rows.push(Row::without_peer(&name("statements, with maintenance"), all, "statements/s", None));
    }
    Ok(rows)
}

/// From the commit of a backlog to `spec.replicas: 100`.
async fn measure_hundred_pods(testbed: &mut Testbed, repeats: u32) -> Result<Vec<Row>> {
    let mut took = Vec::new();
    for _ in 0..repeats {
        took.push(testbed.up(100_000, 100).await?.as_secs_f64());
        testbed.down().await?;
    }
    Ok(vec![
        Row::without_peer(
            "0 to 100 pods asked for, median",
            median(&took),
            "s",
            Some(GOAL_HUNDRED_PODS_SECONDS),
        ),
        Row::without_peer(
            "0 to 100 pods asked for, slowest",
            percentile(&took, 100),
            "s",
            Some(GOAL_HUNDRED_PODS_SECONDS),
        ),
    ])
}

/// From the commit of one task to `spec.replicas: 1`.
async fn measure_wake_up(testbed: &mut Testbed, repeats: u32) -> Result<Vec<Row>> {
    let mut took = Vec::new();
    for _ in 0..repeats * 2 {
        took.push(testbed.up(1, 1).await?.as_secs_f64());
        testbed.down().await?;
    }
    Ok(vec![
        Row::without_peer(
            "wake from zero, replicas written, median",
            median(&took),
            "s",
            Some(GOAL_WAKE_SECONDS),
        ),
        Row::without_peer(
            "wake from zero, replicas written, slowest",
            percentile(&took, 100),
            "s",
            Some(GOAL_WAKE_SECONDS),
        ),
    ])
}
