//! The heartbeat's own connection, which also receives NOTIFY.
//!
//! Claims, settlements and maintenance share the other one; two of them that take as long as a statement may would keep a heartbeat
//! waiting until a healthy instance is fenced. Until this connection is there, and after it was lost, heartbeats go with the others.

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

/// Heartbeats go on without it, so there is no hurry to open it again.
const OPEN_BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// An open connection.
enum Open {
    Listening(Listener),
    /// Behind a connection pooler, or where NOTIFY is switched off.
    NotListening(Db),
}

/// What the heartbeat loop holds of it.
pub(crate) struct HeartbeatConnection {
    open: Option<Open>,
    opened: mpsc::Receiver<Open>,
    reopen: Arc<Notify>,
}

/// Opens it, again and again.
pub(crate) struct Connector {
    connect: watch::Receiver<Connect>,
    listens: bool,
    opened: mpsc::Sender<Open>,
    reopen: Arc<Notify>,
}

/// What the connection brought.
pub(crate) enum Event {
    /// It is open: from the next heartbeat on a NOTIFY is heard. What came before is to be looked for.
    Opened,
    Notified(QueueId),
    Lost(Error),
}

impl HeartbeatConnection {
    /// `listens`: whether to listen.
    pub(crate) fn new(connect: watch::Receiver<Connect>, listens: bool) -> (Self, Connector) {
        let (send, receive) = mpsc::channel(1);
        let reopen = Arc::new(Notify::new());
        let connector = Connector { connect, listens, opened: send, reopen: Arc::clone(&reopen) };
        reopen.notify_one();
        (Self { open: None, opened: receive, reopen }, connector)
    }

    /// Whether a NOTIFY would be heard.
    pub(crate) fn is_listening(&self) -> bool {
        matches!(self.open, Some(Open::Listening(_)))
    }

    /// Sends a heartbeat on its own connection, or as long as there is none on one of `pool`.
    pub(crate) async fn send(&mut self, pool: &Db, heartbeat: &Heartbeat<'_>) -> Result<HeartbeatReply> {
        let answer = match &mut self.open {
            Some(Open::Listening(listener)) => listener.heartbeat(heartbeat).await,
            Some(Open::NotListening(db)) => rowlock_queue::heartbeat(db, heartbeat).await,
            None => return rowlock_queue::heartbeat(pool, heartbeat).await,
        };
        if answer.is_err() {
            self.close();
        }
        answer
    }

    /// Waits for news; may be given up at any time.
    pub(crate) async fn next_event(&mut self) -> Event {
        match &mut self.open {
            Some(Open::Listening(listener)) => match listener.wait().await {
                Ok(queue) => Event::Notified(queue),
                Err(error) => {
                    self.close();
                    Event::Lost(error)
                }
            },
            Some(Open::NotListening(_)) => std::future::pending().await,
            None => match self.opened.recv().await {
                Some(open) => {
                    self.open = Some(open);
                    Event::Opened
                }
                // There is no second connection.
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
    /// Opens the connection whenever it is needed, until `stop`.
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
                tracing::debug!(%error, "no separate connection for heartbeats; trying again");
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
            None => Open::NotListening(Db::connect(&connect).await?),
        };
        // Fails only when the heartbeat loop has ended, and then the instance is ending with it.
        let _ = self.opened.send(open).await;
        Ok(())
    }

    async fn listen(&mut self, connect: &Connect) -> Result<Option<Listener>> {
        if !self.listens {
            return Ok(None);
        }
        match rowlock_queue::listen(connect).await {
            Ok(listener) => Ok(Some(listener)),
            Err(error @ Error::NoNotify) => {
                tracing::info!("{error} every {HEARTBEAT_INTERVAL:?}");
                self.listens = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
