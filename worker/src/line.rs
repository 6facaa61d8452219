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

use crate::ended::WorkerError;
use crate::metrics::Metrics;
use crate::pause::Pause;

/// Heartbeats go on without it, so there is no hurry to open it again.
const OPEN_PAUSE: Pause = Pause::new(Duration::from_millis(200), Duration::from_secs(10));

/// An open connection.
enum Open {
    Listener(Listener),
    /// Behind a connection pooler, or where NOTIFY is switched off.
    Silent(Db),
}

/// What the beater holds of it.
pub(crate) struct Line {
    open: Option<Open>,
    opened: mpsc::Receiver<Open>,
    wanted: Arc<Notify>,
}

/// Opens it, again and again.
pub(crate) struct Opener {
    connect: watch::Receiver<Connect>,
    listens: bool,
    opened: mpsc::Sender<Open>,
    wanted: Arc<Notify>,
}

/// What the line brought.
pub(crate) enum News {
    /// It is open: from the next heartbeat on a NOTIFY is heard. What came before is to be looked for.
    Opened,
    Rang(QueueId),
    Lost(Error),
}

impl Line {
    /// `listens`: whether to listen.
    pub(crate) fn new(connect: watch::Receiver<Connect>, listens: bool) -> (Self, Opener) {
        let (send, receive) = mpsc::channel(1);
        let wanted = Arc::new(Notify::new());
        let opener = Opener { connect, listens, opened: send, wanted: Arc::clone(&wanted) };
        wanted.notify_one();
        (Self { open: None, opened: receive, wanted }, opener)
    }

    /// Whether a NOTIFY would be heard.
    pub(crate) fn hears(&self) -> bool {
        matches!(self.open, Some(Open::Listener(_)))
    }

    /// Sends a heartbeat on its own connection, or as long as there is none on one of `others`.
    pub(crate) async fn heartbeat(
        &mut self,
        others: &Db,
        heartbeat: &Heartbeat<'_>,
    ) -> Result<HeartbeatReply> {
        let answer = match &mut self.open {
            Some(Open::Listener(listener)) => listener.heartbeat(heartbeat).await,
            Some(Open::Silent(db)) => rowlock_queue::heartbeat(db, heartbeat).await,
            None => return rowlock_queue::heartbeat(others, heartbeat).await,
        };
        if answer.is_err() {
            self.lose();
        }
        answer
    }

    /// Waits for news; may be given up at any time.
    pub(crate) async fn news(&mut self) -> News {
        match &mut self.open {
            Some(Open::Listener(listener)) => match listener.wait().await {
                Ok(queue) => News::Rang(queue),
                Err(error) => {
                    self.lose();
                    News::Lost(error)
                }
            },
            Some(Open::Silent(_)) => std::future::pending().await,
            None => match self.opened.recv().await {
                Some(open) => {
                    self.open = Some(open);
                    News::Opened
                }
                // There is no second connection.
                None => std::future::pending().await,
            },
        }
    }

    fn lose(&mut self) {
        self.open = None;
        self.wanted.notify_one();
    }
}

impl Opener {
    /// Opens the line whenever it is wanted, until `stop`.
    pub(crate) async fn work(
        mut self,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> std::result::Result<(), WorkerError> {
        let mut pause = OPEN_PAUSE;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.wanted.notified() => (),
            }
            while let Err(error) = self.open().await {
                metrics.error(error.metric_label());
                tracing::debug!(%error, "no connection for the heartbeat alone; trying again");
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = sleep(pause.step()) => (),
                }
            }
            pause.reset();
        }
    }

    async fn open(&mut self) -> Result<()> {
        let connect = Connect { max_connections: 1, ..self.connect.borrow().clone() };
        let open = match self.listen(&connect).await? {
            Some(listener) => Open::Listener(listener),
            None => Open::Silent(Db::connect(&connect).await?),
        };
        // Fails only when the beater has ended, and then the instance is ending with it.
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
