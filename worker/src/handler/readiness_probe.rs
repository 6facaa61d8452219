//! Probes whether the handler's port accepts connections. While it does not, the worker claims nothing.

use std::io;
use std::time::Duration;

use rowlock_daemon::file_limit_advice;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::backoff::Backoff;

/// A handler starts within seconds, and up to twenty probes a second cost almost nothing on loopback.
const PROBE_BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Most handlers have started within this time. After that the log says once a minute why nothing is claimed.
const FIRST_WARNING: Duration = Duration::from_secs(5);
const NEXT_WARNING: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(crate) struct ReadinessProbe {
    ready: watch::Sender<bool>,
}

impl ReadinessProbe {
    pub(crate) fn new(ready: bool) -> Self {
        Self { ready: watch::Sender::new(ready) }
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// The handler could not be reached.
    pub(crate) fn mark_unready(&self, error: &str) {
        if self.ready.send_replace(false) {
            tracing::warn!(
                "the handler cannot be reached ({error}); nothing is claimed until its port accepts \
                 connections"
            );
        }
    }

    /// Probes the handler whenever it is not ready; never returns.
    pub(crate) async fn run(&self, host: &str, port: u16, became_ready: impl Fn()) {
        let mut unready = self.ready.subscribe();
        loop {
            // Cannot fail, because `self` owns the sender.
            let _ = unready.wait_for(|ready| !ready).await;
            let mut backoff = PROBE_BACKOFF;
            let mut due = Instant::now() + FIRST_WARNING;
            while let Err(error) = probe(host, port).await {
                if due <= Instant::now() {
                    due = Instant::now() + NEXT_WARNING;
                    tracing::warn!("{}", describe_failure(host, port, &error));
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
            self.ready.send_replace(true);
            tracing::info!(port, "the handler accepts connections");
            became_ready();
        }
    }

    #[cfg(test)]
    pub(crate) async fn became_ready(&self) {
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }
}

/// Whether the port accepts a connection.
pub(crate) async fn probe(host: &str, port: u16) -> io::Result<()> {
    let connected = timeout(PROBE_TIMEOUT, TcpStream::connect((host, port))).await;
    connected.map_err(|_| io::ErrorKind::TimedOut.into()).flatten().map(drop)
}

/// Why nothing is claimed. A limit of open files prevents the probe itself; then the handler is not the
/// cause.
fn describe_failure(host: &str, port: u16, error: &io::Error) -> String {
    match (file_limit_advice(error), error.kind()) {
        (Some(advice), _) => {
            format!("the handler on {host}:{port} cannot be probed, so nothing is claimed: {advice}")
        }
        (None, io::ErrorKind::ConnectionRefused) => format!(
            "nothing listens on {host}:{port}, so nothing is claimed: the handler must listen there \
             (`rowlock dev` sets PORT)"
        ),
        _ => format!(
            "the handler on {host}:{port} does not accept connections, so nothing is claimed: {error}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_the_port_accepts_and_again_after_the_handler_restarted() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let readiness = ReadinessProbe::new(false);
        let comes_and_goes = async {
            for _ in 0..2 {
                assert!(!readiness.is_ready());
                let listener = tokio::net::TcpListener::bind(address).await.unwrap();
                readiness.became_ready().await;
                drop(listener);
                readiness.mark_unready("gone");
            }
        };
        tokio::select! {
            () = readiness.run("127.0.0.1", address.port(), || ()) => unreachable!("runs for good"),
            () = comes_and_goes => (),
        }
    }

    /// The process has reached its limit of open files.
    const EMFILE: i32 = 24;

    #[test]
    fn the_warning_blames_the_handler_only_for_its_own_faults() {
        let describe = |error: io::Error| describe_failure("127.0.0.1", 8080, &error);
        assert!(
            describe(io::ErrorKind::ConnectionRefused.into()).contains("nothing listens on 127.0.0.1:8080")
        );
        assert!(describe(io::ErrorKind::TimedOut.into()).contains("does not accept connections"));
        let advice = describe(io::Error::from_raw_os_error(EMFILE));
        assert!(advice.contains("ulimit -n") && !advice.contains("must listen"), "{advice}");
    }
}
