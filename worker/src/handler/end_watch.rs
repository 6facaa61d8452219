//! Tells a handler that has ended from one that closed a connection.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::handler::readiness_probe::probe;
use crate::metrics::Metrics;

/// Pauses before each probe of the port. The first follows at once, because a restarted handler may listen
/// again within milliseconds. The others give a process that ends the time to close its listening socket:
/// the kernel closes its files one after the other, and thousands of connections may come first.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(75),
    Duration::from_millis(200),
];

/// Asks whether the handler's process ended when a connection to it broke.
pub(crate) struct EndWatch {
    /// Where the handler listens. `None`: not on this machine, so a refused connection may come from another
    /// process than the one that had the task.
    address: Option<(String, u16)>,
    metrics: Arc<Metrics>,
    /// Locked while the port is probed, so that the attempts of one end share the probes.
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    /// When the last end was noticed.
    ended: Option<Instant>,
    /// When the last probes began that found the handler alive.
    alive: Option<Instant>,
}

impl EndWatch {
    pub(crate) fn new(address: Option<(String, u16)>, metrics: Arc<Metrics>) -> Self {
        let address = address.filter(|(host, _)| is_this_machine(host));
        Self { address, metrics, found: Mutex::default() }
    }

    /// Whether the handler ended after `started`. Call it when a connection has broken. Only a refused
    /// connection is proof: then nothing listens on the port any more.
    pub(crate) async fn ended_since(&self, started: Instant) -> bool {
        let Some((host, port)) = &self.address else { return false };
        let broke = Instant::now();
        let mut found = self.found.lock().await;
        if found.ended.is_some_and(|ended| started <= ended) {
            return true;
        }
        if found.alive.is_some_and(|alive| broke <= alive) {
            return false;
        }
        let began = Instant::now();
        for pause in PAUSES {
            sleep(pause).await;
            let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
            if probe(host, *port).await.is_err_and(refused) {
                found.ended = Some(Instant::now());
                self.metrics.handler_ended();
                tracing::warn!(
                    port,
                    "the handler ended while tasks ran; they use no attempt, and each runs alone next"
                );
                return true;
            }
        }
        found.alive = Some(began);
        false
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn watch(host: &str, port: u16) -> EndWatch {
        EndWatch::new(Some((host.to_owned(), port)), Arc::new(Metrics::new("mail").unwrap()))
    }

    #[tokio::test]
    async fn a_handler_that_listens_has_not_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let watch = watch("127.0.0.1", listener.local_addr().unwrap().port());
        assert!(!watch.ended_since(Instant::now()).await);
    }

    #[tokio::test]
    async fn an_end_counts_for_the_attempts_that_began_before_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let watch = watch("localhost", address.port());
        let before = Instant::now();
        drop(listener);
        assert!(watch.ended_since(before).await);
        let _restarted = TcpListener::bind(address).await.unwrap();
        assert!(watch.ended_since(before).await, "its connection broke at the same end");
        assert!(!watch.ended_since(Instant::now()).await, "began after the restart");
        assert_eq!(watch.metrics.handler_ended_so_far(), 1);
    }

    #[tokio::test]
    async fn the_end_of_a_handler_on_another_machine_is_never_known() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert!(!watch("handler.internal", port).ended_since(Instant::now()).await);
    }
}
