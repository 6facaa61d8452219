//! Runs one instance: connect, join, work under one supervisor, leave.

pub(crate) mod allocation_stall;
pub(crate) mod context;
pub(crate) mod fence;
pub(crate) mod heartbeat;
pub(crate) mod heartbeat_connection;
pub(crate) mod maintenance;
pub(crate) mod url_file;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rowlock_queue::{Connect, Db, Error, Joined, Settled};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::admin_server::{AdminState, bind, serve};
use crate::backoff::Backoff;
use crate::error::{ExitReason, WorkerError};
use crate::handler::Handler;
use crate::handler::readiness_probe::ReadinessProbe;
use crate::instance::context::{Context, Dependencies};
use crate::instance::heartbeat::run_heartbeats;
use crate::instance::heartbeat_connection::HeartbeatConnection;
use crate::instance::maintenance::run_maintenance;
use crate::instance::url_file::follow_files;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::task::claim::Claimer;
use crate::task::settle::{EndedAttempt, SETTLEMENT_BUFFER, SettlementStore, Settler};
use crate::throttled_log::{LogThrottle, OutageLog};
use crate::traces::Traces;
use crate::worker::Worker;

/// Between attempts to join: the operator may not have migrated the schema or declared the queue yet.
const JOIN_BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));

/// How long a fenced instance waits for the database to release the tasks that it stopped: longer than most
/// failovers.
const FENCED_LEAVE_TIMEOUT: Duration = Duration::from_mins(5);
/// How long leaving may take. If it fails, the leases expire.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(4);

/// How long known outcomes may take to be written after an abort.
const ABORT_GRACE: Duration = Duration::from_secs(2);

type ServiceResult = Result<(), WorkerError>;

impl Worker {
    /// Joins the queue and runs tasks until `stop`, a fence or a failure. It waits for the database, its
    /// schema and the queue as long as necessary.
    ///
    /// After [`ExitReason::Fenced`], build a new worker and run it with the same `stop`, as the
    /// [example of the crate](crate) does: only a new instance may claim again.
    pub async fn run(self, stop: Shutdown) -> Result<ExitReason, WorkerError> {
        run(self, stop.child()).await
    }
}

async fn run(worker: Worker, stop: Shutdown) -> Result<ExitReason, WorkerError> {
    let metrics = Arc::new(Metrics::new(&worker.queue)?);
    let readiness = Arc::new(ReadinessProbe::new(matches!(worker.handler, Handler::InProcess(_))));
    let state = Arc::new(AdminState {
        metrics: Arc::clone(&metrics),
        readiness: Arc::clone(&readiness),
        joined: OnceLock::new(),
        draining: stop.draining().clone(),
    });
    // Ends the services when this function returns, on every path.
    let background = CancellationToken::new();
    let _ends: DropGuard = background.clone().drop_guard();
    let mut services = JoinSet::new();
    if let Some(address) = worker.listen {
        let listener = bind(address).await?;
        services.spawn(serve(listener, Arc::clone(&state), background.clone()));
    }
    let ended = join_and_work(&worker, readiness, metrics, &state, &stop, &mut services, &background).await;
    background.cancel();
    // Before the pool closes; otherwise the last heartbeats would fail and be logged.
    services.shutdown().await;
    if let (Some(context), Ok(ExitReason::Drained)) = (state.joined.get(), &ended) {
        let _ = timeout(LEAVE_TIMEOUT, context.db.close()).await;
    }
    ended
}

async fn join_and_work(
    worker: &Worker,
    readiness: Arc<ReadinessProbe>,
    metrics: Arc<Metrics>,
    state: &AdminState,
    stop: &Shutdown,
    services: &mut JoinSet<ServiceResult>,
    background: &CancellationToken,
) -> Result<ExitReason, WorkerError> {
    let traces = Traces::new(worker.otlp_endpoint.as_ref(), &worker.queue, &worker.name, &metrics)?;
    let pool = Connect { max_connections: pool_size(worker), ..worker.connect.clone() };
    let Some((db, joined, sent)) = join(worker, &pool, stop.draining()).await? else {
        return Ok(ExitReason::Drained);
    };
    let dependencies = Dependencies {
        db,
        queue: Arc::clone(&worker.queue),
        handler: worker.handler.clone(),
        readiness,
        metrics,
        traces,
        capacity: worker.slots,
    };
    let context = Arc::new(Context::new(dependencies, joined, sent));
    let _ = state.joined.set(Arc::clone(&context));
    tracing::info!(instance = %context.instance, queue = %context.queue, slots = worker.slots, "joined");
    start_services(worker, &context, stop, services, background);
    let ended = supervise(&context, stop, worker.drain_grace, services).await;
    let limit = if matches!(ended, Ok(ExitReason::Fenced(_))) {
        // Open connections may belong to the server that did not answer.
        context.db.discard_idle();
        FENCED_LEAVE_TIMEOUT
    } else {
        LEAVE_TIMEOUT
    };
    tokio::select! {
        () = leave(&context, limit) => (),
        () = stop.aborting().cancelled(), if limit == FENCED_LEAVE_TIMEOUT => (),
    }
    context.traces.finish().await;
    ended
}

/// Connections of the pool: heartbeats have a separate one, unless there is only one.
fn pool_size(worker: &Worker) -> u32 {
    worker.connect.max_connections.saturating_sub(1).max(1)
}

/// Connects and joins. It retries after errors that may be temporary. `None`: the worker drains before it has
/// joined.
async fn join(
    worker: &Worker,
    connect: &Connect,
    draining: &CancellationToken,
) -> Result<Option<(Db, Joined, Instant)>, WorkerError> {
    let db = tokio::select! {
        () = draining.cancelled() => return Ok(None),
        db = Db::connect_with_retry(connect, None) => db?,
    };
    let mut backoff = JOIN_BACKOFF;
    let outage = OutageLog::default();
    loop {
        let sent = Instant::now();
        let suitable = tokio::select! {
            () = draining.cancelled() => return Ok(None),
            suitable = db.check_schema() => suitable,
        };
        let joined = match suitable {
            Ok(()) => join_once(worker, &db, draining).await,
            Err(error) => Err(error),
        };
        let error = match joined {
            Ok(joined) => {
                outage.answered("join");
                return Ok(joined.map(|joined| (db, joined, sent)));
            }
            Err(error) => error,
        };
        let is_temporary =
            error.is_transient() || matches!(error, Error::SchemaMissing | Error::SchemaOlder { .. });
        if !is_temporary {
            return Err(error.into());
        }
        outage.failed("join", &error);
        tokio::select! {
            () = draining.cancelled() => return Ok(None),
            () = sleep(backoff.next_delay()) => (),
        }
    }
}

/// Also waits for the answer if the worker drains meanwhile: the instance may be in the database already, and
/// then it has to leave. `None`: the worker drains and there was no answer in time.
async fn join_once(worker: &Worker, db: &Db, draining: &CancellationToken) -> Result<Option<Joined>, Error> {
    let too_late = async {
        draining.cancelled().await;
        sleep(LEAVE_TIMEOUT).await;
    };
    let Worker { queue, name, slots, pod_uid, .. } = worker;
    tokio::select! {
        biased;
        joined = rowlock_queue::join_in_pod(db, queue, name, *slots, pod_uid.as_deref()) => joined.map(Some),
        () = too_late => Ok(None),
    }
}

/// Starts the services that must not end while tasks run.
fn start_services(
    worker: &Worker,
    context: &Arc<Context>,
    stop: &Shutdown,
    services: &mut JoinSet<ServiceResult>,
    background: &CancellationToken,
) {
    let (connect, connect_receiver) = watch::channel(worker.connect.clone());
    let (connection, connector) = HeartbeatConnection::new(connect_receiver, worker.poll_only);
    services.spawn(run_heartbeats(Arc::clone(context), connection, background.clone()));
    if 2 <= worker.connect.max_connections {
        services.spawn(connector.run(Arc::clone(&context.metrics), background.clone()));
    }
    services.spawn(run_maintenance(Arc::clone(context), background.clone()));
    if !worker.files.is_empty() {
        let (context, stop, background) = (Arc::clone(context), stop.clone(), background.clone());
        services.spawn(follow_files(context, worker.files.clone(), connect, stop, background));
    }
    let fenced = Arc::clone(context);
    services.spawn(async move {
        fenced.fence.watch().await;
        Ok(())
    });
    if let Handler::Http(handler) = &worker.handler {
        let connections = Arc::clone(&handler.connections);
        services.spawn(async move {
            connections.expire().await;
            Ok(())
        });
        let (host, port) = handler.address();
        let prober = Arc::clone(context);
        services.spawn(async move {
            prober.readiness.run(&host, port, || prober.slots.wake.notify_one()).await;
            Ok(())
        });
    }
}

/// Runs claimer and settler until both have ended after a drain. If a service ends, the instance stops.
async fn supervise(
    context: &Arc<Context>,
    stop: &Shutdown,
    grace: Duration,
    services: &mut JoinSet<ServiceResult>,
) -> Result<ExitReason, WorkerError> {
    let (send, receive) = mpsc::channel(SETTLEMENT_BUFFER);
    let claimer = Claimer::new(Arc::clone(context), send).run(stop.draining().clone(), grace);
    let settler = Settler {
        store: QueueStore(Arc::clone(context)),
        metrics: Arc::clone(&context.metrics),
        runs: Arc::clone(&context.runs),
        outage: Arc::clone(&context.outage),
        late: LogThrottle::default(),
        fenced: context.fence.tripped().clone(),
    };
    let mut pipeline = JoinSet::new();
    pipeline.spawn(claimer);
    pipeline.spawn(settler.run(receive));
    let fenced = context.fence.tripped().clone();
    let ended = tokio::select! {
        biased;
        () = fenced.cancelled() => Ok(()),
        ended = join_all(&mut pipeline) => ended,
        Some(ended) = services.join_next() => match ended {
            _ if fenced.is_cancelled() => Ok(()),
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) | Err(_) => Err(WorkerError::Ended("a service of the instance")),
        },
        () = stop.aborting().cancelled() => Ok(()),
    };
    context.abort_attempts.cancel();
    stop.drain();
    if fenced.is_cancelled() {
        pipeline.shutdown().await;
        let reason = context.fence.reason().unwrap_or("fenced");
        tracing::error!(reason, "fenced: running attempts are stopped, nothing more is settled");
        return Ok(ExitReason::Fenced(reason));
    }
    // Stopped attempts are released and known outcomes written, as far as the time allows.
    let _ = timeout(ABORT_GRACE, join_all(&mut pipeline)).await;
    pipeline.shutdown().await;
    ended.map(|()| ExitReason::Drained)
}

/// Waits for claimer and settler, up to the first failure, since neither works without the other.
async fn join_all(pipeline: &mut JoinSet<ServiceResult>) -> Result<(), WorkerError> {
    while let Some(ended) = pipeline.join_next().await {
        ended.map_err(|_| WorkerError::Ended("the claimer or the settler"))??;
    }
    Ok(())
}

/// Releases the tasks that are still leased, also after a fence. The fence has stopped their attempts, so a
/// database outage uses up no attempt unless the instance was declared gone.
async fn leave(context: &Context, limit: Duration) {
    context.leaving.cancel();
    let left = async {
        let mut backoff = JOIN_BACKOFF;
        loop {
            match rowlock_queue::leave(&context.db, context.instance).await {
                // Retried even after a refused login, which a failover may cause: leaving saves attempts.
                Err(error) if !matches!(error, Error::Gone) => sleep(backoff.next_delay()).await,
                result => return result,
            }
        }
    };
    match timeout(limit, left).await {
        Ok(Ok(released)) => tracing::info!(instance = %context.instance, released, "left"),
        Ok(Err(error)) => tracing::warn!(%error, "could not leave; the leases will expire"),
        Err(_) => tracing::warn!("leaving timed out; the leases will expire"),
    }
}

struct QueueStore(Arc<Context>);

impl SettlementStore for QueueStore {
    async fn settle(&self, batch: &[EndedAttempt]) -> Result<Vec<Settled>, Error> {
        let settled = rowlock_queue::settle(&self.0.db, self.0.instance, batch).await;
        if matches!(settled, Err(Error::Gone)) {
            // The fence ends the settler, so this call need not return.
            self.0.fence.trip("the queue declared this instance gone");
            std::future::pending::<()>().await;
        }
        if settled.is_ok() {
            for attempt in batch {
                self.0.leases.settled(attempt.settlement.token);
            }
        }
        settled
    }
}
