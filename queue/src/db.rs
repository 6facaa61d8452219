//! The connection pool, and the values that instances and maintainers share.

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
};

/// How often an instance sends a heartbeat. A heartbeat is one small append; a second keeps allocations within two heartbeats of a change. Its answer says
/// whether something is available, so it is also the poll: a NOTIFY is a hint, the poll is the truth.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long an instance owns what it claimed after its last heartbeat: long enough for a restart of Postgres or a pause of the
/// machine, short enough that a task whose node died starts again soon.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// No statement of ours takes longer when all is well; longer than a stalled checkpoint, a third of a lease.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// The oldest server we support.
const OLDEST_SERVER: i32 = 140_000;
/// Bounds of the pause between attempts to reach a server.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// How often it is said that a server still cannot be reached.
const SAY_EVERY: Duration = Duration::from_secs(30);

impl Connect {
    /// Connects once, to learn what is wrong at once and whether a connection pooler stands between us and the server; then makes a pool.
    pub(crate) async fn open(&self) -> Result<Db> {
        self.open_with(Connector::new(self, SessionMode::DetectDisconnect)?).await
    }

    /// The same, by a connector for sessions that are ours alone, which it tries first.
    pub(crate) async fn open_with(&self, mut connector: Connector) -> Result<Db> {
        let mut connected = connector.connect().await;
        for mode in [SessionMode::Direct, SessionMode::Pooled] {
            match &connected {
                Err(failed) if failed.options => connector = connector.with(mode),
                _ => break,
            }
            let before = std::mem::replace(&mut connected, connector.connect().await);
            // Nor without them: what was said of the options is no clearer.
            if let (Err(_), Err(failed)) = (&connected, &before)
                && mode == SessionMode::Pooled
                && !failed.options
            {
                connected = before;
            }
        }
        let mut session = connected?;
        let mut user = None;
        if connector.mode != SessionMode::Pooled {
            // Without arguments, so in one message: behind a pooler two might meet two servers.
            let asked =
                "select pg_catalog.current_setting('rowlock.direct', true), session_user::pg_catalog.text";
            let place = connector.place();
            let answer =
                timeout(STATEMENT_TIMEOUT, session.ask(async |connection| connection.fetch_one(asked).await))
                    .await;
            let answer =
                answer.map_err(|_| Error::Timeout)?.map_err(|error| session.error_at(&place, error))?;
            if answer.try_get::<Option<&str>, _>(0)? == Some("on") {
                user = Some(answer.try_get::<String, _>(1)?.into());
            }
        }
        if user.is_none() {
            connector = connector.with(SessionMode::Pooled);
        }
        let pool = Pool::new(connector, self.max_connections);
        if user.is_some() {
            pool.add(session);
        } else {
            // Its session was begun with settings that those after it will not have.
            let _ = timeout(STATEMENT_TIMEOUT, session.close()).await;
        }
        Ok(Db { pool, user })
    }
}

/// A database with queues in it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    pub(crate) pool: Pool,
    /// Who we are there; `None` behind a connection pooler.
    user: Option<Arc<str>>,
}

impl Db {
    /// Connects once. Fails if the server cannot be reached or is too old.
    pub async fn connect(connect: &Connect) -> Result<Self> {
        let db = Box::pin(connect.open()).await?;
        let version: i32 =
            db.one(query("select current_setting('server_version_num')::int")).await?.try_get(0)?;
        if version < OLDEST_SERVER {
            return Err(Error::ServerTooOld(format!(
                "{}: PostgreSQL {} is too old: rowlock needs {} or newer",
                db.pool.connector().place(),
                version / 10_000,
                OLDEST_SERVER / 10_000
            )));
        }
        Ok(db)
    }

    /// Whether the server may change from one message to the next: nothing is prepared by name, every statement has a transaction around it, and no NOTIFY
    /// arrives.
    #[must_use]
    pub fn is_behind_pooler(&self) -> bool {
        self.user.is_none()
    }

    /// The user of its sessions; `None` behind a connection pooler.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// New connections are made as this says, those that are open stay: for a password that has changed. Not where it leads to another
    /// database: what is held in one is nobody's in another.
    pub fn follow(&self, connect: &Connect) -> Result<bool> {
        let (old, new) = (self.pool.connector(), Connector::new(connect, SessionMode::Pooled)?);
        if !old.target.is_same_database(&new.target) {
            return Ok(false);
        }
        self.pool.set_connector(new.with(old.mode));
        Ok(true)
    }

    /// Where it is: `HOST:PORT/DATABASE`, with several hosts each of them.
    #[must_use]
    pub fn place(&self) -> String {
        self.pool.connector().place()
    }

    /// Closes the connections that nothing runs on, without a word: for who does not trust any more that they lead to the right server.
    pub fn discard_idle(&self) {
        self.pool.forget();
    }

    /// The same database over one connection of its own, made when it is needed, for what others shall not wait for.
    pub(crate) fn with_one_connection(&self) -> Self {
        Self { pool: Pool::new(self.pool.connector(), 1), user: self.user.clone() }
    }

    /// The row that a statement answers, under [`STATEMENT_TIMEOUT`].
    pub(crate) async fn one(&self, statement: Statement<'_>) -> Result<PgRow> {
        Ok(self.maybe(statement).await?.ok_or(sqlx::Error::RowNotFound)?)
    }

    /// The row that a statement answers, if it does, under [`STATEMENT_TIMEOUT`].
    pub(crate) async fn maybe(&self, statement: Statement<'_>) -> Result<Option<PgRow>> {
        Ok(self.all(statement).await?.pop())
    }

    /// The rows that a statement answers, under [`STATEMENT_TIMEOUT`]. Giving it up closes its connection.
    pub(crate) async fn all(&self, statement: Statement<'_>) -> Result<Vec<PgRow>> {
        // Boxed, here and below: what sqlx keeps would swell every caller.
        bounded(Box::pin(self.rows(statement))).await
    }

    /// The same, for as long as it takes.
    pub(crate) async fn all_without_timeout(&self, statement: Statement<'_>) -> Result<Vec<PgRow>> {
        Box::pin(self.rows(statement)).await
    }

    async fn rows(&self, statement: Statement<'_>) -> Result<Vec<PgRow>> {
        let mut lent = self.pool.acquire().await?;
        let rows = if self.is_behind_pooler() {
            lent.ask(async |connection| in_transaction(connection, statement).await).await
        } else {
            lent.ask(async |connection| statement.fetch_all(connection).await).await
        };
        lent.release(rows)
    }

    /// A statement that may not run in a transaction, made by us from names of ours.
    pub(crate) async fn ddl(&self, statement: String) -> Result<()> {
        bounded(async {
            let mut lent = self.pool.acquire().await?;
            let done = catch_panic(lent.connection().execute(AssertSqlSafe(statement))).await;
            lent.release(done)
        })
        .await?;
        Ok(())
    }

    /// Connects, again and again while time can heal what is wrong, for as long as `patience` says (`None`: without end).
    pub async fn connect_with_retry(connect: &Connect, patience: Option<Duration>) -> Result<Self> {
        let started = tokio::time::Instant::now();
        let mut pause = RETRY_FIRST;
        let mut said: Option<tokio::time::Instant> = None;
        loop {
            match Self::connect(connect).await {
                Err(error)
                    if error.is_transient()
                        && patience.is_none_or(|patience| started.elapsed() < patience) =>
                {
                    if said.is_none_or(|said| SAY_EVERY <= said.elapsed()) {
                        said = Some(tokio::time::Instant::now());
                        tracing::warn!(%error, "cannot connect to the database yet; trying again");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_LONGEST);
                }
                result => {
                    if said.is_some() && result.is_ok() {
                        tracing::info!(after = ?started.elapsed(), "connected to the database");
                    }
                    return result;
                }
            }
        }
    }

    /// Closes the connections that nothing runs on; the next statement opens one again.
    pub async fn close_idle(&self) {
        self.pool.close_idle().await;
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// At the isolation level that the verbs need, and with nothing but Postgres' own in the search path, in one
/// message: behind a pooler the session is not ours.
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

/// A call of one of our functions: prepared once per connection, unless behind a pooler.
pub(crate) fn query(sql: &'static str) -> Statement<'static> {
    sqlx::query(sql)
}

/// A statement that leaves nothing prepared, whoever gets the connection next.
pub(crate) fn query_unprepared(sql: &'static str) -> Statement<'static> {
    query(sql).persistent(false)
}

/// No longer than [`STATEMENT_TIMEOUT`].
pub(crate) async fn bounded<T>(statement: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(STATEMENT_TIMEOUT, statement).await.map_err(|_| Error::Timeout)?
}

/// Milliseconds, as SQL takes them; saturating.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
