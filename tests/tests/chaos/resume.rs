//! An instance that is stopped between its claim and the handler, for longer than a lease: once it goes on, it starts nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rowlock_queue::LEASE_DURATION;
use rowlock_tests::{
    history::{Demands, Event, check, parse, read_all},
    observe,
};
use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};

use crate::{
    DRAIN_PATIENCE,
    fleet::{Journal, now, send},
    stage::{QUEUE, Stage, StageConfig, judge},
};

const TASKS: i32 = 60;
const TOTAL: u32 = 12;
const CLAIMED_WITHIN: Duration = Duration::from_secs(30);
/// Long enough that its right is over, also where it was renewed at the last moment.
const STOPPED: Duration = Duration::from_secs(LEASE_DURATION.as_secs() + 1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_stopped_before_its_runs_began_begins_none_when_it_goes_on() -> Result<()> {
    let config = StageConfig { total: TOTAL, calm: true, seed: 1, environment: Vec::new() };
    let stage = Stage::set(&config).await?;
    let played = play(&stage).await;
    stage.close(played)
}

async fn play(stage: &Stage) -> Result<()> {
    let mut watching = PgConnection::connect(&stage.url).await?;
    stage.proxy.hold_bodies(true);
    enqueue(stage, &mut watching).await?;
    timeout(CLAIMED_WITHIN, stage.proxy.held()).await??;
    let workers: Vec<_> = (0..stage.fleet.instances()).filter_map(|slot| stage.fleet.worker(slot)).collect();
    // All of them, so that nobody rescues anybody: what they claimed is theirs still by the database's word.
    for (pid, _) in &workers {
        send(*pid, Signal::SIGSTOP);
    }
    let tokens: Vec<i64> =
        sqlx::query_scalar("select token from rowlock.lease").fetch_all(&mut watching).await?;
    // The bodies now wait in the sockets of the stopped.
    stage.proxy.hold_bodies(false);
    sleep(STOPPED).await;
    for (pid, name) in &workers {
        // Whoever of them is quicker may come back before another has left.
        stage.fleet.note(&Event::InstanceFailed { name: name.clone() })?;
        send(*pid, Signal::SIGCONT);
    }
    stage.wait_until_drained(DRAIN_PATIENCE).await?;
    stage.fleet.end().await?;
    let end = observe(&stage.url, QUEUE).await?;
    let log = parse(&read_all(&stage.logs())?);
    let (summary, violations) = check(&log, &end, Demands { drained: true, undisturbed: true });
    eprintln!("resume: {summary}; {} violations", violations.len());
    judge(&log, &end, &violations)?;
    ensure!(!tokens.is_empty(), "nothing was claimed");
    let begun = log.runs.values().flatten().filter(|run| tokens.contains(&run.token)).count();
    ensure!(begun == 0, "{begun} runs began under leases that were over");
    ensure!(end.failures.is_empty(), "attempts were used: {:?}", end.failures.first());
    Ok(())
}

async fn enqueue(stage: &Stage, watching: &mut PgConnection) -> Result<()> {
    let at = now();
    let enqueue = "select rowlock.enqueue($1, 'chaos', '{}') from generate_series(1, $2)";
    let ids: Vec<i64> = sqlx::query_scalar(enqueue).bind(QUEUE).bind(TASKS).fetch_all(watching).await?;
    let journal = Journal::open(&stage.folder.join("enqueued.jsonl"))?;
    journal.note(&Event::Enqueued { ids: ids.clone(), at, delay_ms: 0 })?;
    journal.note(&Event::Committed { ids })
}
