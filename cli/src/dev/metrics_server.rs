//! Serves `/metrics`, and at `/targets` the metrics addresses of the instances for Prometheus' HTTP service
//! discovery.

use crate::dev::metrics;
use crate::failure::Failure;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use rowlock_operator::View;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(super) struct MetricsServer {
    pub(super) address: SocketAddr,
    server: JoinHandle<Infallible>,
}

impl MetricsServer {
    pub(super) async fn start(listen: SocketAddr, seen: watch::Receiver<View>) -> Result<Self, Failure> {
        let failed = |error| {
            Failure::usage(format!("--listen {listen}: {error}"))
                .hint("choose another port, or 0 for a free port")
        };
        let listener = rowlock_daemon::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr()?;
        let views = seen.clone();
        let own = move || async move {
            metrics::text(&views.borrow())
                .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
        };
        let targets = move || async move {
            ([(header::CONTENT_TYPE, "application/json")], targets(&seen.borrow()).to_string())
        };
        let router = Router::new().route("/metrics", get(own)).route("/targets", get(targets));
        let server = tokio::spawn(rowlock_daemon::serve(listener, router));
        Ok(Self { address, server })
    }

    /// Returns only if the server has failed.
    pub(super) async fn failed(mut self) -> Failure {
        match (&mut self.server).await {
            Ok(never) => match never {},
            Err(error) => Failure::new(format!("the metrics server failed: {error}")),
        }
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn targets(view: &View) -> Value {
    // No label `queue`: the series of an instance have it, and Prometheus would rename theirs.
    let instance =
        |(name, address): &(String, String)| json!({"targets": [address], "labels": {"instance_name": name}});
    let all = view.queues.iter().flat_map(|queue| queue.metrics.iter().map(instance));
    Value::Array(all.collect())
}
