//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::metrics;
use super::shared::Shared;
use super::watch::Followed;

/// What the pages are made from; empty until the API server has answered once.
pub(crate) type Known = Arc<OnceLock<Arc<Shared>>>;

pub(crate) fn router(known: Known) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(text))
        .with_state(known)
}

/// A replica that does not lead is ready too: it knows all, and waits.
async fn ready(State(known): State<Known>) -> Response {
    let queues = known.get().map(|shared| &shared.task_queues);
    let refusal = queues.and_then(Followed::refusal);
    // The definition may have gone since.
    if refusal.is_none() && queues.is_some_and(Followed::is_complete) {
        return "ok\n".into_response();
    }
    let said = refusal.unwrap_or_else(|| "waiting for the API server".to_owned());
    (StatusCode::SERVICE_UNAVAILABLE, format!("{said}\n")).into_response()
}

async fn text(State(known): State<Known>) -> Response {
    let Some(shared) = known.get() else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    match metrics::text(shared) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
