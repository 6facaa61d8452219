//! The HTTP client of the exporter: one request per connection, without TLS.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a request may take, from the connection to the answer. Meanwhile nothing else is exported.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is read of an answer, which says at most how many spans were refused.
const ANSWER_MAX: usize = 64 * 1024;

/// Why the last failed request got no answer. `OpenTelemetry`'s exporter says only "network error".
#[derive(Clone, Default)]
pub(super) struct LastError(Arc<Mutex<Option<String>>>);

impl LastError {
    fn set(&self, error: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

pub(super) struct Collector {
    /// Host and port as the URL has them.
    authority: String,
    host: String,
    port: u16,
    last_error: LastError,
}

impl Collector {
    pub(super) fn new(endpoint: &Uri) -> Self {
        let host = endpoint.host().unwrap_or("127.0.0.1");
        Self {
            authority: endpoint.authority().map(ToString::to_string).unwrap_or_default(),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: endpoint.port_u16().unwrap_or(80),
            last_error: LastError::default(),
        }
    }

    pub(super) fn last_error(&self) -> LastError {
        self.last_error.clone()
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = request.into_parts();
        head.headers.insert(header::HOST, self.authority.parse()?);
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = path.parse()?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let answer = async {
            let request = Request::from_parts(head, Full::new(body));
            let (head, body) = sender.send_request(request).await?.into_parts();
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
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("authority", &self.authority).finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = match timeout(REQUEST_TIMEOUT, self.send(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {REQUEST_TIMEOUT:?}").into()),
        };
        answer.inspect_err(|error| self.last_error.set(error.to_string()))
    }
}
