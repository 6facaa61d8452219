//! The clock that the database reads is set back and put forward by an hour, under load: libfaketime below the server.

use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use rowlock_tests::{
    history::{Demands, Event, check, parse, read_all},
    observe,
};
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep};

use crate::{
    DRAIN_PATIENCE,
    fleet::{Journal, now},
    producer,
    stage::{QUEUE, Stage, StageConfig, from_env, judge},
};

/// Where Debian puts it (package `libfaketime`); the folder is named after the machine.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketime.so.1";
const HOUR: i64 = 3600;
/// Forward last: what waits for a due time of before a step back is due at the latest then.
const STEPS: [i64; 4] = [HOUR, 0, -HOUR, 2 * HOUR];
/// Longer than it takes until every caretaker has looked at the living.
const BETWEEN: Duration = Duration::from_secs(8);
/// Tasks flow on: those that are committed after a step are completed in this time. A poll takes a second, a run 0.3 s.
const FLOWS_WITHIN: Duration = Duration::from_secs(15);
/// Enqueued before each step; due at the latest after the last one.
const SCHEDULED: &str = "select rowlock.enqueue_many($1, 'chaos', array['{}', '{}', '{}']::json[], '{\"delay\": \"30 minutes\"}')";
const LOAD: u64 = 2;
const TOTAL: u32 = 12;

/// The server's clock; it reads the file at each look at the time.
struct Clock {
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Clock {
    fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rowlock-clock-").tempdir()?;
        // The server runs as another user when we are root.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let clock = Self { file: folder.path().join("offset"), _folder: folder };
        clock.set(0)?;
        Ok(clock)
    }

    /// Seconds ahead of the true time. Never half a file: it is read at any moment.
    fn set(&self, ahead: i64) -> Result<()> {
        let fresh = self.file.with_extension("new");
        fs::write(&fresh, format!("{ahead:+}\n"))?;
        Ok(fs::rename(&fresh, &self.file)?)
    }

    fn environment(&self) -> Result<Vec<(OsString, OsString)>> {
        let library = fs::read_dir(LIBRARIES)?
            .flatten()
            .map(|folder| folder.path().join(LIBRARY))
            .find(|path| path.exists())
            .context("libfaketime is missing (Debian package faketime; make installs it)")?;
        Ok(vec![
            ("LD_PRELOAD".into(), library.into()),
            ("FAKETIME_TIMESTAMP_FILE".into(), self.file.clone().into()),
            ("FAKETIME_NO_CACHE".into(), "1".into()),
            // As a step of a real clock: what only grows goes on.
            ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
        ])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_of_the_clock_lose_nothing_and_rescue_nobody() -> Result<()> {
    let seed = from_env("ROWLOCK_CHAOS_SEED")?.unwrap_or(1);
    let clock = Clock::new()?;
    let config = StageConfig { total: TOTAL, calm: true, seed, environment: clock.environment()? };
    let stage = Stage::set(&config).await?;
    let played = play(&stage, &clock, seed).await;
    stage.close(played)
}

async fn play(stage: &Stage, clock: &Clock, seed: u64) -> Result<()> {
    let producers: Vec<_> =
        (0..LOAD).map(|n| producer::start(stage, producer::Manner::steady(seed + n))).collect();
    let mut watching = PgConnection::connect(&stage.url).await?;
    let journal = Journal::open(&stage.folder.join("scheduled.jsonl"))?;
    let before = ahead(&mut watching).await?;
    for step in STEPS {
        sleep(BETWEEN).await;
        schedule(&mut watching, &journal).await?;
        clock.set(step)?;
        let now = ahead(&mut watching).await?;
        ensure!((now - before - step).abs() < HOUR / 2, "the server's clock is {now} s ahead, not {step}");
        flows(stage, &mut watching).await.with_context(|| format!("after a step to {step} s"))?;
    }
    sleep(BETWEEN).await;
    for producer in producers {
        producer.stop().await?;
    }
    stage.wait_until_drained(DRAIN_PATIENCE).await?;
    stage.fleet.end().await?;
    let end = observe(&stage.url, QUEUE).await?;
    let log = parse(&read_all(&stage.logs())?);
    let (summary, violations) = check(&log, &end, Demands { drained: true, undisturbed: true });
    eprintln!("clock: {summary}; {} violations", violations.len());
    judge(&log, &end, &violations)?;
    ensure!(end.rescued.is_empty(), "rescued: {:?}", end.rescued);
    ensure!(stage.fleet.strange_exits().is_empty(), "{:?}", stage.fleet.strange_exits());
    Ok(())
}

/// Seconds by which the server's clock is ahead of ours.
async fn ahead(watching: &mut PgConnection) -> Result<i64> {
    let ours = i64::try_from(now() / 1_000_000_000)?;
    let theirs: i64 = sqlx::query_scalar("select extract(epoch from clock_timestamp())::bigint")
        .fetch_one(watching)
        .await?;
    Ok(theirs - ours)
}

/// Not due before a later step; by our own clock that may be at once.
async fn schedule(watching: &mut PgConnection, journal: &Journal) -> Result<()> {
    let at = now();
    let ids: Vec<i64> = sqlx::query_scalar(SCHEDULED).bind(QUEUE).fetch_all(watching).await?;
    journal.note(&Event::Enqueued { ids: ids.clone(), at, delay_ms: 0 })?;
    journal.note(&Event::Committed { ids })
}

/// What is committed from now on is completed soon.
async fn flows(stage: &Stage, watching: &mut PgConnection) -> Result<()> {
    let committed = || anyhow::Ok(parse(&read_all(&stage.logs())?).committed);
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
