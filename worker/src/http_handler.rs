//! Calls a handler over HTTP on the pod's loopback.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rowlock_crds::RetryPolicy;

use crate::answer::Answer;
use crate::http_answer::read_answer;
use crate::task::Task;

/// On loopback a connect that takes longer is a full backlog or a stopped process.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Shorter than the keep-alive of common servers (gunicorn 2 s, Node and uvicorn 5 s): a connection the
/// server closes while we write to it would cost an attempt.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// A client with a keep-alive pool no larger than the number of workers.
#[derive(Clone)]
pub(crate) struct HttpHandler {
    client: Client<HttpConnector, Full<Bytes>>,
    url: Uri,
}

impl HttpHandler {
    pub(crate) fn new(url: Uri, workers: u32) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(usize::try_from(workers).unwrap_or(usize::MAX))
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Self { client, url }
    }

    /// Host and port for the probe of the handler's port.
    pub(crate) fn address(&self) -> (String, u16) {
        let host = self.url.host().unwrap_or("127.0.0.1");
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        (host, self.url.port_u16().unwrap_or(80))
    }

    /// One attempt. Dropping this future closes the connection.
    pub(crate) async fn call(&self, task: Task, retry: &RetryPolicy) -> Answer {
        let request = match self.request(task) {
            Ok(request) => request,
            Err(error) => return Answer::Final { error: format!("this task cannot be sent: {error}") },
        };
        match self.client.request(request).await {
            Ok(response) => read_answer(response, retry).await,
            Err(error) if error.is_connect() => Answer::Unreachable { error: causes(&error) },
            Err(error) => Answer::failed(format!("no whole answer from the handler: {}", causes(&error))),
        }
    }

    fn request(&self, task: Task) -> Result<Request<Full<Bytes>>, http::Error> {
        let id = task.id.to_string();
        Request::builder()
            .method(Method::POST)
            .uri(self.url.clone())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("ce-specversion", HeaderValue::from_static("1.0"))
            .header("ce-id", &id)
            .header("ce-type", percent_encode(&task.kind))
            .header("ce-source", format!("/rowlock/{}", percent_encode(&task.queue)))
            .header("ce-time", humantime::format_rfc3339_millis(task.enqueued_at).to_string())
            .header("idempotency-key", &id)
            .header("traceparent", traceparent())
            .header("rowlock-queue", percent_encode(&task.queue))
            .header("rowlock-attempt", task.attempt)
            .header("rowlock-max-attempts", task.max_attempts)
            .header("rowlock-deadline", humantime::format_rfc3339_millis(task.deadline).to_string())
            .header("rowlock-fencing-token", task.fencing_token.to_string())
            .body(Full::new(Bytes::from(task.payload)))
    }
}

/// The HTTP binding of `CloudEvents`: everything outside printable ASCII, and `"`, `%`, space, is escaped.
fn percent_encode(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// A fresh trace per attempt. Marked as sampled, so that a handler that follows its parent records it.
fn traceparent() -> String {
    // All zeros would be invalid.
    format!("00-{:032x}-{:016x}-01", fastrand::u128(1..), fastrand::u64(1..))
}

/// The whole chain: hyper's outermost message alone says only "client error (`SendRequest`)".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Unix milliseconds as a time; the database's clock, so possibly ahead of ours.
pub(crate) fn unix_ms(ms: i64) -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

#[cfg(test)]
mod tests;
