//! Chaos: real worker processes, real handlers and their own Postgres. Processes are killed and stopped and
//! connections are cut, and the history checker verifies the result. `ROWLOCK_CHAOS_SECONDS` and
//! `ROWLOCK_CHAOS_SEED` (printed) set its length and its random seed.

mod clock;
mod drain;
mod fleet;
mod harness;
mod nemesis;
mod producer;
mod proxy;
mod stopped_instance;

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{Harness, HarnessConfig, QUEUE, assert_no_violations, from_env};
use rowlock_tests::{
    history::{Demands, check, parse, read_all},
    observe,
};

/// Long enough for every kind of fault to happen several times.
const SECONDS: u64 = 120;
/// Time after the last fault: a lease must expire, its expiry must be noticed, and the last retries must run.
const DRAIN_TIMEOUT: Duration = Duration::from_mins(2);
const PRODUCERS: u64 = 3;
const TOTAL: u32 = 24;
/// How many violations are shown.
const SHOWN: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_loses_no_task() -> Result<()> {
    let seconds = from_env("ROWLOCK_CHAOS_SECONDS")?.unwrap_or(SECONDS);
    let seed = from_env("ROWLOCK_CHAOS_SEED")?.unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("chaos: {seconds} s, seed {seed} (again with ROWLOCK_CHAOS_SEED={seed})");
    let config = HarnessConfig { total: TOTAL, calm: false, seed, environment: Vec::new() };
    let mut harness = Harness::start(&config).await?;
    let result = run_scenario(&mut harness, Duration::from_secs(seconds), seed).await;
    harness.close(result)
}

async fn run_scenario(harness: &mut Harness, duration: Duration, seed: u64) -> Result<()> {
    let producers: Vec<_> =
        (0..PRODUCERS).map(|n| producer::start(harness, producer::Profile::chaotic(seed + n))).collect();
    let faults = nemesis::inject_faults(harness, duration, seed).await?;
    for producer in producers {
        producer.stop().await?;
    }
    harness.wait_until_drained(DRAIN_TIMEOUT).await?;
    harness.fleet.end().await?;
    let end = observe(&harness.url, QUEUE).await?;
    let log = parse(&read_all(&harness.logs())?);
    let (summary, violations) = check(&log, &end, Demands { drained: true, undisturbed: false });
    eprintln!("chaos: seed {seed}: {faults}; {summary}; {} violations", violations.len());
    eprintln!("chaos: answers lost: {:?}", harness.proxy.lost());
    assert_no_violations(&log, &end, &violations)?;
    ensure!(0 < summary.completed, "no task was completed");
    let strange = harness.fleet.unexplained_exits();
    ensure!(strange.is_empty(), "workers ended with exit codes that no fault explains: {strange:?}");
    ensure!(harness.proxy.lost().iter().all(|(_, lost)| 0 < *lost), "some statement lost no answer");
    // At least one task of each: the proxy saw the commit succeed.
    let lost = usize::try_from(harness.proxy.lost_commits())?;
    ensure!(lost <= summary.unknown_committed, "{lost} commits were lost with their answers");
    Ok(())
}
