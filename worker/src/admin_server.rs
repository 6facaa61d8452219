//! `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rowlock_queue::HEARTBEAT_INTERVAL;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::WorkerError;
use crate::handler::readiness_probe::ReadinessProbe;
use crate::instance::context::Context;
use crate::metrics::Metrics;

/// After this many heartbeats without an answer, the database counts as unreachable.
const MISSED_HEARTBEATS: u32 = 3;

/// The data behind the pages. `joined` is empty until the instance has joined.
pub(crate) struct AdminState {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: Arc<ReadinessProbe>,
    pub(crate) joined: OnceLock<Arc<Context>>,
    pub(crate) draining: CancellationToken,
}

impl AdminState {
    /// The conditions that are not met yet. Empty means ready.
    fn pending(&self) -> Vec<&'static str> {
        let mut pending = Vec::new();
        if self.draining.is_cancelled() {
            pending.push("draining");
        }
        if !self.readiness.is_ready() {
            pending.push("the handler's port does not accept connections");
        }
        match self.joined.get() {
            None => pending.push("not joined: waiting for the database, its schema or the queue"),
            Some(context) if context.fence.tripped().is_cancelled() => pending.push("fenced"),
            Some(context)
                if context.fence.last_heartbeat().elapsed() > HEARTBEAT_INTERVAL * MISSED_HEARTBEATS =>
            {
                pending.push("the database does not answer heartbeats");
            }
            Some(context) if context.allocation_stall.is_stalled() => {
                pending.push("no slots are allocated: another session holds the lock; see the log");
            }
            Some(_) => (),
        }
        pending
    }
}

pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, WorkerError> {
    rowlock_daemon::bind(address).await.map_err(|error| WorkerError::Listen(address, error))
}

/// Serves until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    state: Arc<AdminState>,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    // Not a graceful shutdown: open connections must not delay it, and responses are short.
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        never = rowlock_daemon::serve(listener, router(state)) => match never {},
    }
}

fn router(state: Arc<AdminState>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state)
}

async fn ready(State(state): State<Arc<AdminState>>) -> Response {
    let pending = state.pending();
    let status = if pending.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "ready": pending.is_empty(), "pending": pending }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn metrics(State(state): State<Arc<AdminState>>) -> Response {
    state.metrics.set_draining(state.draining.is_cancelled());
    // It is not probed before the worker has joined.
    state.metrics.set_handler_reachable(state.joined.get().is_none() || state.readiness.is_ready());
    if let Some(context) = state.joined.get() {
        let (running, ahead, allocated, capacity) = context.slots.counts();
        state.metrics.set_slots(running, ahead, allocated, capacity);
    }
    match state.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_has_not_joined_is_healthy_but_not_ready() {
        let state = Arc::new(AdminState {
            metrics: Arc::new(Metrics::new("mail").unwrap()),
            readiness: Arc::new(ReadinessProbe::new(true)),
            joined: OnceLock::new(),
            draining: CancellationToken::new(),
        });
        let answer = ready(State(Arc::clone(&state))).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(state.pending().len(), 1);
        assert_eq!(metrics(State(state)).await.status(), StatusCode::OK);
    }
}
