//! The HTTP client of the exporter: one request per connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::ConfigError;
use crate::traces::tls::Tls;

/// How long a request may take, from the connection to the answer. Meanwhile nothing else is exported.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is read of an answer, which says at most how many spans were refused.
const ANSWER_MAX: usize = 64 * 1024;

/// The most characters of what a collector says that are logged.
const MESSAGE_MAX: usize = 200;

/// What `OpenTelemetry`'s exporter does not hand on of the last request.
#[derive(Clone, Default)]
pub(super) struct LastAnswer(Arc<Mutex<Answer>>);

#[derive(Default)]
pub(super) struct Answer {
    /// Why it got no answer. The exporter says only "network error".
    pub(super) error: Option<String>,
    /// How many spans the collector refused, although it took others, and why.
    pub(super) rejected: usize,
    pub(super) reason: String,
}

impl LastAnswer {
    fn set(&self, answer: Answer) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    pub(super) fn take(&self) -> Answer {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What an answer says about spans that the collector did not take. An answer that cannot be read refuses
/// none.
fn rejected(body: Bytes) -> Answer {
    let answer = ExportTraceServiceResponse::decode(body).ok().and_then(|answer| answer.partial_success);
    let Some(partial) = answer else { return Answer::default() };
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    Answer {
        error: None,
        rejected: usize::try_from(partial.rejected_spans).unwrap_or_default(),
        reason: partial.error_message.chars().take(MESSAGE_MAX).map(printable).collect(),
    }
}

pub(super) struct Collector {
    /// Host and port as the URL has them.
    authority: String,
    host: String,
    port: u16,
    tls: Option<Tls>,
    last_answer: LastAnswer,
}

impl Collector {
    pub(super) fn new(endpoint: &Uri) -> Result<Self, ConfigError> {
        Self::with_variables(endpoint, |name| std::env::var(name).ok())
    }

    pub(super) fn with_variables(
        endpoint: &Uri,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let host = endpoint.host().unwrap_or("127.0.0.1");
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_encrypted = endpoint.scheme_str() == Some("https");
        let tls = is_encrypted.then(|| Tls::from_variables(&host, variable)).transpose();
        Ok(Self {
            authority: endpoint.authority().map(ToString::to_string).unwrap_or_default(),
            host,
            port: endpoint.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 }),
            tls: tls.map_err(ConfigError)?,
            last_answer: LastAnswer::default(),
        })
    }

    pub(super) fn last_answer(&self) -> LastAnswer {
        self.last_answer.clone()
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = request.into_parts();
        head.headers.insert(header::HOST, self.authority.parse()?);
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = path.parse()?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let request = Request::from_parts(head, Full::new(body));
        match &self.tls {
            Some(tls) => exchange(tls.connect(stream).await?, request).await,
            None => exchange(stream, request).await,
        }
    }
}

/// Sends a request, and reads the whole answer.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, HttpError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
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
        self.last_answer.set(match &answer {
            Ok(answer) => rejected(answer.body().clone()),
            Err(error) => Answer { error: Some(error.to_string()), ..Answer::default() },
        });
        answer
    }
}
