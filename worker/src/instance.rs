//! The life of one instance: connect, join, work under one supervisor, leave.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rowlock_queue::{Connect, Db, Error, Joined, Settled, Settlement};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::beater::beat_on;
use crate::care::care_on;
use crate::claimer::Claimer;
use crate::ended::{Ended, WorkerError};
use crate::gate::Gate;
use crate::http::{Health, bind, serve};
use crate::line::Line;
use crate::metrics::Metrics;
use crate::outage::{Outage, Seldom};
use crate::pause::Pause;
use crate::settler::{SETTLE_QUEUE, Settler, Settles};
use crate::shared::{Equipment, Handler, Shared};
use crate::stop::Stop;
use crate::url_file::follow;
use crate::worker::Worker;

/// The operator migrates and declares; an instance that comes first waits for it.
const JOIN_PAUSE: Pause = Pause::new(Duration::from_millis(200), Duration::from_secs(2));

/// How long a fenced instance waits for the database, to hand back what it stopped; longer than most failovers.
const FAREWELL: Duration = Duration::from_mins(5);
/// Leaving is a courtesy: without it the leases run out by themselves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(4);

/// After an abort the outcomes already known get this long to be written.
const ABORT_GRACE: Duration = Duration::from_secs(2);

type Part = Result<(), WorkerError>;

impl Worker {
    /// Works until `stop` or a failure.
    pub async fn run(self, stop: Stop) -> Result<Ended, WorkerError> {
        run(self, stop).await
    }
}

async fn run(worker: Worker, stop: Stop) -> Result<Ended, WorkerError> {
    let metrics = Arc::new(Metrics::new()?);
    let gate = Arc::new(Gate::new(matches!(worker.handler, Handler::InProcess(_))));
    let health = Arc::new(Health {
        metrics: Arc::clone(&metrics),
        gate: Arc::clone(&gate),
        joined: OnceLock::new(),
        draining: stop.draining().clone(),
    });
    // What serves the others: ends when this function does, on whatever path.
    let background = CancellationToken::new();
    let _ends: DropGuard = background.clone().drop_guard();
    let mut parts = JoinSet::new();
    if let Some(address) = worker.listen {
        let listener = bind(address).await?;
        parts.spawn(serve(listener, Arc::clone(&health), background.clone()));
    }
    let ended = join_and_work(&worker, gate, metrics, &health, &stop, &mut parts, &background).await;
    background.cancel();
    // Before the pool closes, or the last heartbeats would complain about it.
    parts.shutdown().await;
    if let (Some(shared), Ok(Ended::Drained)) = (health.joined.get(), &ended) {
        let _ = timeout(LEAVE_TIMEOUT, shared.db.close()).await;
    }
    ended
}

async fn join_and_work(
    worker: &Worker,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    health: &Health,
    stop: &Stop,
    parts: &mut JoinSet<Part>,
    background: &CancellationToken,
) -> Result<Ended, WorkerError> {
    let pool = Connect { max_connections: pool_size(worker), ..worker.connect.clone() };
    let joined = tokio::select! {
        () = stop.draining().cancelled() => return Ok(Ended::Drained),
        joined = join(worker, &pool) => joined?,
    };
    let (db, joined, asked) = joined;
    let equipment = Equipment {
        db,
        queue: Arc::clone(&worker.queue),
        handler: worker.handler.clone(),
        gate,
        metrics,
        capacity: worker.workers,
    };
    let shared = Arc::new(Shared::new(equipment, joined, asked));
    let _ = health.joined.set(Arc::clone(&shared));
    tracing::info!(instance = %shared.instance, queue = %shared.queue, workers = worker.workers, "joined");
    start_parts(worker, &shared, stop, parts, background);
    let ended = supervise(&shared, stop, worker.drain_grace, parts).await;
    let patience = if matches!(ended, Ok(Ended::Fenced(_))) {
        // Those that are open may lead to the server that did not answer.
        shared.db.discard_idle();
        FAREWELL
    } else {
        LEAVE_TIMEOUT
    };
    tokio::select! {
        () = leave(&shared, patience) => (),
        () = stop.aborting().cancelled(), if patience == FAREWELL => (),
    }
    ended
}

/// The heartbeat keeps a connection for itself; without a second one it shares the only one.
fn pool_size(worker: &Worker) -> u32 {
    worker.connect.max_connections.saturating_sub(1).max(1)
}

/// Connects and joins, waiting for whatever time can heal.
async fn join(worker: &Worker, connect: &Connect) -> Result<(Db, Joined, Instant), WorkerError> {
    let db = Db::connect_with_retry(connect, None).await?;
    let mut pause = JOIN_PAUSE;
    let outage = Outage::default();
    loop {
        let asked = Instant::now();
        let joined = async {
            db.check_schema().await?;
            rowlock_queue::join(&db, &worker.queue, &worker.name, worker.workers).await
        };
        let error = match joined.await {
            Ok(joined) => {
                outage.answered("join");
                return Ok((db, joined, asked));
            }
            Err(error) => error,
        };
        let heals = error.is_transient() || matches!(error, Error::SchemaMissing | Error::SchemaOlder { .. });
        if !heals {
            return Err(error.into());
        }
        outage.failed("join", &error);
        sleep(pause.step()).await;
    }
}

/// Everything that must not end while tasks are worked on.
fn start_parts(
    worker: &Worker,
    shared: &Arc<Shared>,
    stop: &Stop,
    parts: &mut JoinSet<Part>,
    background: &CancellationToken,
) {
    let (connect, connects) = watch::channel(worker.connect.clone());
    let (line, opener) = Line::new(connects, worker.notify);
    parts.spawn(beat_on(Arc::clone(shared), line, background.clone()));
    if 2 <= worker.connect.max_connections {
        parts.spawn(opener.work(Arc::clone(&shared.metrics), background.clone()));
    }
    parts.spawn(care_on(Arc::clone(shared), background.clone()));
    if !worker.files.is_empty() {
        let (shared, stop, background) = (Arc::clone(shared), stop.clone(), background.clone());
        parts.spawn(follow(shared, worker.files.clone(), connect, stop, background));
    }
    let fenced = Arc::clone(shared);
    parts.spawn(async move {
        fenced.fence.watch().await;
        Ok(())
    });
    if let Handler::Http(handler) = &worker.handler {
        let connections = Arc::clone(&handler.connections);
        parts.spawn(async move {
            connections.expire().await;
            Ok(())
        });
        let (host, port) = handler.address();
        let keeper = Arc::clone(shared);
        parts.spawn(async move {
            keeper.gate.keep(&host, port, || keeper.workers.wake.notify_one()).await;
            Ok(())
        });
    }
}

/// Claimer and settler end by themselves after a drain; anything else that ends is a reason to stop.
async fn supervise(
    shared: &Arc<Shared>,
    stop: &Stop,
    grace: Duration,
    parts: &mut JoinSet<Part>,
) -> Result<Ended, WorkerError> {
    let (send, receive) = mpsc::channel(SETTLE_QUEUE);
    let claimer = Claimer::new(Arc::clone(shared), send).work(stop.draining().clone(), grace);
    let settler = Settler {
        store: Store(Arc::clone(shared)),
        metrics: Arc::clone(&shared.metrics),
        outage: Arc::clone(&shared.outage),
        late: Seldom::default(),
        fenced: shared.fence.tripped().clone(),
    };
    let mut line = JoinSet::new();
    line.spawn(claimer);
    line.spawn(settler.work(receive));
    let fenced = shared.fence.tripped().clone();
    let ended = tokio::select! {
        biased;
        () = fenced.cancelled() => Ok(()),
        ended = join_all(&mut line) => ended,
        Some(ended) = parts.join_next() => match ended {
            _ if fenced.is_cancelled() => Ok(()),
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) | Err(_) => Err(WorkerError::Ended("a part of the instance")),
        },
        () = stop.aborting().cancelled() => Ok(()),
    };
    shared.abort_runs.cancel();
    stop.drain();
    if fenced.is_cancelled() {
        line.shutdown().await;
        let reason = shared.fence.reason().unwrap_or("fenced");
        tracing::error!(reason, "fenced: the runs were stopped and nothing more is settled");
        return Ok(Ended::Fenced(reason));
    }
    // Runs that were stopped are released, and what was known is written, as far as the time allows.
    let _ = timeout(ABORT_GRACE, join_all(&mut line)).await;
    line.shutdown().await;
    ended.map(|()| Ended::Drained)
}

/// The first failure ends the wait: the other one of the two cannot do without it.
async fn join_all(line: &mut JoinSet<Part>) -> Result<(), WorkerError> {
    while let Some(ended) = line.join_next().await {
        ended.map_err(|_| WorkerError::Ended("the claimer or the settler"))??;
    }
    Ok(())
}

/// Hands back what is still leased. After a fence too: its runs were stopped, so unless the instance was declared gone meanwhile,
/// an outage of the database uses up no attempt.
async fn leave(shared: &Shared, patience: Duration) {
    shared.leaving.cancel();
    let left = async {
        let mut pause = JOIN_PAUSE;
        loop {
            match rowlock_queue::leave(&shared.db, shared.instance).await {
                // A refused login, too, may be a failover's: what is not handed back uses up attempts.
                Err(error) if !matches!(error, Error::Gone) => sleep(pause.step()).await,
                result => return result,
            }
        }
    };
    match timeout(patience, left).await {
        Ok(Ok(handed_back)) => tracing::info!(instance = %shared.instance, handed_back, "left"),
        Ok(Err(error)) => tracing::warn!(%error, "could not leave; the leases run out by themselves"),
        Err(_) => tracing::warn!("no answer to leaving; the leases run out by themselves"),
    }
}

struct Store(Arc<Shared>);

impl Settles for Store {
    async fn settle(&self, batch: &[Settlement]) -> Result<Vec<Settled>, Error> {
        let settled = rowlock_queue::settle(&self.0.db, self.0.instance, batch).await;
        if matches!(settled, Err(Error::Gone)) {
            // Not transient, but not the batch's fault either: the fence ends the settler.
            self.0.fence.trip("the queue declared this instance gone");
            std::future::pending::<()>().await;
        }
        if settled.is_ok() {
            for settlement in batch {
                self.0.leases.settled(settlement.token);
            }
        }
        settled
    }
}
