//! Calls a handler over HTTP.

mod answer;
mod answer_start;
mod connections;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use rowlock_crds::RetryPolicy;
use rowlock_daemon::file_limit_advice;

use crate::handler::api::Task;
use crate::handler::http::answer::{read_answer, unreadable};
use crate::handler::http::connections::{Connections, NoAnswer};
use crate::handler::outcome::{Answer, Reason};

/// A handler that runs tasks behind an HTTP port.
#[derive(Clone)]
pub(crate) struct HttpHandler {
    /// At most as many connections as there are slots.
    pub(crate) connections: Arc<Connections>,
    url: Uri,
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
        Self { connections: Arc::new(Connections::new(host, port, slots)), url, authority }
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
            Ok((response, connection)) => {
                let answer = read_answer(response, retry, self.path()).await;
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
        let id = task.id.to_string();
        let mut request = Request::builder().method(Method::POST).uri(self.path());
        if !task.tracestate.is_empty() {
            request = request.header("tracestate", &task.tracestate);
        }
        request
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            // Results are stored as text, and compression gains nothing over loopback.
            .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .header("ce-specversion", HeaderValue::from_static("1.0"))
            .header("ce-id", &id)
            .header("ce-type", percent_encode(&task.task_type))
            .header("ce-source", format!("/rowlock/{}", percent_encode(&task.queue)))
            .header("ce-time", humantime::format_rfc3339_millis(task.enqueued_at).to_string())
            .header("idempotency-key", &id)
            .header("traceparent", &task.traceparent)
            .header("rowlock-queue", percent_encode(&task.queue))
            .header("rowlock-attempt", task.attempt)
            .header("rowlock-max-attempts", task.max_attempts)
            .header("rowlock-deadline", humantime::format_rfc3339_millis(task.deadline).to_string())
            .header("rowlock-fencing-token", task.fencing_token.to_string())
            .body(Full::new(payload.clone()))
    }
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
