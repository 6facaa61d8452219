//! The HTTP port. Any client that can reach it may open connections and keep them, so their number and time
//! are limited.

use std::cmp::Reverse;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rowlock_crds::listen_address;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;

use crate::open_files::file_limit_advice;

/// Most open connections: enough for a kubelet, two Prometheus servers and some people, and few enough to
/// leave open files to tasks. For one more, the server closes another: of the client address with the most
/// connections, the one idle for longest. So a pod that floods the port loses its own connections, and not
/// the kubelet's.
const MAX_CONNECTIONS: usize = 32;

/// From the opening of a connection, or the last answer on it, to the end of the next request's head. The
/// kubelet waits 1 s for an answer. A Prometheus that scrapes every 15 s opens a new connection each time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// From a request's head to its answer: all pages come from memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest life of a connection, even while a client reads an answer byte by byte.
const MAX_CONNECTION_AGE: Duration = Duration::from_mins(1);

/// Wait after a connection could not be accepted, for example because of the limit of open files.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How often the same failure is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Listens on the address. For `[::]` on a machine without IPv6, it listens on all IPv4 addresses.
///
/// # Errors
///
/// The system's error: the port is taken, or this machine does not have the address.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(&listen_address::addresses(address)[..]).await
}

/// Serves the pages until the future is dropped, which closes all connections.
pub async fn serve(listener: TcpListener, pages: Router) -> Infallible {
    let mut connections = Connections { pages, open: Vec::new(), tasks: JoinSet::new() };
    let mut logged_at: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                connections.admit(stream, peer.ip().to_canonical());
                // Lets the connection run once before another one is accepted, so that it is not the one idle
                // for longest.
                yield_now().await;
            }
            Err(error) => {
                if logged_at.is_none_or(|at| LOG_INTERVAL < at.elapsed()) {
                    logged_at = Some(Instant::now());
                    let advice = file_limit_advice(&error).map_or_else(|| error.to_string(), str::to_owned);
                    tracing::warn!("cannot accept connections on the port for metrics and probes: {advice}");
                }
                connections.close_one();
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

struct Connections {
    pages: Router,
    open: Vec<Open>,
    tasks: JoinSet<()>,
}

struct Open {
    peer: IpAddr,
    last_active: LastActive,
    task: AbortHandle,
}

/// When the connection was opened, or when the head of its last request was complete.
type LastActive = Arc<Mutex<Instant>>;

impl Connections {
    fn admit(&mut self, stream: TcpStream, peer: IpAddr) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|one| !one.task.is_finished());
        if MAX_CONNECTIONS <= self.open.len() {
            self.close_one();
        }
        let last_active = Arc::new(Mutex::new(Instant::now()));
        let task = self.tasks.spawn(answer_on(stream, self.pages.clone(), Arc::clone(&last_active)));
        self.open.push(Open { peer, last_active, task });
    }

    /// Closes, of the client address with the most connections, the one idle for longest.
    fn close_one(&mut self) {
        let of = |peer: IpAddr| self.open.iter().filter(|one| one.peer == peer).count();
        let order = |one: &Open| (Reverse(of(one.peer)), read(&one.last_active));
        let oldest = (0..self.open.len()).min_by_key(|at| order(&self.open[*at]));
        if let Some(oldest) = oldest {
            self.open.swap_remove(oldest).task.abort();
        }
    }
}

fn read(last_active: &LastActive) -> Instant {
    *last_active.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer_on(stream: TcpStream, pages: Router, last_active: LastActive) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        *last_active.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let answer = timeout(ANSWER_TIMEOUT, pages.clone().oneshot(request));
        async { Ok::<Response, Infallible>(answer.await.map_or_else(|_| too_late(), |Ok(answer)| answer)) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    // An error on a connection concerns only its client.
    let _ = timeout(MAX_CONNECTION_AGE, connection).await;
}

fn too_late() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the page timed out\n").into_response()
}

#[cfg(test)]
mod tests;
