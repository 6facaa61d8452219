//! Opens when the handler's port accepts connections; closed, nothing is claimed.

use std::io;
use std::time::Duration;

use rowlock_daemon::lack_of_files;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::pause::Pause;

/// A handler starts within seconds; asking its port up to twenty times a second costs nothing on loopback.
const PROBE_PAUSE: Pause = Pause::new(Duration::from_millis(50), Duration::from_secs(1));
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Most handlers are up by then; who waits longer is told why nothing happens, and told again.
const FIRST_WARNING: Duration = Duration::from_secs(5);
const NEXT_WARNING: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(crate) struct Gate {
    open: watch::Sender<bool>,
}

impl Gate {
    pub(crate) fn new(open: bool) -> Self {
        Self { open: watch::Sender::new(open) }
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// The handler could not be reached.
    pub(crate) fn close(&self, error: &str) {
        if self.open.send_replace(false) {
            tracing::warn!(
                "the handler cannot be reached ({error}); nothing is claimed until its port accepts again"
            );
        }
    }

    /// Waits for the handler whenever the gate is closed; never returns.
    pub(crate) async fn keep(&self, host: &str, port: u16, opened: impl Fn()) {
        let mut closed = self.open.subscribe();
        loop {
            // The sender lives in self, so waiting cannot fail.
            let _ = closed.wait_for(|open| !open).await;
            let mut pause = PROBE_PAUSE;
            let mut due = Instant::now() + FIRST_WARNING;
            while let Err(error) = knock(host, port).await {
                if due <= Instant::now() {
                    due = Instant::now() + NEXT_WARNING;
                    tracing::warn!("{}", refusal(host, port, &error));
                }
                tokio::time::sleep(pause.step()).await;
            }
            self.open.send_replace(true);
            tracing::info!(port, "the handler accepts connections");
            opened();
        }
    }

    #[cfg(test)]
    pub(crate) async fn opened(&self) {
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}

async fn knock(host: &str, port: u16) -> io::Result<()> {
    let connected = timeout(PROBE_TIMEOUT, TcpStream::connect((host, port))).await;
    connected.map_err(|_| io::ErrorKind::TimedOut.into()).flatten().map(drop)
}

/// Why nothing is claimed. What keeps us from trying is not the handler's fault.
fn refusal(host: &str, port: u16, error: &io::Error) -> String {
    match (lack_of_files(error), error.kind()) {
        (Some(lack), _) => {
            format!("the handler on {host}:{port} cannot be asked, so nothing is claimed: {lack}")
        }
        (None, io::ErrorKind::ConnectionRefused) => format!(
            "nothing listens on {host}:{port}, so nothing is claimed: the handler must listen there (`rowlock dev` tells it in PORT)"
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
    async fn opens_once_the_port_accepts_and_again_after_it_was_gone() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let gate = Gate::new(false);
        let comes_and_goes = async {
            for _ in 0..2 {
                assert!(!gate.is_open());
                let listener = tokio::net::TcpListener::bind(address).await.unwrap();
                gate.opened().await;
                drop(listener);
                gate.close("gone");
            }
        };
        tokio::select! {
            () = gate.keep("127.0.0.1", address.port(), || ()) => unreachable!("keeps for good"),
            () = comes_and_goes => (),
        }
    }

    /// No more files may be open.
    const EMFILE: i32 = 24;

    #[test]
    fn the_handler_is_blamed_for_what_it_does_and_for_nothing_else() {
        let said = |error: io::Error| refusal("127.0.0.1", 8080, &error);
        assert!(said(io::ErrorKind::ConnectionRefused.into()).contains("nothing listens on 127.0.0.1:8080"));
        assert!(said(io::ErrorKind::TimedOut.into()).contains("does not accept connections"));
        let lack = said(io::Error::from_raw_os_error(EMFILE));
        assert!(lack.contains("ulimit -n") && !lack.contains("must listen"), "{lack}");
    }
}
