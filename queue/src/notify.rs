//! NOTIFY is sent when an enqueuing transaction commits. It is only a hint: polling finds every task.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Executor};
use tokio::time::timeout;

use crate::{
    Connect, Db, Error, Heartbeat, HeartbeatReply, QueueId, Result,
    connect::{Connector, Session, SessionMode, catch_panic},
    db::{bounded, query},
    heartbeat,
};

/// The channel on which producers send NOTIFY, with the queue's id as payload.
const LISTEN: &str = "LISTEN \"rowlock\"";

/// How long to wait without a notification before checking that the connection still works.
const SILENCE_LONGEST: Duration = Duration::from_secs(15);

/// A connection that listens for NOTIFY and can also send heartbeats. It needs its own session, which a
/// transaction pooler does not provide.
#[derive(Debug)]
pub struct Listener {
    session: Session,
    location: String,
}

/// Opens a connection that listens. Fails with [`Error::NoNotify`] behind a connection pooler.
pub async fn listen(connect: &Connect) -> Result<Listener> {
    let connector = Connector::new(connect, SessionMode::DetectDisconnect)?.listening();
    let location = connector.location();
    let db = Connect { max_connections: 1, ..connect.clone() }.open_with(connector).await?;
    // Behind a pooler the pool keeps no session.
    let Some(session) = db.pool.take() else { return Err(Error::NoNotify) };
    let mut listener = Listener { session, location };
    listener.send_listen().await?;
    Ok(listener)
}

/// Makes producers send NOTIFY for queues without instances, for a minute from now. It writes only if less
/// than half of the last minute is left. So it writes about once in 40 s if it is called every 20 s.
pub async fn request_notify(db: &Db, queues: &[QueueId]) -> Result<()> {
    let ids: Vec<i32> = queues.iter().map(|queue| queue.0).collect();
    let statement = "update rowlock.queue set notify_until = now() + interval '1 minute'
      where id in (
        select q.id from rowlock.queue q
        where q.id = any ($1) and q.notify_until < now() + interval '30 seconds'
        for no key update skip locked)";
    db.all(query(statement).bind(ids)).await.map(drop)
}

impl Listener {
    /// Sends a heartbeat on this connection, where it waits for no other statement. After an error, open a
    /// new listener.
    pub async fn heartbeat(&mut self, heartbeat: &Heartbeat<'_>) -> Result<HeartbeatReply> {
        let sent = Instant::now();
        let row = bounded(async {
            let answer =
                catch_panic(heartbeat::statement(heartbeat).fetch_one(self.session.connection())).await;
            answer.map_err(|error| self.session.error_at(&self.location, error))
        });
        heartbeat::answer(&row.await?, sent)
    }

    /// Waits for the next notification. The future may be dropped at any time. Fails if the connection was
    /// lost. Then notifications may be missing: call [`listen`] again, and poll.
    pub async fn wait(&mut self) -> Result<QueueId> {
        loop {
            match timeout(SILENCE_LONGEST, self.session.notifications.recv()).await {
                Ok(Some(queue)) => return Ok(queue),
                Ok(None) => {
                    let lost = || {
                        Error::Unreachable(format!("{}: the listening connection was lost", self.location))
                    };
                    return Err(self.session.fault().unwrap_or_else(lost));
                }
                // A server that vanished looks the same as one without notifications.
                Err(_) => self.send_listen().await?,
            }
        }
    }

    async fn send_listen(&mut self) -> Result<()> {
        bounded(async {
            let sent = catch_panic(self.session.connection().execute(AssertSqlSafe(LISTEN))).await;
            sent.map(drop).map_err(|error| self.session.error_at(&self.location, error))
        })
        .await
    }
}
