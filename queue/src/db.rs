//! The connection pool, and the values that instances and caretakers share.

use std::{future::Future, str::FromStr, time::Duration};

use sqlx::{
    PgPool, Postgres, Row,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions},
    query::Query,
};

use crate::{Error, Result};

/// How often an instance beats. A beat is one small append; a second keeps allocations within two beats of a change.
pub const BEAT: Duration = Duration::from_secs(1);
/// How long an instance owns what it claimed after its last beat: long enough for a restart of Postgres or a pause of the
/// machine, short enough that a task whose node died starts again soon.
pub const LEASE: Duration = Duration::from_secs(15);
/// How often an idle instance looks, whatever the bell says: a NOTIFY is a hint, the poll is the truth.
pub const POLL: Duration = Duration::from_secs(1);
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

impl Connect {
    pub(crate) fn options(&self) -> Result<PgConnectOptions> {
        // The error of a malformed URI may quote it, password and all.
        let options = PgConnectOptions::from_str(&self.url).map_err(|_| {
            Error::Unsupported(
                "the database URL cannot be read; write postgres://user:password@host:5432/database".into(),
            )
        })?;
        // PgBouncer refuses start-up parameters that it does not know.
        Ok(options.application_name(&self.application_name).extra_float_digits(None))
    }
}

/// A database with queues in it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    pub(crate) pool: PgPool,
}

impl Db {
    /// Connects once. Fails if the server cannot be reached or is too old.
    pub async fn connect(connect: &Connect) -> Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(connect.max_connections)
            .acquire_timeout(STATEMENT_TIMEOUT)
            .test_before_acquire(false)
            .connect_with(connect.options()?)
            .await?;
        let version: i32 =
            bounded(query("select current_setting('server_version_num')::int").fetch_one(&pool))
                .await?
                .try_get(0)?;
        if version < OLDEST_SERVER {
            return Err(Error::Unsupported(format!(
                "PostgreSQL {} is too old: rowlock needs {} or newer",
                version / 10_000,
                OLDEST_SERVER / 10_000
            )));
        }
        Ok(Self { pool })
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

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A statement that is never prepared under a name: `PgBouncer` before 1.21 carries none, and an unnamed one is planned with its
/// values, so that partitions are pruned before they are locked.
pub(crate) fn query(sql: &'static str) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(sql).persistent(false)
}

/// Runs a statement under [`STATEMENT_TIMEOUT`]. Dropping it closes its connection.
pub(crate) async fn bounded<T>(
    statement: impl Future<Output = std::result::Result<T, sqlx::Error>>,
) -> Result<T> {
    Ok(tokio::time::timeout(STATEMENT_TIMEOUT, statement).await.map_err(|_| Error::Timeout)??)
}

/// Milliseconds, as SQL takes them; saturating.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
