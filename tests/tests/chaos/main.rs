//! Chaos: real worker processes, real handlers, a Postgres of their own; everything is killed, stopped and cut, and the history
//! checker reads what came of it. `ROWLOCK_CHAOS_SECONDS` and `ROWLOCK_CHAOS_SEED` (printed) set its length and its dice.

mod drain;
mod fleet;
mod nemesis;
mod observe;
mod producer;
mod stage;

use std::time::Duration;

use anyhow::{Result, ensure};
use rowlock_tests::history::{Demands, check, parse, read_all};
use stage::{Stage, StageConfig, from_env};

/// Long enough for every kind of fault to happen some times.
const SECONDS: u64 = 120;
/// After the last fault: a lease must run out, be seen to have run out, and the last retries be done.
const DRAIN_PATIENCE: Duration = Duration::from_mins(2);
const PRODUCERS: u64 = 3;
const TOTAL: u32 = 24;
/// How many violations are shown.
const SHOWN: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_loses_nothing_whatever_dies() -> Result<()> {
    let seconds = from_env("ROWLOCK_CHAOS_SECONDS")?.unwrap_or(SECONDS);
    let seed = from_env("ROWLOCK_CHAOS_SEED")?.unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("chaos: {seconds} s, seed {seed} (again with ROWLOCK_CHAOS_SEED={seed})");
    let mut stage = Stage::set(&StageConfig { total: TOTAL, calm: false, seed }).await?;
    let producers: Vec<_> =
        (0..PRODUCERS).map(|n| producer::start(&stage, producer::Manner::chaotic(seed + n))).collect();
    let faults = nemesis::rage(&mut stage, Duration::from_secs(seconds), seed).await?;
    for producer in producers {
        producer.stop().await?;
    }
    stage.wait_until_drained(DRAIN_PATIENCE).await?;
    stage.fleet.end().await?;
    let end = observe::observe(&stage).await?;
    let log = parse(&read_all(&stage.logs())?);
    let (summary, violations) = check(&log, &end, Demands { drained: true, undisturbed: false });
    eprintln!("chaos: seed {seed}: {faults}; {summary}; {} violations", violations.len());
    stage.judge(&violations)?;
    ensure!(0 < summary.completed, "nothing was done at all");
    let strange = stage.fleet.strange_exits();
    ensure!(strange.is_empty(), "workers ended with exit codes that no fault explains: {strange:?}");
    Ok(())
}
