//! The bell: a NOTIFY at the commit of an enqueuing transaction. A hint; the poll is the truth.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Executor};
use tokio::time::timeout;

use crate::{
    Beat, BeatIn, Connect, Db, Error, QueueId, Result, beat,
    connect::{Manner, Recipe, Session, guarded},
    db::{bounded, query},
};

/// Listens on the channel that producers ring, with the queue's id as payload.
const LISTEN: &str = "LISTEN \"rowlock\"";

/// After so long without a ring the connection is asked whether it still is one.
const SILENCE_LONGEST: Duration = Duration::from_secs(15);

/// A connection that hears the bell, and has time for a beat. It needs a session of its own: behind a transaction pooler it hears nothing.
#[derive(Debug)]
pub struct Bell {
    session: Session,
    place: String,
}

/// Opens a connection that listens. Fails with [`Error::NoBell`] behind a connection pooler.
pub async fn listen(connect: &Connect) -> Result<Bell> {
    let recipe = Recipe::new(connect, Manner::Noticing)?.listening();
    let place = recipe.place();
    let db = Connect { max_connections: 1, ..connect.clone() }.open_by(recipe).await?;
    // Behind a pooler none was kept.
    let Some(session) = db.pool.take() else { return Err(Error::NoBell) };
    let mut bell = Bell { session, place };
    bell.ask_to_listen().await?;
    Ok(bell)
}

/// Has producers ring for queues that sleep without an instance, for a minute from now. Writes where little of it is left, so about
/// once in 40 s for each if called every 20.
pub async fn keep_bell(db: &Db, queues: &[QueueId]) -> Result<()> {
    let ids: Vec<i32> = queues.iter().map(|queue| queue.0).collect();
    let kept = "update rowlock.queue set bell_until = now() + interval '1 minute'
      where id in (select q.id from rowlock.queue q where q.id = any ($1) and q.bell_until < now() + interval '30 seconds'
        for no key update skip locked)";
    db.all(query(kept).bind(ids)).await.map(drop)
}

impl Bell {
    /// Beats on this connection, which no other statement occupies. After a failure open another one.
    pub async fn beat(&mut self, beat: &BeatIn<'_>) -> Result<Beat> {
        let sent = Instant::now();
        let row = bounded(async {
            let answer = guarded(beat::statement(beat).fetch_one(self.session.connection())).await;
            answer.map_err(|error| Error::at(&self.place, error))
        });
        beat::answer(&row.await?, sent)
    }

    /// Waits for the next ring; may be given up at any time. Fails when the connection was lost: rings may have been missed, so look, then [`listen`] again.
    pub async fn wait(&mut self) -> Result<QueueId> {
        loop {
            match timeout(SILENCE_LONGEST, self.session.rings.recv()).await {
                Ok(Some(queue)) => return Ok(queue),
                Ok(None) => {
                    let lost =
                        || Error::Unreachable(format!("{}: the bell's connection was lost", self.place));
                    return Err(self.session.fault().unwrap_or_else(lost));
                }
                // A server that vanished hangs up as little as one that has nothing to say.
                Err(_) => self.ask_to_listen().await?,
            }
        }
    }

    async fn ask_to_listen(&mut self) -> Result<()> {
        bounded(async {
            let asked = guarded(self.session.connection().execute(AssertSqlSafe(LISTEN))).await;
            asked.map(drop).map_err(|error| Error::at(&self.place, error))
        })
        .await
    }
}
