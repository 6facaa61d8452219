//! `/healthz`, `/readyz` and `/metrics`.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use tokio::task::yield_now;

use crate::kubernetes::api::watch::WatchedStore;
use crate::kubernetes::context::Context;
use crate::kubernetes::metrics;

/// The context that the pages show. Empty until the API server has answered once.
pub(crate) type ContextCell = Arc<OnceLock<Arc<Context>>>;

pub(crate) fn router(cell: ContextCell) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(text))
        .with_state(cell)
}

/// A replica that does not lead is ready too: it watches all objects, and can take over.
async fn ready(State(cell): State<ContextCell>) -> Response {
    let queues = cell.get().map(|context| &context.task_queues);
    let refusal = queues.and_then(WatchedStore::refusal);
    // The CRD may have been deleted since.
    if refusal.is_none() && queues.is_some_and(WatchedStore::is_complete) {
        return "ok\n".into_response();
    }
    let detail = refusal.unwrap_or_else(|| "waiting for the API server".to_owned());
    (StatusCode::SERVICE_UNAVAILABLE, format!("{detail}\n")).into_response()
}

async fn text(State(cell): State<ContextCell>) -> Response {
    let Some(context) = cell.get() else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let page = match metrics::page(context) {
        Ok(page) => page,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    // Other tasks run between two pieces, such as the renewal of the Lease.
    let pieces = stream::unfold(page, async |mut page| {
        yield_now().await;
        page.next().map(|piece| (Ok::<_, Infallible>(piece), page))
    });
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], Body::from_stream(pieces)).into_response()
}
