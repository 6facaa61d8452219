//! The separate connection for heartbeats, which also receives NOTIFY.
//!
//! Claims, settlements and maintenance share the other connection. Two slow statements there would delay a
//! heartbeat until a healthy instance is fenced. While this connection is not open, heartbeats use the other
//! one.

use std::time::Duration;

use rowlock_queue::{
    Connect, Db, Error, HEARTBEAT_INTERVAL, Heartbeat, HeartbeatReply, Listener, QueueId, Result,
};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::error::WorkerError;
use crate::metrics::Metrics;

/// Heartbeats work without this connection, so reopening it is not urgent.
const OPEN_BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// An open connection.
enum Open {
    Listening(Listener),
    /// Behind a connection pooler, or with `--poll-only`.
    PollOnly(Db),
}

/// The heartbeat loop's end of the connection.
pub(crate) struct HeartbeatConnection {
    open: Option<Open>,
    opened: mpsc::Receiver<Open>,
    reopen: Arc<Notify>,
}

/// Opens the connection, and again each time it is lost.
pub(crate) struct Connector {
    connect: watch::Receiver<Connect>,
    poll_only: bool,
    opened: mpsc::Sender<Open>,
    reopen: Arc<Notify>,
}

/// An event on the connection.
pub(crate) enum Event {
    /// It is open, and NOTIFY arrives from the next heartbeat on. Look for tasks that were enqueued before
    /// that.
    Opened,
    Notified(QueueId),
    Lost(Error),
}

impl HeartbeatConnection {
    pub(crate) fn new(connect: watch::Receiver<Connect>, poll_only: bool) -> (Self, Connector) {
        let (send, receive) = mpsc::channel(1);
        let reopen = Arc::new(Notify::new());
        let connector = Connector { connect, poll_only, opened: send, reopen: Arc::clone(&reopen) };
        reopen.notify_one();
        (Self { open: None, opened: receive, reopen }, connector)
    }

    /// Whether a NOTIFY would be received.
    pub(crate) fn is_listening(&self) -> bool {
        matches!(self.open, Some(Open::Listening(_)))
    }

    /// Sends a heartbeat on the separate connection, or through `pool` while that is not open.
    pub(crate) async fn send(&mut self, pool: &Db, heartbeat: &Heartbeat<'_>) -> Result<HeartbeatReply> {
        let answer = match &mut self.open {
            Some(Open::Listening(listener)) => listener.heartbeat(heartbeat).await,
            Some(Open::PollOnly(db)) => rowlock_queue::heartbeat(db, heartbeat).await,
            None => return rowlock_queue::heartbeat(pool, heartbeat).await,
        };
        if answer.is_err() {
            self.close();
        }
        answer
    }

    /// Waits for the next event. Dropping the future loses none.
    pub(crate) async fn next_event(&mut self) -> Event {
        match &mut self.open {
            Some(Open::Listening(listener)) => match listener.wait().await {
                Ok(queue) => Event::Notified(queue),
                Err(error) => {
                    self.close();
                    Event::Lost(error)
                }
            },
            Some(Open::PollOnly(_)) => std::future::pending().await,
            None => match self.opened.recv().await {
                Some(open) => {
                    self.open = Some(open);
                    Event::Opened
                }
                // Without a connector, because the instance may use only one connection.
                None => std::future::pending().await,
            },
        }
    }

    fn close(&mut self) {
        self.open = None;
        self.reopen.notify_one();
    }
}

impl Connector {
    /// Opens the connection whenever the heartbeat loop asks for it, until `stop`.
    pub(crate) async fn run(
        mut self,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> std::result::Result<(), WorkerError> {
        let mut backoff = OPEN_BACKOFF;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.reopen.notified() => (),
            }
            while let Err(error) = self.open().await {
                metrics.error(error.metric_label());
                tracing::debug!(%error, "cannot open the heartbeat connection; retrying");
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = sleep(backoff.next_delay()) => (),
                }
            }
            backoff.reset();
        }
    }

    async fn open(&mut self) -> Result<()> {
        let connect = Connect { max_connections: 1, ..self.connect.borrow().clone() };
        let open = match self.listen(&connect).await? {
            Some(listener) => Open::Listening(listener),
            None => Open::PollOnly(Db::connect(&connect).await?),
        };
        // Fails only if the heartbeat loop has ended, and then the instance ends too.
        let _ = self.opened.send(open).await;
        Ok(())
    }

    async fn listen(&mut self, connect: &Connect) -> Result<Option<Listener>> {
        if self.poll_only {
            return Ok(None);
        }
        match rowlock_queue::listen(connect).await {
            Ok(listener) => Ok(Some(listener)),
            Err(error @ Error::NoNotify) => {
                tracing::info!("{error} every {HEARTBEAT_INTERVAL:?}");
                self.poll_only = true;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
