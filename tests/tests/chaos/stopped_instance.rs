//! An instance is stopped between its claim and the call of its handler, for longer than a lease. After it
//! resumes, it starts no attempt.

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
    DRAIN_TIMEOUT,
    fleet::{Journal, now, send, stopped},
    harness::{Harness, HarnessConfig, QUEUE, assert_no_violations},
};

const TASKS: i32 = 60;
const TOTAL: u32 = 12;
const CLAIMED_WITHIN: Duration = Duration::from_secs(30);
const STOPPED_WITHIN: Duration = Duration::from_secs(10);
/// Long enough that its lease has expired, even if it was renewed at the last moment.
const STOPPED: Duration = Duration::from_secs(LEASE_DURATION.as_secs() + 1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_stopped_before_its_attempts_starts_none_after_resuming() -> Result<()> {
    let config = HarnessConfig { total: TOTAL, calm: true, seed: 1, environment: Vec::new() };
    let harness = Harness::start(&config).await?;
    let result = run_scenario(&harness).await;
    harness.close(result)
}

async fn run_scenario(harness: &Harness) -> Result<()> {
    let mut watching = PgConnection::connect(&harness.url).await?;
    harness.proxy.hold_payloads(true);
    enqueue(harness, &mut watching).await?;
    timeout(CLAIMED_WITHIN, harness.proxy.held()).await??;
    let workers: Vec<_> =
        (0..harness.fleet.instances()).filter_map(|slot| harness.fleet.worker(slot)).collect();
    // All instances are stopped, so none is rescued: in the database they still hold their leases.
    for (pid, _) in &workers {
        send(*pid, Signal::SIGSTOP);
    }
    // A signal takes effect later. Payloads that came before that would start attempts.
    for (pid, _) in &workers {
        timeout(STOPPED_WITHIN, stopped(*pid)).await??;
    }
    let tokens: Vec<i64> =
        sqlx::query_scalar("select token from rowlock.lease").fetch_all(&mut watching).await?;
    // The payloads now wait in the sockets of the stopped instances.
    harness.proxy.hold_payloads(false);
    sleep(STOPPED).await;
    for (pid, name) in &workers {
        // A fast one may return before another has left.
        harness.fleet.note(&Event::InstanceFailed { name: name.clone() })?;
        send(*pid, Signal::SIGCONT);
    }
    harness.wait_until_drained(DRAIN_TIMEOUT).await?;
    harness.fleet.end().await?;
    let end = observe(&harness.url, QUEUE).await?;
    let log = parse(&read_all(&harness.logs())?);
    let (summary, violations) = check(&log, &end, Demands { drained: true, undisturbed: true });
    eprintln!("resume: {summary}; {} violations", violations.len());
    assert_no_violations(&log, &end, &violations)?;
    ensure!(!tokens.is_empty(), "nothing was claimed");
    let begun = log.runs.values().flatten().filter(|run| tokens.contains(&run.token)).count();
    ensure!(begun == 0, "{begun} runs began under leases that were over");
    ensure!(end.failures.is_empty(), "attempts were used: {:?}", end.failures.first());
    Ok(())
}

async fn enqueue(harness: &Harness, watching: &mut PgConnection) -> Result<()> {
    let at = now();
    let enqueue = "select rowlock.enqueue($1, 'chaos', '{}') from generate_series(1, $2)";
    let ids: Vec<i64> = sqlx::query_scalar(enqueue).bind(QUEUE).bind(TASKS).fetch_all(watching).await?;
    let journal = Journal::open(&harness.folder.join("enqueued.jsonl"))?;
    journal.note(&Event::Enqueued { ids: ids.clone(), at, delay_ms: 0 })?;
    journal.note(&Event::Committed { ids })
}
