//! The operator with a hundred, a thousand and five thousand TaskQueues, a real API server and a real
//! Postgres: how soon it scales up, and what it costs while idle. There are no nodes: a Deployment's
//! `spec.replicas` counts, and the pods of the thousand are written as a kubelet would.

pub(crate) mod cluster;
pub(crate) mod layout;
pub(crate) mod process;
mod testbed;

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;

use crate::args::{Fleet, OperatorArgs};
use crate::samples::{median, percentile};
use crate::scrape;
use crate::table::{Row, Table};
use layout::Layout;
use testbed::Testbed;

/// The goals.
const GOAL_HUNDRED_PODS_SECONDS: f64 = 2.0;
const GOAL_WAKE_SECONDS: f64 = 1.0;
const GOAL_CORES: f64 = 0.05;
const GOAL_STATEMENTS_PER_TICK: f64 = 1.0;
const GOAL_WRITES_OF_A_CHANGE: f64 = 4.0;
const GOAL_UNRELATED_MIB: f64 = 1.0;

/// How often the operator polls a database.
const TICK: Duration = Duration::from_secs(2);

/// After this time the operator has written all Deployments and statuses.
const SETTLE: Duration = Duration::from_secs(20);

/// How long the operator has for one change, before its writes are counted.
const CHANGE: Duration = Duration::from_secs(15);

/// Pods of other applications, in a namespace that the operator watches.
const UNRELATED_PODS: usize = 2000;

/// What a layout is measured against: memory, the operator's processor time per tick, and a scrape.
#[derive(Clone, Copy)]
struct Goals {
    mib: f64,
    tick_ms: f64,
    scrape_ms: f64,
    /// Longer statements make the operator poll less often.
    statistics_ms: f64,
}

const HUNDRED: Layout = Layout {
    name: "100 task queues",
    queues: 100,
    databases: 1,
    secrets: 10,
    has_namespaces: false,
    has_pods: false,
};
const GOALS_OF_HUNDRED: Goals = Goals { mib: 25.0, tick_ms: 100.0, scrape_ms: 50.0, statistics_ms: 100.0 };

const THOUSAND: Layout = Layout {
    name: "1,000 in 50 databases",
    queues: 1000,
    databases: 50,
    secrets: 1,
    has_namespaces: true,
    has_pods: true,
};
const GOALS_OF_THOUSAND: Goals = Goals { mib: 60.0, tick_ms: 100.0, scrape_ms: 50.0, statistics_ms: 100.0 };

const FIVE_THOUSAND: Layout = Layout {
    name: "5,000 in one database",
    queues: 5000,
    databases: 1,
    secrets: 1,
    has_namespaces: false,
    has_pods: false,
};
/// Five times those of a thousand.
const GOALS_OF_FIVE_THOUSAND: Goals =
    Goals { mib: 300.0, tick_ms: 500.0, scrape_ms: 250.0, statistics_ms: 500.0 };

pub(crate) async fn run(args: OperatorArgs) -> Result<()> {
    let mut table = Table::new("operator", args.is_complete())?;
    if args.wants(Fleet::Hundred) {
        let mut testbed = open(HUNDRED).await?;
        table.add(measure_idle(&testbed, &args, GOALS_OF_HUNDRED).await?)?;
        table.add(measure_hundred_pods(&mut testbed, args.repeats).await?)?;
        table.add(measure_wake_up(&mut testbed, args.repeats, "").await?)?;
        table.add(measure_peak(&testbed, GOALS_OF_HUNDRED)?)?;
        testbed.close().await?;
    }
    if args.wants(Fleet::Thousand) {
        let testbed = open(THOUSAND).await?;
        table.add(measure_idle(&testbed, &args, GOALS_OF_THOUSAND).await?)?;
        table.add(measure_change(&testbed).await?)?;
        let watches = testbed.watches().await?;
        let name = format!("operator, {}, watches of a kind", THOUSAND.name);
        table.add(vec![Row::without_peer(&name, watches, "watches", Some(1.0))])?;
        table.add(measure_unrelated(&testbed).await?)?;
        table.add(measure_peak(&testbed, GOALS_OF_THOUSAND)?)?;
        testbed.close().await?;
    }
    if args.wants(Fleet::FiveThousand) {
        let mut testbed = open(FIVE_THOUSAND).await?;
        table.add(measure_idle(&testbed, &args, GOALS_OF_FIVE_THOUSAND).await?)?;
        table.add(measure_change(&testbed).await?)?;
        table.add(measure_wake_up(&mut testbed, args.repeats, ", of 5,000").await?)?;
        table.add(measure_peak(&testbed, GOALS_OF_FIVE_THOUSAND)?)?;
        testbed.close().await?;
    }
    table.print()?;
    let missed = table.missed();
    ensure!(missed.is_empty(), "goals missed: {}", missed.join(", "));
    Ok(())
}

async fn open(layout: Layout) -> Result<Testbed> {
    let testbed = Testbed::open(layout).await?;
    sleep(SETTLE).await;
    Ok(testbed)
}

/// The cost of the idle operator.
async fn measure_idle(testbed: &Testbed, args: &OperatorArgs, goals: Goals) -> Result<Vec<Row>> {
    let window = Duration::from_secs(args.window);
    let (cpu, counted) = (testbed.operator.cpu()?, testbed.counts().await?);
    sleep(window).await;
    let cores = testbed.operator.cpu()?.saturating_sub(cpu).as_secs_f64() / window.as_secs_f64();
    let then = testbed.counts().await?;
    let ticks = window.as_secs_f64() / TICK.as_secs_f64();
    let name = |what: &str| format!("operator, {}, {what}", testbed.layout.name);
    let row = |what: &str, value, unit, goal| Row::without_peer(&name(what), value, unit, goal);
    let tick_ms = cores * TICK.as_secs_f64() * 1000.0;
    let mut rows = vec![
        row("resident", testbed.operator.resident_mib()?, "MiB", Some(goals.mib)),
        row("CPU of a tick", tick_ms, "ms", Some(goals.tick_ms)),
        row("a scrape", scrape::median_ms(testbed.operator.address).await?, "ms", Some(goals.scrape_ms)),
        row("writes", then.writes - counted.writes, "requests", Some(0.0)),
    ];
    if testbed.layout.queues == HUNDRED.queues {
        rows.push(row("CPU", cores, "cores", Some(GOAL_CORES)));
    }
    if let Some(statements) = counted.statements(&then) {
        let databases = f64::from(u32::try_from(testbed.layout.databases)?);
        let looks = statements.statistics / ticks / databases;
        let took = statements.statistics_ms / statements.statistics.max(1.0);
        let all = statements.all / window.as_secs_f64() / databases;
        rows.push(row("statistics queries", looks, "per tick, DB", Some(GOAL_STATEMENTS_PER_TICK)));
        rows.push(row("such a query", took, "ms", Some(goals.statistics_ms)));
        rows.push(row("declarations", statements.declarations, "statements", Some(0.0)));
        rows.push(row("statements, with maintenance", all, "per s, DB", None));
    }
    Ok(rows)
}

/// What the operator writes when one TaskQueue changes.
async fn measure_change(testbed: &Testbed) -> Result<Vec<Row>> {
    let before = testbed.counts().await?.writes;
    testbed.change_one().await?;
    sleep(CHANGE).await;
    // The change is a write, too.
    let writes = testbed.counts().await?.writes - before - 1.0;
    let name = format!("operator, {}, writes when one changes", testbed.layout.name);
    Ok(vec![Row::without_peer(&name, writes, "requests", Some(GOAL_WRITES_OF_A_CHANGE))])
}

/// How much memory the pods of other applications take.
async fn measure_unrelated(testbed: &Testbed) -> Result<Vec<Row>> {
    let before = testbed.operator.resident_mib()?;
    testbed.create_unrelated(UNRELATED_PODS).await?;
    sleep(SETTLE).await;
    let grown = testbed.operator.resident_mib()? - before;
    let name = format!("operator, {}, for 2,000 other pods", testbed.layout.name);
    Ok(vec![Row::without_peer(&name, grown, "MiB", Some(GOAL_UNRELATED_MIB))])
}

/// The most memory that the operator used since its start.
fn measure_peak(testbed: &Testbed, goals: Goals) -> Result<Vec<Row>> {
    let name = format!("operator, {}, peak resident", testbed.layout.name);
    Ok(vec![Row::without_peer(&name, testbed.operator.peak_mib()?, "MiB", Some(goals.mib))])
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
async fn measure_wake_up(testbed: &mut Testbed, repeats: u32, of: &str) -> Result<Vec<Row>> {
    let mut took = Vec::new();
    for _ in 0..repeats * 2 {
        took.push(testbed.up(1, 1).await?.as_secs_f64());
        testbed.down().await?;
    }
    let row = |which: &str, value| {
        let name = format!("wake from zero{of}, replicas written, {which}");
        Row::without_peer(&name, value, "s", Some(GOAL_WAKE_SECONDS))
    };
    Ok(vec![row("median", median(&took)), row("slowest", percentile(&took, 100))])
}
