//! The operator with a hundred task queues, against a real API server and a real Postgres: how soon it asks for pods, and what it
//! costs while nothing happens. Nobody runs pods: what counts is when the Deployment says how many there shall be.

mod cluster;
mod process;
mod scene;

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::args::OperatorArgs;
use crate::counts::{median, percentile};
use crate::table::{Row, Table};
use scene::Scene;

/// Goals of the design.
const GOAL_HUNDRED_PODS_SECONDS: f64 = 2.0;
const GOAL_WAKE_SECONDS: f64 = 1.0;
const GOAL_MIB: f64 = 25.0;
const GOAL_CORES: f64 = 0.05;
const GOAL_STATEMENTS_PER_TICK: f64 = 1.0;

/// How often the operator looks.
const TICK: Duration = Duration::from_secs(2);

/// What the start brings, such as tables, Deployments and statuses, is over by then.
const SETTLE: Duration = Duration::from_secs(20);

pub(crate) async fn run(args: OperatorArgs) -> Result<()> {
    let mut table = Table::new("operator", args.is_whole())?;
    let mut scene = Scene::open(args.queues).await?;
    sleep(SETTLE).await;
    table.add(quiet(&scene, &args).await?)?;
    table.add(hundred(&mut scene, args.repeats).await?)?;
    table.add(wake(&mut scene, args.repeats).await?)?;
    let most = scene.operator.peak_mib()?;
    table.add(vec![Row::alone("operator, all of that, peak resident", most, "MiB", Some(GOAL_MIB))])?;
    scene.close().await?;
    table.print()
}

/// What it costs while nothing changes.
async fn quiet(scene: &Scene, args: &OperatorArgs) -> Result<Vec<Row>> {
    let window = Duration::from_secs(args.window);
    let (cpu, counted) = (scene.operator.cpu()?, scene.counts().await?);
    sleep(window).await;
    let cores = scene.operator.cpu()?.saturating_sub(cpu).as_secs_f64() / window.as_secs_f64();
    let then = scene.counts().await?;
    let ticks = window.as_secs_f64() / TICK.as_secs_f64();
    let name = |what: &str| format!("operator, {} task queues asleep, {what}", args.queues);
    let mut rows = vec![
        Row::alone(&name("resident"), scene.operator.resident_mib()?, "MiB", Some(GOAL_MIB)),
        Row::alone(&name("CPU"), cores, "cores", Some(GOAL_CORES)),
        Row::alone(&name("writes"), then.writes - counted.writes, "requests", Some(0.0)),
    ];
    if let (Some(looks), Some(all)) = (counted.looks(&then), counted.statements(&then)) {
        let (looks, all) = (looks / ticks, all / window.as_secs_f64());
        rows.push(Row::alone(&name("looks"), looks, "per tick", Some(GOAL_STATEMENTS_PER_TICK)));
        rows.push(Row::alone(&name("statements, with maintenance"), all, "statements/s", None));
    }
    Ok(rows)
}

/// From the commit of a backlog to a hundred pods asked for.
async fn hundred(scene: &mut Scene, repeats: u32) -> Result<Vec<Row>> {
    let mut took = Vec::new();
    for _ in 0..repeats {
        took.push(scene.up(100_000, 100).await?.as_secs_f64());
        scene.down().await?;
    }
    Ok(vec![
        Row::alone("0 to 100 pods asked for, median", median(&took), "s", Some(GOAL_HUNDRED_PODS_SECONDS)),
        Row::alone(
            "0 to 100 pods asked for, slowest",
            percentile(&took, 100),
            "s",
            Some(GOAL_HUNDRED_PODS_SECONDS),
        ),
    ])
}

/// From the commit of one task to the pod asked for.
async fn wake(scene: &mut Scene, repeats: u32) -> Result<Vec<Row>> {
    let mut took = Vec::new();
    for _ in 0..repeats * 2 {
        took.push(scene.up(1, 1).await?.as_secs_f64());
        scene.down().await?;
    }
    Ok(vec![
        Row::alone("wake from zero, replicas written, median", median(&took), "s", Some(GOAL_WAKE_SECONDS)),
        Row::alone(
            "wake from zero, replicas written, slowest",
            percentile(&took, 100),
            "s",
            Some(GOAL_WAKE_SECONDS),
        ),
    ])
}
