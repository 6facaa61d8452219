//! Connections, lent for one statement each.
//!
//! sqlx's own pool asks each connection for a sign of life when it comes back: a round trip more for every statement of an instance, which has one
//! connection for all of them. Here the next statement finds out by itself; whoever sent it sends it again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgDatabaseError, PgSeverity},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::db::STATEMENT_TIMEOUT;

/// After so long a connection is closed: what a backend keeps of the tables it saw only grows.
const LIFETIME: Duration = Duration::from_mins(30);

/// At most so many connections, opened when they are needed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
}

struct Shared {
    options: Mutex<PgConnectOptions>,
    idle: Mutex<Vec<Kept>>,
}

struct Kept {
    connection: PgConnection,
    opened: Instant,
}

/// A connection while a statement runs on it. Dropped before it is given back it is closed: who gave up a statement in its midst would
/// wait for its answer, for as long as TCP goes on hoping where a server has vanished.
pub(crate) struct Lent {
    kept: Kept,
    pool: Pool,
    _room: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(options: PgConnectOptions, most: u32) -> Self {
        let most = usize::try_from(most.max(1)).unwrap_or(Semaphore::MAX_PERMITS);
        let shared = Shared { options: Mutex::new(options), idle: Mutex::default() };
        Self { shared: Arc::new(shared), room: Arc::new(Semaphore::new(most)) }
    }

    /// Keeps one that is open already.
    pub(crate) fn keep(&self, connection: PgConnection) {
        self.idle().push(Kept { connection, opened: Instant::now() });
    }

    /// How the next connection is made.
    pub(crate) fn options(&self) -> PgConnectOptions {
        self.shared.options.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_options(&self, options: PgConnectOptions) {
        *self.shared.options.lock().unwrap_or_else(PoisonError::into_inner) = options;
    }

    /// Waits for one to be free. The caller says for how long.
    pub(crate) async fn lend(&self) -> sqlx::Result<Lent> {
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle().pop();
        let kept = if let Some(kept) = idle {
            kept
        } else {
            let options = self.options();
            let connecting = PgConnection::connect_with(&options);
            let connected = timeout(STATEMENT_TIMEOUT, connecting).await;
            Kept { connection: connected.map_err(|_| sqlx::Error::PoolTimedOut)??, opened: Instant::now() }
        };
        Ok(Lent { kept, pool: self.clone(), _room: room })
    }

    /// Lends no more, and takes leave of the server on every connection that is free.
    pub(crate) async fn close(&self) {
        self.room.close();
        self.rest().await;
    }

    /// Takes leave of the server on every connection that is free, until one is needed again.
    pub(crate) async fn rest(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for kept in idle {
            // Whoever has vanished does not say goodbye.
            let _ = timeout(STATEMENT_TIMEOUT, kept.connection.close()).await;
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.kept.connection
    }

    /// Keeps the connection for others, if what was asked on it says that it still is one.
    pub(crate) fn give_back<T>(self, answer: &sqlx::Result<T>) {
        let Self { kept, pool, _room } = self;
        match answer {
            Err(error) if !survives(error) => pool.idle().clear(),
            _ if LIFETIME <= kept.opened.elapsed() || pool.room.is_closed() => (),
            _ => pool.idle().push(kept),
        }
    }
}

/// Whether the server goes on listening after such an error. If not, the others that are idle have most likely lost theirs, too.
fn survives(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(refusal) if refusal.try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|refusal| !matches!(refusal.severity(), PgSeverity::Fatal | PgSeverity::Panic)))
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("free", &self.room.available_permits()).finish_non_exhaustive()
    }
}
