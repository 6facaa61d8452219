//! [`Db`]: connecting to a database, and running statements on it.

use std::{future::Future, sync::Arc, time::Duration};

use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use tokio::time::timeout;

use crate::{
    Connect, Error, Result,
    connect::{Connector, SessionMode, catch_panic},
    pool::Pool,
    timeouts::STATEMENT_TIMEOUT,
};

/// The oldest server we support.
const OLDEST_SERVER: i32 = 140_000;
/// The shortest and the longest delay between attempts to connect.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// How often the log repeats that a server still cannot be reached.
const LOG_EVERY: Duration = Duration::from_secs(30);

impl Connect {
    /// Connects once, which shows errors early and detects a connection pooler, and makes a pool.
    pub(crate) async fn open(&self) -> Result<Db> {
        self.open_with(Connector::new(self, SessionMode::DetectDisconnect)?).await
    }

    /// The same with a connector for sessions without a pooler. If the server refuses its options, others are
    /// tried.
    pub(crate) async fn open_with(&self, mut connector: Connector) -> Result<Db> {
        let mut connected = connector.connect().await;
        for mode in [SessionMode::Direct, SessionMode::Pooled] {
            match &connected {
                Err(failed) if failed.rejects_options => connector = connector.with(mode),
                _ => break,
            }
            let previous = std::mem::replace(&mut connected, connector.connect().await);
            // It fails without options too. The first error is clearer.
            if let (Err(_), Err(failed)) = (&connected, &previous)
                && mode == SessionMode::Pooled
                && !failed.rejects_options
            {
                connected = previous;
            }
        }
        let mut session = connected?;
        let mut user = None;
        if connector.mode != SessionMode::Pooled {
            // A simple query is one message; behind a pooler, two messages might reach two servers.
            let detect_pooler = "select pg_catalog.current_setting('rowlock.direct', true) as direct,
                        session_user::pg_catalog.text as login";
            let location = connector.location();
            let answer = timeout(
                STATEMENT_TIMEOUT,
                session.run(async |connection| connection.fetch_one(detect_pooler).await),
            )
            .await;
            let answer =
                answer.map_err(|_| Error::Timeout)?.map_err(|error| session.error_at(&location, error))?;
            if answer.try_get::<Option<&str>, _>("direct")? == Some("on") {
                user = Some(answer.try_get::<String, _>("login")?.into());
            }
        }
        if user.is_none() {
            connector = connector.with(SessionMode::Pooled);
        }
        let pool = Pool::new(connector, self.max_connections);
        if user.is_some() {
            pool.add(session);
        } else {
            // This session has options that later sessions will not have.
            let _ = timeout(STATEMENT_TIMEOUT, session.close()).await;
        }
        Ok(Db { pool, user })
    }
}

/// A database with queues in it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    pub(crate) pool: Pool,
    /// The user of its sessions; `None` behind a connection pooler.
    user: Option<Arc<str>>,
}

impl Db {
    /// Connects once. Fails if the server cannot be reached or is too old.
    pub async fn connect(connect: &Connect) -> Result<Self> {
        let db = Box::pin(connect.open()).await?;
        let version: i32 = db.scalar(query("select current_setting('server_version_num')::int")).await?;
        if version < OLDEST_SERVER {
            return Err(Error::ServerTooOld(format!(
                "{}: PostgreSQL {} is too old: rowlock needs {} or newer",
                db.pool.connector().location(),
                version / 10_000,
                OLDEST_SERVER / 10_000
            )));
        }
        Ok(db)
    }

    /// Whether a connection pooler is in between, so that each transaction may run in another session. Then
    /// no statement is prepared by name, every statement runs in a transaction of its own, and NOTIFY does
    /// not work.
    #[must_use]
    pub fn is_behind_pooler(&self) -> bool {
        self.user.is_none()
    }

    /// The user of its sessions; `None` behind a connection pooler.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Uses these options for new connections and keeps open ones, for example after a password has changed.
    /// Returns `false`, and changes nothing, if they point to another database: a lease is valid only in its
    /// own database.
    pub fn follow(&self, connect: &Connect) -> Result<bool> {
        let (old, new) = (self.pool.connector(), Connector::new(connect, SessionMode::Pooled)?);
        if !old.target.is_same_database(&new.target) {
            return Ok(false);
        }
        self.pool.set_connector(new.with(old.mode));
        Ok(true)
    }

    /// Its location: `HOST:PORT/DATABASE`, or `HOST:PORT,HOST:PORT/DATABASE` with several hosts.
    #[must_use]
    pub fn location(&self) -> String {
        self.pool.connector().location()
    }

    /// Drops idle connections without an orderly close: they may be connected to the wrong server.
    pub fn discard_idle(&self) {
        self.pool.discard_idle();
    }

    /// The same database over a separate connection, for work that must not delay other statements. The
    /// connection is opened when it is needed.
    pub(crate) fn with_one_connection(&self) -> Self {
        Self { pool: Pool::new(self.pool.connector(), 1), user: self.user.clone() }
    }

    /// The row of a statement, within [`STATEMENT_TIMEOUT`].
    pub(crate) async fn one(&self, statement: Statement<'_>) -> Result<PgRow> {
        Ok(self.maybe(statement).await?.ok_or(sqlx::Error::RowNotFound)?)
    }

    /// The row of a statement, if there is one, within [`STATEMENT_TIMEOUT`].
    pub(crate) async fn maybe(&self, statement: Statement<'_>) -> Result<Option<PgRow>> {
        Ok(self.all(statement).await?.pop())
    }

    /// The only value of a statement that returns one, within [`STATEMENT_TIMEOUT`].
    pub(crate) async fn scalar<T>(&self, statement: Statement<'_>) -> Result<T>
    where
        T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
    {
        Ok(self.one(statement).await?.try_get(0)?)
    }

    /// The rows of a statement, within [`STATEMENT_TIMEOUT`]. Dropping the future closes the connection.
    pub(crate) async fn all(&self, statement: Statement<'_>) -> Result<Vec<PgRow>> {
        // Boxed, here and below: the future of sqlx is large, and every caller would contain it.
        bounded(Box::pin(self.rows(statement))).await
    }

    /// The same without a timeout.
    pub(crate) async fn all_without_timeout(&self, statement: Statement<'_>) -> Result<Vec<PgRow>> {
        Box::pin(self.rows(statement)).await
    }

    async fn rows(&self, statement: Statement<'_>) -> Result<Vec<PgRow>> {
        let mut connection = self.pool.acquire().await?;
        let rows = if self.is_behind_pooler() {
            connection.run(async |session| in_transaction(session, statement).await).await
        } else {
            connection.run(async |session| statement.fetch_all(session).await).await
        };
        connection.release(rows)
    }

    /// Runs a DDL statement outside of a transaction. It must contain only names that Rowlock made.
    pub(crate) async fn ddl(&self, statement: String) -> Result<()> {
        bounded(async {
            let mut connection = self.pool.acquire().await?;
            let done = catch_panic(connection.connection().execute(AssertSqlSafe(statement))).await;
            connection.release(done)
        })
        .await?;
        Ok(())
    }

    /// Connects, and tries again after transient errors until `patience` is over (`None`: forever).
    pub async fn connect_with_retry(connect: &Connect, patience: Option<Duration>) -> Result<Self> {
        let started = tokio::time::Instant::now();
        let mut delay = RETRY_FIRST;
        let mut logged: Option<tokio::time::Instant> = None;
        loop {
            match Self::connect(connect).await {
                Err(error)
                    if error.is_transient()
                        && patience.is_none_or(|patience| started.elapsed() < patience) =>
                {
                    if logged.is_none_or(|logged| LOG_EVERY <= logged.elapsed()) {
                        logged = Some(tokio::time::Instant::now());
                        tracing::warn!(%error, "cannot connect to the database yet; trying again");
                    }
                    // With jitter: instances that lost the same server do not come back at once.
                    tokio::time::sleep(delay.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    delay = (delay * 2).min(RETRY_LONGEST);
                }
                result => {
                    if logged.is_some() && result.is_ok() {
                        tracing::info!(after = ?started.elapsed(), "connected to the database");
                    }
                    return result;
                }
            }
        }
    }

    /// Frees the buffers of idle connections: for programs with many databases that query each now and then.
    pub fn rest(&self) {
        self.pool.rest();
    }

    /// Closes idle connections; the next statement opens a new one.
    pub async fn close_idle(&self) {
        self.pool.close_idle().await;
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Begins a transaction with the isolation level and the search path that our functions need, in one message:
/// behind a pooler a session keeps no settings of ours.
pub(crate) const BEGIN: &str =
    "begin isolation level read committed; set local search_path = pg_catalog, pg_temp";

async fn in_transaction(connection: &mut PgConnection, statement: Statement<'_>) -> sqlx::Result<Vec<PgRow>> {
    let mut transaction = connection.begin_with(BEGIN).await?;
    let rows = statement.persistent(false).fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(rows)
}

/// A statement with its arguments.
pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// A call of one of our functions. It is prepared once per connection, except behind a pooler.
pub(crate) fn query(sql: &'static str) -> Statement<'static> {
    sqlx::query(sql)
}

/// A statement that is not kept prepared on its connection.
pub(crate) fn query_unprepared(sql: &'static str) -> Statement<'static> {
    query(sql).persistent(false)
}

/// Limits a statement to [`STATEMENT_TIMEOUT`].
pub(crate) async fn bounded<T>(statement: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(STATEMENT_TIMEOUT, statement).await.map_err(|_| Error::Timeout)?
}

/// Milliseconds for SQL, saturating.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
