//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::metrics;
use super::shared::Shared;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(text))
        .with_state(shared)
}

/// A replica that does not lead is ready too: it knows all, and waits.
async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if shared.task_queues.is_complete() {
        return "ok\n".into_response();
    }
    let said = shared.task_queues.refusal().unwrap_or_else(|| "waiting for the API server".to_owned());
    (StatusCode::SERVICE_UNAVAILABLE, format!("{said}\n")).into_response()
}

async fn text(State(shared): State<Arc<Shared>>) -> Response {
    match metrics::text(&shared) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
