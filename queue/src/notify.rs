//! NOTIFY, sent at the commit of an enqueuing transaction. A hint; the poll is the truth.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Executor};
use tokio::time::timeout;

use crate::{
    Connect, Db, Error, Heartbeat, HeartbeatReply, QueueId, Result,
    connect::{Connector, Session, SessionMode, catch_panic},
    db::{bounded, query},
    heartbeat,
};

/// Listens on the channel that producers notify, with the queue's id as payload.
const LISTEN: &str = "LISTEN \"rowlock\"";

/// After so long without a notification the connection is asked whether it still is one.
const SILENCE_LONGEST: Duration = Duration::from_secs(15);

/// A connection that listens for NOTIFY, and has time for a heartbeat. It needs a session of its own: behind a transaction pooler it hears nothing.
#[derive(Debug)]
pub struct Listener {
    session: Session,
    place: String,
}

/// Opens a connection that listens. Fails with [`Error::NoNotify`] behind a connection pooler.
pub async fn listen(connect: &Connect) -> Result<Listener> {
    let connector = Connector::new(connect, SessionMode::DetectDisconnect)?.listening();
    let place = connector.place();
    let db = Connect { max_connections: 1, ..connect.clone() }.open_with(connector).await?;
    // Behind a pooler none was kept.
    let Some(session) = db.pool.take() else { return Err(Error::NoNotify) };
    let mut listener = Listener { session, place };
    listener.ask_to_listen().await?;
    Ok(listener)
}

/// Has producers send NOTIFY for queues that sleep without an instance, for a minute from now. Writes where little of it is left, so about
/// once in 40 s for each if called every 20.
pub async fn request_notify(db: &Db, queues: &[QueueId]) -> Result<()> {
    let ids: Vec<i32> = queues.iter().map(|queue| queue.0).collect();
    let kept = "update rowlock.queue set notify_until = now() + interval '1 minute'
      where id in (select q.id from rowlock.queue q where q.id = any ($1) and q.notify_until < now() + interval '30 seconds'
        for no key update skip locked)";
    db.all(query(kept).bind(ids)).await.map(drop)
}

impl Listener {
    /// Sends a heartbeat on this connection, which no other statement occupies. After a failure open another one.
    pub async fn heartbeat(&mut self, heartbeat: &Heartbeat<'_>) -> Result<HeartbeatReply> {
        let sent = Instant::now();
        let row = bounded(async {
            let answer =
                catch_panic(heartbeat::statement(heartbeat).fetch_one(self.session.connection())).await;
            answer.map_err(|error| self.session.error_at(&self.place, error))
        });
        heartbeat::answer(&row.await?, sent)
    }

    /// Waits for the next notification; may be given up at any time. Fails when the connection was lost: notifications may have been missed, so look, then [`listen`] again.
    pub async fn wait(&mut self) -> Result<QueueId> {
        loop {
            match timeout(SILENCE_LONGEST, self.session.notifications.recv()).await {
                Ok(Some(queue)) => return Ok(queue),
                Ok(None) => {
                    let lost = || {
                        Error::Unreachable(format!("{}: the connection that listens was lost", self.place))
                    };
                    return Err(self.session.fault().unwrap_or_else(lost));
                }
                // A server that vanished hangs up as little as one that has nothing to say.
                Err(_) => self.ask_to_listen().await?,
            }
        }
    }

    async fn ask_to_listen(&mut self) -> Result<()> {
        bounded(async {
            let asked = catch_panic(self.session.connection().execute(AssertSqlSafe(LISTEN))).await;
            asked.map(drop).map_err(|error| self.session.error_at(&self.place, error))
        })
        .await
    }
}
