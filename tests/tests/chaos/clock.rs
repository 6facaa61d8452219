//! The database's clock is set back and forward under load, by an hour and across whole partitions. The
//! server preloads `clock.c`, which the test compiles.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rowlock_tests::{
    history::{Demands, Event, check, parse, read_all},
    observe,
};
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep};

use crate::{
    DRAIN_TIMEOUT,
    fleet::{Journal, now, send},
    harness::{Harness, HarnessConfig, QUEUE, assert_no_violations, from_env},
    producer,
};

const LIBRARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chaos/clock.c");
const HOUR: i64 = 3600;
/// The step forward is last: then every task scheduled before a step back is due.
const STEPS: [Step; 4] = [Step::to(1), Step::to(0), Step::to(-1), Step::to(2)];
/// Over partitions, with an instance that starts at each. The second jump stays ahead until old partitions
/// are dropped; going back then puts the clock into a gap between partitions.
const LEAPS: [Step; 7] = [
    Step::starting(8),
    Step::to(0),
    Step { hours: 8, starts: true, stays: true },
    Step::starting(0),
    Step::starting(-9),
    Step::starting(72),
    Step::to(74),
];
/// Longer than every instance needs to check which instances live.
const BETWEEN: Duration = Duration::from_secs(8);
/// Tasks committed after a clock step complete within this time. A poll takes a second, an attempt 0.3 s.
const FLOWS_WITHIN: Duration = Duration::from_secs(15);
/// Enqueued before each step; due at the latest after the last one.
const SCHEDULED: &str = "select rowlock.enqueue_many($1, 'chaos', array['{}', '{}', '{}']::json[], \
    '{\"delay\": \"30 minutes\"}')";
const LOAD: u64 = 2;
const TOTAL: u32 = 12;

/// What the clock does.
#[derive(Clone, Copy)]
struct Step {
    /// Ahead of the true time from then on.
    hours: i64,
    /// Replaces an instance by a new one.
    starts: bool,
    /// As after an hour at that time: old partitions are dropped.
    stays: bool,
}

impl Step {
    const fn to(hours: i64) -> Self {
        Self { hours, starts: false, stays: false }
    }

    const fn starting(hours: i64) -> Self {
        Self { hours, starts: true, stays: false }
    }
}

/// The server's clock.
struct Clock {
    /// The seconds ahead of the true time, as `clock.c` reads them.
    offset: File,
    folder: tempfile::TempDir,
}

impl Clock {
    fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rowlock-clock-").tempdir()?;
        // As root, the server runs as another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        compile(&library(folder.path()))?;
        let clock = Self { offset: File::create(offset(folder.path()))?, folder };
        clock.set(0)?;
        Ok(clock)
    }

    fn set(&self, ahead: i64) -> Result<()> {
        Ok(self.offset.write_all_at(&ahead.to_ne_bytes(), 0)?)
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![
            ("LD_PRELOAD".into(), library(self.folder.path()).into()),
            ("ROWLOCK_TEST_CLOCK".into(), offset(self.folder.path()).into()),
        ]
    }
}

fn library(folder: &Path) -> PathBuf {
    folder.join("clock.so")
}

fn offset(folder: &Path) -> PathBuf {
    folder.join("offset")
}

/// With the C compiler that cargo links with.
fn compile(library: &Path) -> Result<()> {
    let arguments = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"];
    let done = Command::new("cc").args(arguments).arg(library).arg(LIBRARY).output().context("cc")?;
    ensure!(done.status.success(), "{LIBRARY}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_steps_lose_no_task_and_rescue_no_instance() -> Result<()> {
    with_steps(&STEPS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_jumps_across_partitions_lose_no_task() -> Result<()> {
    with_steps(&LEAPS).await
}

async fn with_steps(steps: &[Step]) -> Result<()> {
    let seed = from_env("ROWLOCK_CHAOS_SEED")?.unwrap_or(1);
    let clock = Clock::new()?;
    let config = HarnessConfig { total: TOTAL, calm: true, seed, environment: clock.environment() };
    let harness = Harness::start(&config).await?;
    let result = run_scenario(&harness, &clock, seed, steps).await;
    let result = result.with_context(|| format!("crashes of the server: {:?}", harness.crashes_of_server()));
    harness.close(result)
}

async fn run_scenario(harness: &Harness, clock: &Clock, seed: u64, steps: &[Step]) -> Result<()> {
    let producers: Vec<_> =
        (0..LOAD).map(|n| producer::start(harness, producer::Profile::steady(seed + n))).collect();
    let mut watching = PgConnection::connect(&harness.url).await?;
    let journal = Journal::open(&harness.folder.join("scheduled.jsonl"))?;
    let before = ahead(&mut watching).await?;
    for step in steps {
        sleep(BETWEEN).await;
        schedule(&mut watching, &journal).await?;
        let set = step.hours * HOUR;
        clock.set(set)?;
        let now = ahead(&mut watching).await?;
        ensure!((now - before - set).abs() < HOUR / 2, "the server's clock is {now} s ahead, not {set}");
        if step.stays {
            sqlx::raw_sql(STAYS).execute(&mut watching).await?;
        }
        if let (true, Some((pid, _))) = (step.starts, harness.fleet.worker(0)) {
            send(pid, Signal::SIGTERM);
        }
        flows(harness, &mut watching).await.with_context(|| format!("after a step to {set} s"))?;
        if step.stays {
            until_cleaned(&mut watching).await?;
        }
    }
    sleep(BETWEEN).await;
    for producer in producers {
        producer.stop().await?;
    }
    harness.wait_until_drained(DRAIN_TIMEOUT).await?;
    harness.fleet.end().await?;
    let end = observe(&harness.url, QUEUE).await?;
    let log = parse(&read_all(&harness.logs())?);
    let (summary, violations) = check(&log, &end, Demands { drained: true, undisturbed: true });
    eprintln!("clock: {summary}; {} violations", violations.len());
    assert_no_violations(&log, &end, &violations)?;
    ensure!(end.rescued.is_empty(), "rescued: {:?}", end.rescued);
    ensure!(harness.fleet.unexplained_exits().is_empty(), "{:?}", harness.fleet.unexplained_exits());
    Ok(())
}

/// As if an hour had passed and cleanup were due.
const STAYS: &str = "update rowlock.maintenance set steady_since = '-infinity', seen_at = clock_timestamp(), \
    next_cleanup_at = '-infinity'";

async fn until_cleaned(watching: &mut PgConnection) -> Result<()> {
    let since = Instant::now();
    let left = "select exists (select 1 from rowlock.partitions_of('heartbeat') p \
        where p.hi < now() - interval '1 hour')";
    while sqlx::query_scalar(left).fetch_one(&mut *watching).await? {
        // One instance per minute runs maintenance.
        ensure!(since.elapsed() < Duration::from_secs(100), "old partitions are not dropped");
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Seconds by which the server's clock is ahead of this process's clock.
async fn ahead(watching: &mut PgConnection) -> Result<i64> {
    let ours = i64::try_from(now() / 1_000_000_000)?;
    let theirs: i64 = sqlx::query_scalar("select extract(epoch from clock_timestamp())::bigint")
        .fetch_one(watching)
        .await?;
    Ok(theirs - ours)
}

/// Not due before a later step; by this process's clock it may be due immediately.
async fn schedule(watching: &mut PgConnection, journal: &Journal) -> Result<()> {
    let at = now();
    let ids: Vec<i64> = sqlx::query_scalar(SCHEDULED).bind(QUEUE).fetch_all(watching).await?;
    journal.note(&Event::Enqueued { ids: ids.clone(), at, delay_ms: 0 })?;
    journal.note(&Event::Committed { ids })
}

/// Tasks committed from now on complete soon.
async fn flows(harness: &Harness, watching: &mut PgConnection) -> Result<()> {
    let committed = || anyhow::Ok(parse(&read_all(&harness.logs())?).committed);
    let (since, known) = (Instant::now(), committed()?);
    let ids = loop {
        let new: Vec<i64> = committed()?.difference(&known).copied().collect();
        if !new.is_empty() {
            break new;
        }
        ensure!(since.elapsed() < FLOWS_WITHIN, "nothing is enqueued any more");
        sleep(Duration::from_millis(50)).await;
    };
    loop {
        let completed =
            "select count(*) from unnest($1::bigint[]) id where rowlock.task_state(id) = 'completed'";
        let done: i64 = sqlx::query_scalar(completed).bind(&ids).fetch_one(&mut *watching).await?;
        if usize::try_from(done)? == ids.len() {
            return Ok(());
        }
        ensure!(since.elapsed() < FLOWS_WITHIN, "{done} of {} tasks were completed", ids.len());
        sleep(Duration::from_millis(200)).await;
    }
}
