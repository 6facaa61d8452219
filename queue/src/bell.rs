//! The bell: a NOTIFY at the commit of an enqueuing transaction. A hint; the poll is the truth.

use sqlx::postgres::PgListener;

use crate::{Connect, Error, QueueId, Result};

/// The channel that producers ring, with the queue's id as payload.
const CHANNEL: &str = "rowlock";

/// A connection that hears the bell. It needs a session of its own: behind a transaction pooler it hears nothing.
#[derive(Debug)]
pub struct Bell {
    listener: PgListener,
}

/// Opens a connection that listens. Fails with [`Error::NoBell`] behind a connection pooler.
pub async fn listen(connect: &Connect) -> Result<Bell> {
    let db = Connect { max_connections: 1, ..connect.clone() }.open().await?;
    if db.behind_pooler {
        return Err(Error::NoBell);
    }
    let mut listener = PgListener::connect_with(&db.pool).await?;
    // A lost connection is an answer to the caller, who decides when to listen again.
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(Bell { listener })
}

impl Bell {
    /// Waits for the next ring. Fails when the connection was lost: rings may have been missed, so look, then [`listen`] again.
    pub async fn wait(&mut self) -> Result<QueueId> {
        loop {
            let ring = self
                .listener
                .try_recv()
                .await?
                .ok_or_else(|| Error::Unreachable("the bell's connection was lost".into()))?;
            if let Ok(queue) = ring.payload().parse() {
                return Ok(queue);
            }
        }
    }
}
