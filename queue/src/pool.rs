//! Connections, lent for one statement each.
//!
//! sqlx's own pool asks each connection for a sign of life when it comes back: a round trip more for every statement of an instance, which has one
//! connection for all of them. Here the next statement finds out by itself; whoever sent it sends it again.

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
    db::STATEMENT_TIMEOUT,
    error::READ_ONLY,
};

/// After so long a connection is closed: what a backend keeps of the tables it saw only grows.
const LIFETIME: Duration = Duration::from_mins(30);

/// At most so many connections, opened when they are needed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

struct Shared {
    connector: Mutex<Connector>,
    idle: Mutex<Vec<IdleConnection>>,
}

struct IdleConnection {
    session: Session,
    opened: Instant,
}

/// A connection while a statement runs on it. Dropped before it is given back it is closed: who gave up a statement in its midst would
/// wait for its answer, for as long as TCP goes on hoping where a server has vanished.
pub(crate) struct PooledConnection {
    kept: IdleConnection,
    pool: Pool,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(connector: Connector, max: u32) -> Self {
        let max = usize::try_from(max.max(1)).unwrap_or(Semaphore::MAX_PERMITS);
        let shared = Shared { connector: Mutex::new(connector), idle: Mutex::default() };
        Self { shared: Arc::new(shared), permits: Arc::new(Semaphore::new(max)) }
    }

    /// Keeps one that is open already.
    pub(crate) fn add(&self, session: Session) {
        self.idle().push(IdleConnection { session, opened: Instant::now() });
    }

    /// How the next connection is made.
    pub(crate) fn connector(&self) -> Connector {
        self.shared.connector.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_connector(&self, connector: Connector) {
        *self.shared.connector.lock().unwrap_or_else(PoisonError::into_inner) = connector;
    }

    /// Waits for one to be free. The caller says for how long.
    pub(crate) async fn acquire(&self) -> Result<PooledConnection> {
        let permits = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle().pop();
        let kept = if let Some(kept) = idle {
            kept
        } else {
            IdleConnection { session: self.connector().connect().await?, opened: Instant::now() }
        };
        Ok(PooledConnection { kept, pool: self.clone(), _permit: permits })
    }

    /// One that is free, for who keeps it.
    pub(crate) fn take(&self) -> Option<Session> {
        self.idle().pop().map(|kept| kept.session)
    }

    /// Closes every connection that is free without a word: they may lead to the wrong server by now.
    pub(crate) fn forget(&self) {
        self.idle().clear();
    }

    /// Lends no more, and takes leave of the server on every connection that is free.
    pub(crate) async fn close(&self) {
        self.permits.close();
        self.close_idle().await;
    }

    /// Takes leave of the server on every connection that is free, until one is needed again.
    pub(crate) async fn close_idle(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for kept in idle {
            // Whoever has vanished does not say goodbye.
            let _ = timeout(STATEMENT_TIMEOUT, kept.session.close()).await;
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<IdleConnection>> {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PooledConnection {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        self.kept.session.connection()
    }

    /// One statement.
    pub(crate) async fn ask<T: Answer>(
        &mut self,
        asked: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        self.kept.session.ask(asked).await
    }

    /// Keeps the connection for others, if what was asked on it says that it still is a good one. The answer, with the place in its error.
    pub(crate) fn release<T>(self, answer: sqlx::Result<T>) -> Result<T> {
        let Self { kept, pool, _permit } = self;
        match answer {
            Err(error) if !is_reusable(&error) => {
                pool.forget();
                return Err(kept.session.error_at(&pool.connector().place(), error));
            }
            _ if LIFETIME <= kept.opened.elapsed() || pool.permits.is_closed() => (),
            _ => pool.idle().push(kept),
        }
        answer.map_err(Error::from)
    }
}

/// Whether the connection is a good one after such an error: the server goes on listening, and takes writes. After a failover a name may lead to
/// a standby for a moment, which listens and refuses for as long as somebody asks it. If not, the others that are idle are most likely no
/// better.
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
