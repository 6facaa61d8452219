//! The HTTP port. Anybody who reaches it may open connections and leave them, so they are bounded in number
//! and time.

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

/// Open connections, at most. A kubelet, two Prometheus and some people ask at the same time; each connection
/// is an open file, and tasks need theirs. Where another one comes, one is closed: of the address with the
/// most connections the one that has been silent for longest. So a pod that floods the port closes its own,
/// and not the kubelet's, whose request comes a moment after its connection.
const MAX_CONNECTIONS: usize = 32;

/// From the opening of a connection, or the last answer on it, to the end of the next request's head. kubelet
/// waits 1 s for a whole answer; a Prometheus that asks every 15 s opens another connection each time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// From a request's head to its answer: pages are made from what is in memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection may last, requests or not: a reader who takes a page byte by byte is not waited for.
const MAX_CONNECTION_AGE: Duration = Duration::from_mins(1);

/// After a connection could not be accepted: what lacks may be there again.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The same lack is said again after this.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// A listener on that address, or on every address of IPv4 where `[::]` is asked for and there is no IPv6.
///
/// # Errors
///
/// What the system says: the port is taken, or the address is not one of this machine.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(&listen_address::addresses(address)[..]).await
}

/// Serves the pages until it is dropped; open connections end with it.
pub async fn serve(listener: TcpListener, pages: Router) -> Infallible {
    let mut connections = Connections { pages, open: Vec::new(), tasks: JoinSet::new() };
    let mut logged_at: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                connections.admit(stream, peer.ip().to_canonical());
                // It gets its turn before others come and it is the one that was silent for longest.
                yield_now().await;
            }
            Err(error) => {
                if logged_at.is_none_or(|at| LOG_INTERVAL < at.elapsed()) {
                    logged_at = Some(Instant::now());
                    let advice = file_limit_advice(&error).map_or_else(|| error.to_string(), str::to_owned);
                    tracing::warn!("the port of metrics and probes accepts no connections: {advice}");
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

/// When it was opened, or when the last whole head of a request came.
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

    /// Of the address with the most connections, the one that has been silent for longest.
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
    // What goes wrong on a connection is its client's affair.
    let _ = timeout(MAX_CONNECTION_AGE, connection).await;
}

fn too_late() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "this page could not be made in time\n").into_response()
}

#[cfg(test)]
mod tests;
