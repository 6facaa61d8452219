//! Calls a handler over HTTP.

mod answer;
mod answer_start;
mod connections;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use rowlock_crds::RetryPolicy;
use rowlock_daemon::file_limit_advice;

use crate::handler::api::Task;
use crate::handler::http::answer::{read_answer, unreadable};
use crate::handler::http::connections::{Connections, NoAnswer};
use crate::handler::outcome::{Answer, Reason};

// Parsed once, because every request has them.
const CE_SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");
const CE_ID: HeaderName = HeaderName::from_static("ce-id");
const CE_TYPE: HeaderName = HeaderName::from_static("ce-type");
const CE_SOURCE: HeaderName = HeaderName::from_static("ce-source");
const CE_TIME: HeaderName = HeaderName::from_static("ce-time");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const ROWLOCK_QUEUE: HeaderName = HeaderName::from_static("rowlock-queue");
const ROWLOCK_ATTEMPT: HeaderName = HeaderName::from_static("rowlock-attempt");
const ROWLOCK_MAX_ATTEMPTS: HeaderName = HeaderName::from_static("rowlock-max-attempts");
const ROWLOCK_DEADLINE: HeaderName = HeaderName::from_static("rowlock-deadline");
const ROWLOCK_FENCING_TOKEN: HeaderName = HeaderName::from_static("rowlock-fencing-token");

/// The number of headers of a request.
const REQUEST_HEADERS: usize = 16;

/// A handler that runs tasks behind an HTTP port.
#[derive(Clone)]
pub(crate) struct HttpHandler {
    /// At most as many connections as there are slots.
    pub(crate) connections: Arc<Connections>,
    url: Uri,
    /// Path and query of the URL.
    target: Uri,
    /// Host and port as the URL has them.
    authority: String,
}

impl HttpHandler {
    pub(crate) fn new(url: Uri, slots: u32) -> Self {
        let (host, port) = address(&url);
        let slots = usize::try_from(slots).unwrap_or(usize::MAX);
        let shown_host = url.host().unwrap_or(&host);
        let authority =
            url.port().map_or_else(|| shown_host.to_owned(), |port| format!("{shown_host}:{port}"));
        let target = url.path_and_query().cloned().map(Uri::from).unwrap_or_default();
        Self { connections: Arc::new(Connections::new(host, port, slots)), url, target, authority }
    }

    /// Host and port to probe.
    pub(crate) fn address(&self) -> (String, u16) {
        address(&self.url)
    }

    /// One attempt. Dropping this future closes the connection.
    pub(crate) async fn call(&self, mut task: Task, retry: &RetryPolicy) -> Answer {
        // Each request clones the payload without copying its bytes.
        let payload = Bytes::from(std::mem::take(&mut task.payload));
        match self.connections.send(|| self.request(&task, &payload)).await {
            Ok((response, mut connection)) => {
                let answer = connection.read(read_answer(response, retry, self.path())).await;
                self.connections.put_back(connection);
                answer
            }
            Err(NoAnswer::Unsendable(error)) => {
                let error = format!("this task cannot be sent: {error}");
                Answer::Final { error, reason: Reason::Error }
            }
            Err(NoAnswer::Unreachable(error)) => {
                let advice = file_limit_advice(&error).map(str::to_owned);
                Answer::Unreachable { error: advice.unwrap_or_else(|| error.to_string()) }
            }
            Err(NoAnswer::Unreadable(status, error)) => unreadable(status, &causes(&error), retry),
            Err(NoAnswer::Broken(error)) => {
                Answer::Broken { error: format!("no complete answer from the handler: {}", causes(&error)) }
            }
        }
    }

    fn path(&self) -> &str {
        self.url.path_and_query().map_or("/", |path| path.as_str())
    }

    fn request(&self, task: &Task, payload: &Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::new(Full::new(payload.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        let id = HeaderValue::from(task.id.0);
        let queue = percent_encode(&task.queue);
        let headers = request.headers_mut();
        headers.reserve(REQUEST_HEADERS);
        headers.insert(header::HOST, self.authority.as_str().try_into()?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Results are stored as text, and compression gains nothing over loopback.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(CE_SPECVERSION, HeaderValue::from_static("1.0"));
        headers.insert(CE_ID, id.clone());
        headers.insert(CE_TYPE, percent_encode(&task.task_type).try_into()?);
        headers.insert(CE_SOURCE, format!("/rowlock/{queue}").try_into()?);
        headers.insert(CE_TIME, rfc3339(task.enqueued_at).try_into()?);
        headers.insert(IDEMPOTENCY_KEY, id);
        headers.insert(TRACEPARENT, task.traceparent.as_str().try_into()?);
        if !task.tracestate.is_empty() {
            headers.insert(TRACESTATE, task.tracestate.as_str().try_into()?);
        }
        headers.insert(ROWLOCK_QUEUE, queue.try_into()?);
        headers.insert(ROWLOCK_ATTEMPT, task.attempt.into());
        headers.insert(ROWLOCK_MAX_ATTEMPTS, task.max_attempts.into());
        headers.insert(ROWLOCK_DEADLINE, rfc3339(task.deadline).try_into()?);
        headers.insert(ROWLOCK_FENCING_TOKEN, task.fencing_token.0.into());
        Ok(request)
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

fn address(url: &Uri) -> (String, u16) {
    let host = url.host().unwrap_or("127.0.0.1");
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    (host, url.port_u16().unwrap_or(80))
}

/// Escapes everything except printable ASCII, and also `"`, `%` and space. The HTTP binding of `CloudEvents`
/// requires this.
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

/// The error with all its causes: hyper's outermost message is only "client error (`SendRequest`)".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod reuse_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unusual_answer_tests;
