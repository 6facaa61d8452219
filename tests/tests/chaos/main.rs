//! Chaos: real worker processes, real handlers, a Postgres of their own; everything is killed, stopped and cut, and the history
//! checker reads what came of it. `ROWLOCK_CHAOS_SECONDS` and `ROWLOCK_CHAOS_SEED` (printed) set its length and its dice.

mod clock;
mod drain;
mod fleet;
mod nemesis;
mod producer;
mod proxy;
mod resume;
mod stage;

use std::time::Duration;

use anyhow::{Result, ensure};
use rowlock_tests::{
    history::{Demands, check, parse, read_all},
    observe,
};
use stage::{QUEUE, Stage, StageConfig, from_env, judge};

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
    let config = StageConfig { total: TOTAL, calm: false, seed, environment: Vec::new() };
    let mut stage = Stage::set(&config).await?;
    let played = play(&mut stage, Duration::from_secs(seconds), seed).await;
    stage.close(played)
}

async fn play(stage: &mut Stage, duration: Duration, seed: u64) -> Result<()> {
    let producers: Vec<_> =
        (0..PRODUCERS).map(|n| producer::start(stage, producer::Manner::chaotic(seed + n))).collect();
    let faults = nemesis::rage(stage, duration, seed).await?;
    for producer in producers {
        producer.stop().await?;
    }
    stage.wait_until_drained(DRAIN_PATIENCE).await?;
    stage.fleet.end().await?;
    let end = observe(&stage.url, QUEUE).await?;
    let log = parse(&read_all(&stage.logs())?);
    let (summary, violations) = check(&log, &end, Demands { drained: true, undisturbed: false });
    eprintln!("chaos: seed {seed}: {faults}; {summary}; {} violations", violations.len());
    eprintln!("chaos: answers lost: {:?}", stage.proxy.lost());
    judge(&log, &end, &violations)?;
    ensure!(0 < summary.completed, "nothing was done at all");
    let strange = stage.fleet.strange_exits();
    ensure!(strange.is_empty(), "workers ended with exit codes that no fault explains: {strange:?}");
    ensure!(
        stage.proxy.lost().iter().all(|(_, lost)| 0 < *lost),
        "not one answer of each statement was lost"
    );
    // Of each at least one task: the proxy saw that the commit went through.
    let lost = usize::try_from(stage.proxy.lost_commits())?;
    ensure!(lost <= summary.unknown_committed, "{lost} commits were lost with their answers");
    Ok(())
}
