//! The bell: a NOTIFY at the commit of an enqueuing transaction. A hint; the poll is the truth.

use std::time::{Duration, Instant};

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::timeout;

use crate::{
    Beat, BeatIn, Connect, Db, Error, QueueId, Result, beat,
    db::{STATEMENT_TIMEOUT, bounded, query},
};

/// The channel that producers ring, with the queue's id as payload.
const CHANNEL: &str = "rowlock";

/// After so long without a ring the connection is asked whether it still is one.
const SILENCE_LONGEST: Duration = Duration::from_secs(15);

/// For the server, a little later than for us: a listener that is dropped says goodbye first, which waits for the statement that was given up.
const GIVEN_UP: (&str, &str) = ("statement_timeout", "6s");

/// A connection that hears the bell, and has time for a beat. It needs a session of its own: behind a transaction pooler it hears nothing.
#[derive(Debug)]
pub struct Bell {
    listener: PgListener,
}

/// Opens a connection that listens. Fails with [`Error::NoBell`] behind a connection pooler.
pub async fn listen(connect: &Connect) -> Result<Bell> {
    let db = Connect { max_connections: 1, ..connect.clone() }.open().await?;
    if db.is_behind_pooler() {
        return Err(Error::NoBell);
    }
    let options = db.pool.options().options([GIVEN_UP]);
    db.close().await;
    let pool =
        PgPoolOptions::new().max_connections(1).acquire_timeout(STATEMENT_TIMEOUT).connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await?;
    // A lost connection is an answer to the caller, who decides when to listen again.
    listener.eager_reconnect(false);
    bounded(listener.listen(CHANNEL)).await?;
    Ok(Bell { listener })
}

/// Has producers ring for queues that sleep without an instance, for a minute from now. Writes where little of it is left, so about
/// once in 40 s for each if called every 20.
pub async fn keep_bell(db: &Db, queues: &[QueueId]) -> Result<()> {
    let ids: Vec<i32> = queues.iter().map(|queue| queue.0).collect();
    let kept = "update rowlock.queue set bell_until = now() + interval '1 minute'
      where id = any ($1) and bell_until < now() + interval '30 seconds'";
    db.all(query(kept).bind(ids)).await.map(drop)
}

impl Bell {
    /// Beats on this connection, which no other statement occupies. After a failure open another one.
    pub async fn beat(&mut self, beat: &BeatIn<'_>) -> Result<Beat> {
        let sent = Instant::now();
        let row = bounded(beat::statement(beat).fetch_one(&mut self.listener)).await?;
        beat::answer(&row, sent)
    }

    /// Waits for the next ring; may be given up at any time. Fails when the connection was lost: rings may have been missed, so look, then [`listen`] again.
    pub async fn wait(&mut self) -> Result<QueueId> {
        loop {
            let Ok(ring) = timeout(SILENCE_LONGEST, self.listener.try_recv()).await else {
                // A server that vanished hangs up as little as one that has nothing to say.
                bounded(self.listener.listen(CHANNEL)).await?;
                continue;
            };
            let ring = ring?.ok_or_else(|| Error::Unreachable("the bell's connection was lost".into()))?;
            if let Ok(queue) = ring.payload().parse() {
                return Ok(queue);
            }
        }
    }
}
