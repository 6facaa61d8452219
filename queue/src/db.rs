//! The connection pool, and the values that instances and caretakers share.

use std::{future::Future, str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, Postgres, Row,
    postgres::{PgArguments, PgConnectOptions, PgRow},
    query::Query,
};

use tokio::time::timeout;

use crate::{Error, Result, pool::Pool};

/// How often an instance beats. A beat is one small append; a second keeps allocations within two beats of a change. Its answer says
/// whether something is available, so it is also the poll: a NOTIFY is a hint, the poll is the truth.
pub const BEAT: Duration = Duration::from_secs(1);
/// How long an instance owns what it claimed after its last beat: long enough for a restart of Postgres or a pause of the
/// machine, short enough that a task whose node died starts again soon.
pub const LEASE: Duration = Duration::from_secs(15);
/// No statement of ours takes longer when all is well; longer than a stalled checkpoint, a third of a lease.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// The oldest server we support.
const OLDEST_SERVER: i32 = 140_000;
/// Bounds of the pause between attempts to reach a server.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Where the database is, and how many connections may be used.
#[derive(Clone)]
pub struct Connect {
    /// A Postgres URI, with its password. Never logged.
    pub url: String,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// At most this many connections.
    pub max_connections: u32,
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect").field("application_name", &self.application_name).finish_non_exhaustive()
    }
}

/// Whether sessions are ours alone. Set by a start-up option, which a pooler refuses or forgets and a server keeps.
const OURS_ALONE: &str = "rowlock.direct";

/// How often a server asks whether the client of a running statement is still there. Off by default; on Windows, and with `PostgreSQL` 14 on anything but
/// Linux, it cannot be on, and says so ([`INVALID_VALUE`]).
const NOTICES: &str = "client_connection_check_interval";

/// The SQLSTATE `invalid_parameter_value`.
const INVALID_VALUE: &str = "22023";

impl Connect {
    pub(crate) fn options(&self) -> Result<PgConnectOptions> {
        // The error of a malformed URI may quote it, password and all.
        let options = PgConnectOptions::from_str(&self.url)
            .ok()
            .filter(|_| ["postgres://", "postgresql://"].iter().any(|scheme| self.url.starts_with(scheme)));
        let options = options.ok_or_else(|| {
            Error::Unsupported(
                "the database URL cannot be read; write postgres://user:password@host:5432/database".into(),
            )
        })?;
        // PgBouncer refuses start-up parameters that it does not know.
        Ok(options.application_name(&self.application_name).extra_float_digits(None))
    }

    /// Connects once, to learn what is wrong at once and whether a connection pooler stands between us and the server; then makes a pool.
    pub(crate) async fn open(&self) -> Result<Db> {
        let plain = self.options()?;
        let mut options = self.noticed()?;
        let mut connected = timeout(STATEMENT_TIMEOUT, PgConnection::connect_with(&options)).await;
        if let Ok(Err(sqlx::Error::Database(refusal))) = &connected
            && refusal.code().as_deref() == Some(INVALID_VALUE)
        {
            options = self.direct()?;
            connected = timeout(STATEMENT_TIMEOUT, PgConnection::connect_with(&options)).await;
        }
        let direct = match connected.map_err(|_| Error::Timeout)? {
            Ok(mut connection) => {
                // Without arguments, so in one message: behind a pooler two might meet two servers.
                let asked = "select current_setting('rowlock.direct', true), session_user::text";
                let answer = bounded(connection.fetch_one(asked)).await?;
                if answer.try_get::<Option<&str>, _>(0)? == Some("on") {
                    Some((connection, answer.try_get::<String, _>(1)?.into()))
                } else {
                    bounded(connection.close()).await?;
                    None
                }
            }
            // "Unsupported startup parameter", PgBouncer says.
            Err(sqlx::Error::Database(refusal)) if refusal.code().as_deref() == Some("08P01") => None,
            Err(error) => return Err(error.into()),
        };
        let Some((connection, user)) = direct else {
            return Ok(Db { pool: Pool::new(plain, self.max_connections), user: None });
        };
        let pool = Pool::new(options, self.max_connections);
        pool.keep(connection);
        Ok(Db { pool, user: Some(user) })
    }

    /// For sessions that are ours alone.
    fn direct(&self) -> Result<PgConnectOptions> {
        Ok(self.options()?.options([(OURS_ALONE, "on"), ("default_transaction_isolation", "read committed")]))
    }

    /// The same, where the server notices who hangs up, as we do with a statement that is given up: a backend that waits for a lock would notice only
    /// after it, and another one every five seconds would soon be more than the server lets in.
    fn noticed(&self) -> Result<PgConnectOptions> {
        Ok(self.direct()?.options([(NOTICES, "1s")]))
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
            return Err(Error::Unsupported(format!(
                "PostgreSQL {} is too old: rowlock needs {} or newer",
                version / 10_000,
                OLDEST_SERVER / 10_000
            )));
        }
        Ok(db)
    }

    /// Whether the server may change from one message to the next: nothing is prepared by name, every statement has a transaction around it, and no bell
    /// is heard.
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
        let (old, new) = (self.pool.options(), connect.options()?);
        let place = |options: &PgConnectOptions| {
            (options.get_host().to_owned(), options.get_port(), options.get_database().map(str::to_owned))
        };
        if place(&old) != place(&new) {
            return Ok(false);
        }
        let notices = old.get_options().is_some_and(|options| options.contains(NOTICES));
        self.pool.set_options(match (self.is_behind_pooler(), notices) {
            (true, _) => new,
            (false, true) => connect.noticed()?,
            (false, false) => connect.direct()?,
        });
        Ok(true)
    }

    /// The same database over one connection of its own, made when it is needed, for what others shall not wait for.
    pub(crate) fn apart(&self) -> Self {
        Self { pool: Pool::new(self.pool.options(), 1), user: self.user.clone() }
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
    pub(crate) async fn patiently(&self, statement: Statement<'_>) -> Result<Vec<PgRow>> {
        Ok(Box::pin(self.rows(statement)).await?)
    }

    async fn rows(&self, statement: Statement<'_>) -> sqlx::Result<Vec<PgRow>> {
        let mut lent = self.pool.lend().await?;
        let rows = if self.is_behind_pooler() {
            in_transaction(lent.connection(), statement).await
        } else {
            statement.fetch_all(lent.connection()).await
        };
        lent.give_back(&rows);
        rows
    }

    /// A statement that may not run in a transaction, made by us from names of ours.
    pub(crate) async fn ddl(&self, statement: String) -> Result<()> {
        bounded(async {
            let mut lent = self.pool.lend().await?;
            let done = lent.connection().execute(AssertSqlSafe(statement)).await;
            lent.give_back(&done);
            done
        })
        .await?;
        Ok(())
    }

    /// Connects, again and again while time can heal what is wrong, for as long as `patience` says (`None`: without end).
    pub async fn connect_with_retry(connect: &Connect, patience: Option<Duration>) -> Result<Self> {
        let started = tokio::time::Instant::now();
        let mut pause = RETRY_FIRST;
        loop {
            match Self::connect(connect).await {
                Err(error)
                    if error.is_transient()
                        && patience.is_none_or(|patience| started.elapsed() < patience) =>
                {
                    tracing::warn!(%error, retry_in = ?pause, "cannot connect to the database yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_LONGEST);
                }
                result => return result,
            }
        }
    }

    /// Closes the connections that nothing runs on; the next statement opens one again.
    pub async fn rest(&self) {
        self.pool.rest().await;
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// At the isolation level that the verbs need.
pub(crate) const BEGIN: &str = "begin isolation level read committed";

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
pub(crate) fn once(sql: &'static str) -> Statement<'static> {
    query(sql).persistent(false)
}

/// No longer than [`STATEMENT_TIMEOUT`].
pub(crate) async fn bounded<T>(
    statement: impl Future<Output = std::result::Result<T, sqlx::Error>>,
) -> Result<T> {
    Ok(timeout(STATEMENT_TIMEOUT, statement).await.map_err(|_| Error::Timeout)??)
}

/// Milliseconds, as SQL takes them; saturating.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
