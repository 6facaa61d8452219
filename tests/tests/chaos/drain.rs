//! Drains and scaling interrupt no task: instances start and stop, and the total changes, under load.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rowlock_tests::{
    history::{Demands, Log, check, parse, read_all},
    observe,
};
use sqlx::{Connection, PgConnection, Row};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    DRAIN_TIMEOUT,
    fleet::send,
    harness::{Harness, HarnessConfig, QUEUE, assert_no_violations, connect, declaration, from_env},
    producer,
};

const SAMPLE: Duration = Duration::from_millis(50);
/// An allocation pass that began before a lower total was declared may end after it.
const PASS: Duration = Duration::from_millis(250);
/// Up, down, almost to zero, and up; the first one is what the harness declares.
const TOTALS: [u32; 7] = [12, 30, 5, 24, 1, 18, 8];
const BETWEEN: Duration = Duration::from_millis(1500);
/// The slowest attempt takes 0.3 s, and leaving takes one statement.
const DRAINS_WITHIN: Duration = Duration::from_secs(10);
const LOAD: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drains_and_changed_totals_interrupt_no_task_and_use_no_attempt() -> Result<()> {
    let seed = from_env("ROWLOCK_CHAOS_SEED")?.unwrap_or(1);
    let config = HarnessConfig { total: TOTALS[0], calm: true, seed, environment: Vec::new() };
    let harness = Harness::start(&config).await?;
    let result = run_scenario(&harness, seed).await;
    harness.close(result)
}

async fn run_scenario(harness: &Harness, seed: u64) -> Result<()> {
    let producers: Vec<_> =
        (0..LOAD).map(|n| producer::start(harness, producer::Profile::steady(seed + n))).collect();
    let stop = CancellationToken::new();
    let watching = tokio::spawn(sample(harness.url.clone(), stop.clone()));
    disturb(harness).await?;
    for producer in producers {
        producer.stop().await?;
    }
    harness.wait_until_drained(DRAIN_TIMEOUT).await?;
    stop.cancel();
    let samples = watching.await??;
    harness.fleet.end().await?;
    let end = observe(&harness.url, QUEUE).await?;
    let log = parse(&read_all(&harness.logs())?);
    let (summary, violations) = check(&log, &end, Demands { drained: true, undisturbed: true });
    let most = most_at_once(&log);
    eprintln!("drain: {summary}; {} violations, {samples} samples, {most} at once", violations.len());
    assert_no_violations(&log, &end, &violations)?;
    ensure!(end.failures.is_empty(), "attempts were lost: {:?}", end.failures.first());
    ensure!(harness.fleet.unexplained_exits().is_empty(), "{:?}", harness.fleet.unexplained_exits());
    let limit = TOTALS.iter().max().copied().unwrap_or_default() as usize;
    ensure!(most <= limit, "{most} tasks at once in the handlers, the total never was above {limit}");
    ensure!(0 < summary.completed, "no task was completed");
    Ok(())
}

/// Declares a new total, then drains and restarts one instance after another.
async fn disturb(harness: &Harness) -> Result<()> {
    let db = connect(&harness.url).await?;
    for (turn, total) in TOTALS.into_iter().enumerate() {
        sleep(BETWEEN).await;
        rowlock_queue::declare(&db, &declaration(total, 2 + i64::try_from(turn)?)).await?;
        sleep(BETWEEN).await;
        let slot = turn % harness.fleet.instances();
        let (pid, name) = harness.fleet.worker(slot).context("an instance ended without a reason")?;
        send(pid, Signal::SIGTERM);
        let gone = async {
            while harness.fleet.worker(slot).is_some_and(|(_, now)| now == name) {
                sleep(SAMPLE).await;
            }
        };
        timeout(DRAINS_WITHIN, gone).await.with_context(|| format!("instance {name} does not drain"))?;
    }
    db.close().await;
    Ok(())
}

/// Checks every 50 ms that the tasks held by all live instances never exceed the total.
async fn sample(url: String, stop: CancellationToken) -> Result<usize> {
    let mut connection = PgConnection::connect(&url).await?;
    let mut every = interval(SAMPLE);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut totals: VecDeque<(Instant, i64)> = VecDeque::new();
    let (mut samples, mut before) = (0, 0);
    while !stop.is_cancelled() {
        every.tick().await;
        let row = sqlx::query(
            "select q.total_workers::bigint,
                    coalesce((select sum(s.held) from rowlock.instance_slots(q.id) s), 0)
             from rowlock.queue q where q.name = $1",
        )
        .bind(QUEUE)
        .fetch_one(&mut connection)
        .await?;
        let (total, holds): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        totals.push_back((Instant::now(), total));
        while totals.front().is_some_and(|(at, _)| PASS < at.elapsed()) {
            totals.pop_front();
        }
        let in_force = totals.iter().map(|(_, total)| *total).max().unwrap_or(total);
        ensure!(
            holds <= in_force || holds <= before,
            "the instances hold {holds} slots, {before} 50 ms ago; the total is {total}"
        );
        before = holds;
        samples += 1;
    }
    Ok(samples)
}

/// The most attempts that ran at the same time.
fn most_at_once(log: &Log) -> usize {
    let mut steps: Vec<(u64, bool)> = Vec::new();
    for run in log.runs.values().flatten() {
        steps.push((run.started, true));
        steps.extend(run.ended.map(|at| (at, false)));
    }
    // At the same instant the end counts first.
    steps.sort_unstable();
    let (mut now, mut most) = (0_usize, 0);
    for (_, starts) in steps {
        now = if starts { now + 1 } else { now.saturating_sub(1) };
        most = most.max(now);
    }
    most
}
