//! Injects one fault after another, chosen by a seeded random generator.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use fastrand::Rng;
use nix::sys::signal::Signal;
use rowlock_local::postgres::Server;
use rowlock_queue::LEASE_DURATION;
use rowlock_tests::history::Event;
use sqlx::{Connection, PgConnection};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    fleet::{Fleet, now, send},
    harness::Harness,
};

/// Longer than a lease, so that a stopped instance is rescued.
const STOPPED: Duration = Duration::from_secs(LEASE_DURATION.as_secs() + 5);
/// Like a long failover: every live instance has lost its leases, and no other may take them over.
const OUTAGE: Duration = Duration::from_mins(1);
/// How long a handler is stopped, in milliseconds: shorter and longer than the timeout of its tasks.
const HANDLER_STOPPED: std::ops::Range<u64> = 500..9000;
/// How many answers of each statement are lost at a time.
const ANSWERS: u32 = 3;
/// The pause between two faults, in milliseconds.
const PAUSE: std::ops::Range<u64> = 200..2500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillInstance,
    KillHandler,
    StopInstance,
    StopHandler,
    DrainInstance,
    CutConnections,
    LoseAnswers,
    KillPostgres,
    RestartPostgres,
    StallBackends,
    StallPostgres,
    Outage,
}

/// With weights.
const FAULTS: [(Fault, u32); 11] = [
    (Fault::KillInstance, 4),
    (Fault::KillHandler, 4),
    (Fault::StopInstance, 2),
    (Fault::StopHandler, 2),
    (Fault::DrainInstance, 2),
    (Fault::CutConnections, 5),
    (Fault::LoseAnswers, 4),
    (Fault::KillPostgres, 2),
    (Fault::RestartPostgres, 1),
    (Fault::StallBackends, 2),
    (Fault::StallPostgres, 2),
];

/// Injects faults for this long; at the end everything runs again. Returns the faults.
pub(crate) async fn inject_faults(harness: &mut Harness, duration: Duration, seed: u64) -> Result<String> {
    let mut rng = Rng::with_seed(seed);
    let started = Instant::now();
    let mut done: Vec<(Fault, u32)> = Vec::new();
    let mut stops = JoinSet::new();
    // Each long fault at least once, however short the time; the rest at random.
    let mut due = vec![
        (duration / 3, Fault::Outage),
        (duration / 5, Fault::StopHandler),
        (duration / 10, Fault::StopInstance),
        (Duration::ZERO, Fault::LoseAnswers),
    ];
    while started.elapsed() < duration {
        sleep(Duration::from_millis(rng.u64(PAUSE))).await;
        let fault = match due.pop_if(|(at, _)| *at <= started.elapsed()) {
            Some((_, fault)) => fault,
            None => pick(&mut rng),
        };
        eprintln!("chaos: {:6.1} s {fault:?}", started.elapsed().as_secs_f64());
        match done.iter_mut().find(|(kind, _)| *kind == fault) {
            Some((_, times)) => *times += 1,
            None => done.push((fault, 1)),
        }
        inject(fault, harness, &mut rng, &mut stops).await?;
    }
    while let Some(stopped) = stops.join_next().await {
        stopped??;
    }
    let mut summary = String::new();
    for (fault, times) in done {
        let _ = write!(summary, "{fault:?} {times} ");
    }
    Ok(summary.trim_end().to_owned())
}

/// Injects the fault once, into a random instance if it concerns one. Faults that end later are in `stops`.
async fn inject(
    fault: Fault,
    harness: &mut Harness,
    rng: &mut Rng,
    stops: &mut JoinSet<Result<()>>,
) -> Result<()> {
    let slot = rng.usize(..harness.fleet.instances());
    match fault {
        Fault::StopInstance => {
            stops.spawn(stop_instance(Arc::clone(&harness.fleet), slot));
        }
        Fault::KillInstance | Fault::DrainInstance => {
            if let Some((pid, _)) = harness.fleet.worker(slot) {
                if fault == Fault::KillInstance {
                    harness.fleet.kill(pid);
                } else {
                    send(pid, Signal::SIGTERM);
                }
            }
        }
        Fault::KillHandler => {
            if let Some(pid) = harness.fleet.handler(slot) {
                harness.fleet.kill(pid);
            }
        }
        Fault::StopHandler => {
            let millis = rng.u64(HANDLER_STOPPED);
            stops.spawn(stop_handler(Arc::clone(&harness.fleet), slot, millis));
        }
        Fault::LoseAnswers => harness.proxy.lose(ANSWERS),
        Fault::CutConnections => cut_connections(&harness.url, rng.bool()).await?,
        Fault::KillPostgres => {
            harness.server.kill9().await?;
            harness.server.restart().await?;
        }
        Fault::RestartPostgres => harness.server.restart().await?,
        Fault::Outage => {
            harness.server.kill9().await?;
            sleep(OUTAGE).await;
            harness.server.restart().await?;
        }
        Fault::StallBackends => stall(&harness.server, false, rng.u64(500..9000)).await?,
        Fault::StallPostgres => stall(&harness.server, true, rng.u64(500..9000)).await?,
    }
    Ok(())
}

fn pick(rng: &mut Rng) -> Fault {
    let mut dice = rng.u32(..FAULTS.iter().map(|(_, weight)| *weight).sum::<u32>());
    for (fault, weight) in FAULTS {
        if dice < weight {
            return fault;
        }
        dice -= weight;
    }
    Fault::KillInstance
}

/// Stopped at any point, and resumed when its tasks belong to another instance.
async fn stop_instance(fleet: Arc<Fleet>, slot: usize) -> Result<()> {
    let Some((pid, name)) = fleet.worker(slot) else { return Ok(()) };
    fleet.note(&Event::InstanceFailed { name: name.clone() })?;
    send(pid, Signal::SIGSTOP);
    sleep(STOPPED).await;
    // Killed in the meantime: the process id may be in use again.
    if fleet.worker(slot).is_some_and(|(_, now)| now == name) {
        if let Some(handler) = fleet.handler(slot) {
            fleet.note(&Event::InstanceResumed { handler, at: now() })?;
        }
        send(pid, Signal::SIGCONT);
    }
    Ok(())
}

/// Its connections are still accepted, but nothing answers; requests sent in the meantime are read
/// afterwards.
async fn stop_handler(fleet: Arc<Fleet>, slot: usize, millis: u64) -> Result<()> {
    let Some(pid) = fleet.handler(slot) else { return Ok(()) };
    send(pid, Signal::SIGSTOP);
    sleep(Duration::from_millis(millis)).await;
    // Killed in the meantime: the process id may be in use again.
    if fleet.handler(slot) == Some(pid) {
        fleet.note(&Event::HandlerResumed { handler: pid, at: now() })?;
        send(pid, Signal::SIGCONT);
    }
    Ok(())
}

async fn cut_connections(url: &str, all: bool) -> Result<()> {
    let cut = async {
        let mut admin = PgConnection::connect(url).await?;
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where backend_type = 'client backend' and pid <> pg_backend_pid() and ($1 or random() < 0.5)",
        )
        .bind(all)
        .execute(&mut admin)
        .await?;
        admin.close().await
    };
    // The server may still be recovering; then no connection is cut.
    if let Err(error) = cut.await {
        eprintln!("chaos: no connection was cut: {error}");
    }
    Ok(())
}

/// SIGSTOP for a while, like a stalled disk or hypervisor: connections stay open, but no answers come.
async fn stall(server: &Server, postmaster_too: bool, millis: u64) -> Result<()> {
    let postmaster = server.pid()?;
    let mut pids = children(postmaster)?;
    if postmaster_too {
        pids.insert(0, postmaster);
    }
    for pid in &pids {
        send(*pid, Signal::SIGSTOP);
    }
    sleep(Duration::from_millis(millis)).await;
    for pid in &pids {
        send(*pid, Signal::SIGCONT);
    }
    Ok(())
}

fn children(parent: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}
