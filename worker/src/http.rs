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

use crate::ended::WorkerError;
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::shared::Shared;

/// This many heartbeats without an answer mean that the database is out of reach.
const BEATS_MISSED: u32 = 3;

/// What the pages are made from; `joined` is empty until the instance has joined.
pub(crate) struct Health {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) joined: OnceLock<Arc<Shared>>,
    pub(crate) draining: CancellationToken,
}

impl Health {
    /// What is not there yet; empty means ready.
    fn pending(&self) -> Vec<&'static str> {
        let mut pending = Vec::new();
        if self.draining.is_cancelled() {
            pending.push("draining");
        }
        if !self.gate.is_open() {
            pending.push("the handler's port does not accept connections");
        }
        match self.joined.get() {
            None => pending.push("not joined: waiting for the database, its schema or the queue"),
            Some(shared) if shared.fence.tripped().is_cancelled() => pending.push("fenced"),
            Some(shared) if shared.fence.last_beat().elapsed() > HEARTBEAT_INTERVAL * BEATS_MISSED => {
                pending.push("the database does not answer heartbeats");
            }
            Some(shared) if shared.starved.is_over() => {
                pending.push("no workers are granted: another session holds the lock for that, see the log");
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
    health: Arc<Health>,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    // Connections that are kept alive do not hold up the end: it is not a graceful shutdown, pages are short.
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        never = rowlock_daemon::serve(listener, router(health)) => match never {},
    }
}

fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    let pending = health.pending();
    let status = if pending.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "ready": pending.is_empty(), "pending": pending }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    if let Some(shared) = health.joined.get() {
        let (running, allocated, capacity) = shared.workers.counts();
        health.metrics.set_workers(running, allocated, capacity);
    }
    match health.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn not_joined_is_healthy_but_not_ready() {
        let health = Arc::new(Health {
            metrics: Arc::new(Metrics::new().unwrap()),
            gate: Arc::new(Gate::new(true)),
            joined: OnceLock::new(),
            draining: CancellationToken::new(),
        });
        let answer = ready(State(Arc::clone(&health))).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(health.pending().len(), 1);
        assert_eq!(metrics(State(health)).await.status(), StatusCode::OK);
    }
}
