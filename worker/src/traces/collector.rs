//! Sends spans to a collector, over plain HTTP. The SDK calls it from a thread of its own, which may wait.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::metrics::Metrics;
use crate::throttled_log::OutageLog;

/// How long an export may take, from the connection to the answer. Meanwhile the SDK exports nothing else.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is read of an answer, which says at most how many spans were refused.
const ANSWER_MAX: usize = 64 * 1024;

pub(super) struct Collector {
    /// Host and port as the URL has them, and as they are dialled.
    authority: String,
    host: String,
    port: u16,
    runtime: Handle,
    metrics: Arc<Metrics>,
    outage: OutageLog,
}

impl Collector {
    pub(super) fn new(endpoint: &Uri, metrics: Arc<Metrics>) -> Self {
        let host = endpoint.host().unwrap_or("127.0.0.1");
        Self {
            authority: endpoint.authority().map(ToString::to_string).unwrap_or_default(),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: endpoint.port_u16().unwrap_or(80),
            runtime: Handle::current(),
            metrics,
            outage: OutageLog::default(),
        }
    }

    fn record(&self, sent: &Result<Response<Bytes>, HttpError>) {
        let error = match sent {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answered with HTTP status {}", response.status())),
            Err(error) => Some(error.to_string()),
        };
        self.metrics.exported(error.is_none());
        match error {
            Some(error) => {
                if let Some(failures) = self.outage.record_failure("export") {
                    tracing::warn!(%error, failures, "the collector takes no traces; spans are lost");
                }
            }
            None => {
                if let Some((failures, after)) = self.outage.record_answer("export") {
                    tracing::info!(failures, ?after, "the collector takes traces again");
                }
            }
        }
    }
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("authority", &self.authority).finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (host, port, authority) = (self.host.clone(), self.port, self.authority.clone());
        // The calling thread has no runtime.
        let sending = self.runtime.spawn(async move {
            match timeout(EXPORT_TIMEOUT, send((&host, port), &authority, request)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {EXPORT_TIMEOUT:?}").into()),
            }
        });
        let sent = sending.await.unwrap_or_else(|_| Err("the worker is ending".into()));
        self.record(&sent);
        sent
    }
}

/// A connection for one request: one is made every few seconds.
async fn send(
    address: (&str, u16),
    authority: &str,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, HttpError> {
    let (mut head, body) = request.into_parts();
    head.headers.insert(header::HOST, authority.parse()?);
    head.uri = head.uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| path.clone().into());
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let (head, body) =
            sender.send_request(Request::from_parts(head, Full::new(body))).await?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The answer may have come with the end of the connection.
        _ = connection => answer.await,
    }
}
