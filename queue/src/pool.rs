//! The connection pool. Each statement takes a connection and returns it.
//!
//! The pool of sqlx pings each connection that is returned, which is one more round trip for every statement.
//! Here the next statement finds out whether the connection still works, and its caller tries again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    PgConnection,
    postgres::{PgDatabaseError, PgSeverity},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    Error, Result,
    connect::{Answer, Connector, Session},
    error::READ_ONLY,
    timeouts::STATEMENT_TIMEOUT,
};

/// How long a connection is used. A limit is needed because a backend's cache of tables only grows.
const LIFETIME: Duration = Duration::from_mins(30);

/// Up to a fixed number of connections, opened when they are needed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

struct Shared {
    connector: Mutex<Connector>,
    idle: Mutex<Vec<OpenConnection>>,
}

struct OpenConnection {
    session: Session,
    opened: Instant,
}

/// A connection in use. If it is dropped without [`PooledConnection::release`], it is closed, because a
/// statement may still be running on it. If the server has vanished, nothing should wait for an answer until
/// TCP gives up.
pub(crate) struct PooledConnection {
    connection: OpenConnection,
    pool: Pool,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(connector: Connector, max: u32) -> Self {
        let max = usize::try_from(max.max(1)).unwrap_or(Semaphore::MAX_PERMITS);
        let shared = Shared { connector: Mutex::new(connector), idle: Mutex::default() };
        Self { shared: Arc::new(shared), permits: Arc::new(Semaphore::new(max)) }
    }

    /// Adds an open connection.
    pub(crate) fn add(&self, session: Session) {
        self.idle().push(OpenConnection { session, opened: Instant::now() });
    }

    /// The connector for new connections.
    pub(crate) fn connector(&self) -> Connector {
        self.shared.connector.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_connector(&self, connector: Connector) {
        *self.shared.connector.lock().unwrap_or_else(PoisonError::into_inner) = connector;
    }

    /// Waits for a free connection, or opens one. The caller sets the timeout.
    pub(crate) async fn acquire(&self) -> Result<PooledConnection> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle().pop();
        let connection = if let Some(idle) = idle {
            idle
        } else {
            OpenConnection { session: self.connector().connect().await?, opened: Instant::now() }
        };
        Ok(PooledConnection { connection, pool: self.clone(), _permit: permit })
    }

    /// Takes an idle connection out of the pool for good.
    pub(crate) fn take(&self) -> Option<Session> {
        self.idle().pop().map(|idle| idle.session)
    }

    /// Drops all idle connections without an orderly close: they may be connected to the wrong server.
    pub(crate) fn discard_idle(&self) {
        self.idle().clear();
    }

    /// Frees the buffers of idle connections.
    pub(crate) fn rest(&self) {
        self.idle().iter_mut().for_each(|idle| idle.session.rest());
    }

    /// Closes the pool. It provides no more connections, and idle ones are closed in order.
    pub(crate) async fn close(&self) {
        self.permits.close();
        self.close_idle().await;
    }

    /// Closes all idle connections in order; new ones are opened when they are needed.
    pub(crate) async fn close_idle(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for connection in idle {
            // A server that has vanished does not answer.
            let _ = timeout(STATEMENT_TIMEOUT, connection.session.close()).await;
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<OpenConnection>> {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PooledConnection {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        self.connection.session.connection()
    }

    /// Runs one statement.
    pub(crate) async fn run<T: Answer>(
        &mut self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        self.connection.session.run(statement).await
    }

    /// Returns the connection to the pool if the answer shows that it still works. Returns the answer; an
    /// error names the server.
    pub(crate) fn release<T>(self, answer: sqlx::Result<T>) -> Result<T> {
        let Self { connection, pool, _permit } = self;
        match answer {
            Err(error) if !is_reusable(&error) => {
                pool.discard_idle();
                return Err(connection.session.error_at(&pool.connector().location(), error));
            }
            _ if LIFETIME <= connection.opened.elapsed() || pool.permits.is_closed() => (),
            _ => pool.idle().push(connection),
        }
        answer.map_err(Error::from)
    }
}

/// Whether the connection can be used after this error: the server keeps the session, and accepts writes.
/// (After a failover the name may point to a standby for a moment, which keeps the session and refuses every
/// write.) If it cannot be used, the idle connections probably cannot either.
fn is_reusable(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(refusal) = error else { return false };
    let fatal = refusal
        .try_downcast_ref::<PgDatabaseError>()
        .is_none_or(|refusal| matches!(refusal.severity(), PgSeverity::Fatal | PgSeverity::Panic));
    !fatal && refusal.code().as_deref() != Some(READ_ONLY)
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("free", &self.permits.available_permits()).finish_non_exhaustive()
    }
}
