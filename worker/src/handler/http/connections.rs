//! Connections to the handler, kept alive between tasks. TCP only: there are no Unix sockets.
//!
//! This pool builds on `hyper::client::conn`. hyper's own pool, `hyper_util::client::legacy`, keeps
//! connection state in every request: 9 of the 25 KiB that a task in flight used.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::handler::http::answer_start::{AnswerStart, RecordingStream};

/// On loopback, a connect that takes longer means a full accept queue or a stopped process.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Shorter than the keep-alive timeout of common servers (gunicorn 2 s, Node and uvicorn 5 s). If the server
/// closed a connection while we write to it, that would cost an attempt.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// A kept connection whose last answer was read completely is ready immediately, or reports that it closes.
const READY_TIMEOUT: Duration = Duration::from_millis(100);

/// If the handler closed a kept connection before our request arrived, the request fails within this time. A
/// later failure means that the handler had begun the task. Sending it again would run it twice.
const STALE_WITHIN: Duration = Duration::from_secs(1);

/// Largest head of an answer, the default limit of Go's server too.
const HEAD_BYTES: usize = 1024 * 1024;
/// More headers than any server sends. hyper allocates space for that many per answer.
const HEADERS: usize = 256;

/// One connection. It closes when this is dropped.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
    start: AnswerStart,
}

/// Reads and writes the bytes of a connection. The attempt that uses the connection also polls it: waking
/// another task for each request and each answer would take longer.
struct Driver(Option<Pin<Box<Http1>>>);

type Http1 = hyper::client::conn::http1::Connection<TokioIo<RecordingStream>, Full<Bytes>>;

/// Why there is no answer.
pub(crate) enum NoAnswer {
    /// The request cannot be built.
    Unsendable(http::Error),
    /// Nothing was sent.
    Unreachable(std::io::Error),
    /// The handler may have read the request.
    Broken(hyper::Error),
    /// The answer has this status; the rest of it cannot be read.
    Unreadable(StatusCode, hyper::Error),
}

impl From<http::Error> for NoAnswer {
    fn from(error: http::Error) -> Self {
        Self::Unsendable(error)
    }
}

impl From<hyper::Error> for NoAnswer {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error)
    }
}

pub(crate) struct Connections {
    host: String,
    port: u16,
    max_idle: usize,
    /// Idle connections, the longest idle first.
    idle: Mutex<VecDeque<(Instant, Connection)>>,
}

impl Connections {
    /// Keeps at most `max_idle` idle connections.
    pub(crate) fn new(host: String, port: u16, max_idle: usize) -> Self {
        Self { host, port, max_idle, idle: Mutex::default() }
    }

    /// Sends the request that `request` builds, on a kept connection or a new one. Call [`Self::put_back`]
    /// when the answer has been read. Dropping this future closes the connection.
    ///
    /// If a request fails immediately on a kept connection, before the first byte of an answer, it is sent
    /// again on a new one: most likely the handler had closed the kept connection before the request arrived.
    pub(crate) async fn send(
        &self,
        request: impl Fn() -> Result<Request<Full<Bytes>>, http::Error>,
    ) -> Result<(Response<Incoming>, Connection), NoAnswer> {
        while let Some(mut kept) = self.take() {
            if !matches!(timeout(READY_TIMEOUT, kept.is_ready()).await, Ok(true)) {
                continue;
            }
            kept.start.clear();
            let sent = Instant::now();
            let mut error = match kept.driver.run_with(kept.sender.try_send_request(request()?)).await {
                Ok(response) => return Ok((response, kept)),
                Err(error) => error,
            };
            if error.take_message().is_some() {
                // Closed before anything was sent: try another connection.
                continue;
            }
            let failed = kept.start.failed(error.into_error());
            if !kept.start.is_empty() || STALE_WITHIN < sent.elapsed() {
                return Err(failed);
            }
            return match self.send_on_new(request()?).await {
                // If the handler cannot be reached now, it may have received the first request and crashed on
                // it.
                Err(NoAnswer::Unreachable(_)) => Err(failed),
                answer => answer,
            };
        }
        self.send_on_new(request()?).await
    }

    async fn send_on_new(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Connection), NoAnswer> {
        let mut fresh = self.connect().await?;
        match fresh.driver.run_with(fresh.sender.send_request(request)).await {
            Ok(response) => Ok((response, fresh)),
            Err(error) => Err(fresh.start.failed(error)),
        }
    }

    pub(crate) fn put_back(&self, connection: Connection) {
        let mut idle = self.idle();
        if !connection.sender.is_closed() && idle.len() < self.max_idle {
            idle.push_back((Instant::now(), connection));
        }
    }

    /// Closes connections that have been idle for too long; never returns.
    pub(crate) async fn expire(&self) {
        loop {
            sleep(IDLE_TIMEOUT).await;
            let mut idle = self.idle();
            while idle.front().is_some_and(|(since, _)| IDLE_TIMEOUT <= since.elapsed()) {
                idle.pop_front();
            }
        }
    }

    /// The idle connection that was used last.
    fn take(&self) -> Option<Connection> {
        let (since, connection) = self.idle().pop_back()?;
        (since.elapsed() < IDLE_TIMEOUT).then_some(connection)
    }

    async fn connect(&self) -> Result<Connection, NoAnswer> {
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect((self.host.as_str(), self.port))).await;
        let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        let stream = connected.map_err(late).flatten().map_err(NoAnswer::Unreachable)?;
        stream.set_nodelay(true).map_err(NoAnswer::Unreachable)?;
        let start = AnswerStart::default();
        let mut client = Builder::new();
        // The status decides, so malformed headers are tolerated.
        client.max_buf_size(HEAD_BYTES).max_headers(HEADERS);
        client.allow_obsolete_multiline_headers_in_responses(true);
        client.allow_spaces_after_header_name_in_responses(true);
        client.ignore_invalid_headers_in_responses(true);
        let io = TokioIo::new(RecordingStream::new(stream, start.clone()));
        let (sender, driver) = client.handshake(io).await?;
        Ok(Connection { sender, driver: Driver(Some(Box::pin(driver))), start })
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<(Instant, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Runs what reads the answer. The connection is polled meanwhile, and once more: it closes if a part of
    /// the answer was not read, or if the handler asked for that.
    pub(crate) async fn read<T>(&mut self, answer: impl Future<Output = T>) -> T {
        let read = self.driver.run_with(answer).await;
        self.driver.poll_once().await;
        read
    }

    /// Whether another request can be sent, as far as is known: the handler may have closed the connection
    /// while it was idle.
    async fn is_ready(&mut self) -> bool {
        self.driver.poll_once().await;
        self.driver.run_with(self.sender.ready()).await.is_ok()
    }
}

impl Driver {
    /// Runs what waits for the connection, until it ends. It gets the errors of the connection.
    async fn run_with<T>(&mut self, waits: impl Future<Output = T>) -> T {
        let mut waits = pin!(waits);
        poll_fn(|cx| {
            if let Poll::Ready(done) = waits.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            self.poll(cx);
            waits.as_mut().poll(cx)
        })
        .await
    }

    async fn poll_once(&mut self) {
        poll_fn(|cx| {
            self.poll(cx);
            Poll::Ready(())
        })
        .await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        if self.0.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
            self.0 = None;
        }
    }
}

impl AnswerStart {
    fn failed(&self, error: hyper::Error) -> NoAnswer {
        match self.status() {
            Some(status) if error.is_parse() => NoAnswer::Unreadable(status, error),
            _ => NoAnswer::Broken(error),
        }
    }
}
