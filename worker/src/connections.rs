//! Connections to the handler, kept alive between tasks.
//!
//! hyper's own pool, `hyper_util::client::legacy`, keeps the state of connecting in every request: 9 of the 25 KiB that a task in
//! flight took. Here a request in flight has what `hyper::client::conn` gives, and no more.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// On loopback a connect that takes longer is a full backlog or a stopped process.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Shorter than the keep-alive of common servers (gunicorn 2 s, Node and uvicorn 5 s): a connection the
/// server closes while we write to it would cost an attempt.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// A kept connection whose last answer was read to its end is ready at once, one that is about to close says so.
const READY_TIMEOUT: Duration = Duration::from_millis(100);

/// One connection; it closes when this is dropped.
pub(crate) type Connection = SendRequest<Full<Bytes>>;

/// Why there is no answer.
pub(crate) enum NoAnswer {
    /// Nothing was sent.
    Unreachable(std::io::Error),
    /// What was sent may have been read.
    Broken(hyper::Error),
}

impl From<hyper::Error> for NoAnswer {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error)
    }
}

pub(crate) struct Connections {
    host: String,
    port: u16,
    most: usize,
    /// The longest idle first.
    idle: Mutex<VecDeque<(Instant, Connection)>>,
}

impl Connections {
    /// Keeps at most `most` of them.
    pub(crate) fn new(host: String, port: u16, most: usize) -> Self {
        Self { host, port, most, idle: Mutex::default() }
    }

    /// Sends a request once, on a kept connection or a new one. The connection is to be given back with [`Self::keep`] when the
    /// answer was read; dropping this future closes it.
    pub(crate) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Connection), NoAnswer> {
        while let Some(mut kept) = self.take() {
            if !matches!(timeout(READY_TIMEOUT, kept.ready()).await, Ok(Ok(()))) {
                continue;
            }
            match kept.try_send_request(request).await {
                Ok(response) => return Ok((response, kept)),
                // Closed before anything was sent: another connection may do.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut fresh = self.connect().await?;
        let response = fresh.send_request(request).await?;
        Ok((response, fresh))
    }

    pub(crate) fn keep(&self, connection: Connection) {
        let mut idle = self.idle();
        if !connection.is_closed() && idle.len() < self.most {
            idle.push_back((Instant::now(), connection));
        }
    }

    /// Closes what has been idle for too long; never returns.
    pub(crate) async fn expire(&self) {
        loop {
            sleep(IDLE_TIMEOUT).await;
            let mut idle = self.idle();
            while idle.front().is_some_and(|(since, _)| IDLE_TIMEOUT <= since.elapsed()) {
                idle.pop_front();
            }
        }
    }

    /// The one that was used last.
    fn take(&self) -> Option<Connection> {
        let (since, connection) = self.idle().pop_back()?;
        (since.elapsed() < IDLE_TIMEOUT).then_some(connection)
    }

    async fn connect(&self) -> Result<Connection, NoAnswer> {
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect((self.host.as_str(), self.port))).await;
        let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        let stream = connected.map_err(late).flatten().map_err(NoAnswer::Unreachable)?;
        stream.set_nodelay(true).map_err(NoAnswer::Unreachable)?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await?;
        // Ends when either side closes; what went wrong is told to who waits for the answer.
        tokio::spawn(async move {
            let _ = driver.await;
        });
        Ok(connection)
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<(Instant, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
