//! The database server of the measurements, with a new database for each.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rowlock_crds::Policy;
use rowlock_local::postgres::{Server, ServerConfig};
use rowlock_queue::{Connect, Db, Declaration, declare};
use sqlx::{AssertSqlSafe, Executor, PgPool};
use tempfile::TempDir;

use crate::args::MainArgs;
use crate::tools::Tools;

pub(crate) const QUEUE: &str = "bench";

/// Usual settings for a server of this size. Checkpoints are rare, so that none falls into a measurement.
const SETTINGS: [(&str, &str); 6] = [
    ("shared_buffers", "1GB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "30min"),
    // 200 instances in one row, with three connections each.
    ("max_connections", "700"),
    ("shared_preload_libraries", "pg_stat_statements"),
    // Only rows that count statements enable it.
    ("pg_stat_statements.track", "none"),
];

/// The database to create other databases from.
const MAINTENANCE: &str = "postgres";

/// More than any row enqueues.
const BACKLOG: u64 = 100_000_000;
const PAYLOAD_BYTES: u64 = 1 << 20;
const KEEP: Duration = Duration::from_hours(24);

pub(crate) struct Testbed {
    pub(crate) tools: Tools,
    pub(crate) repeats: u32,
    pub(crate) admin: PgPool,
    scale: f64,
    url: String,
    server: Option<(Server, TempDir)>,
    databases: AtomicU32,
}

/// One database, dropped by [`Testbed::discard`] or with the server.
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) pool: PgPool,
}

impl Testbed {
    pub(crate) async fn open(args: &MainArgs, tools: Tools) -> Result<Self> {
        ensure!(args.scale > 0.0 && args.repeats > 0, "--scale and --repeats must be above zero");
        let (server, url) = if let Some(url) = &args.database_url {
            (None, url.clone())
        } else {
            let folder = tempfile::tempdir()?;
            let mut config = ServerConfig::new(folder.path());
            config.settings.extend(SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())));
            let server = Server::start(&config).await?;
            let url = server.url(MAINTENANCE);
            (Some((server, folder)), url)
        };
        let admin = PgPool::connect(&url).await.context("cannot connect to the server")?;
        let (scale, repeats) = (args.scale, args.repeats);
        Ok(Self { tools, repeats, admin, scale, url, server, databases: AtomicU32::new(0) })
    }

    /// A number of tasks, times `--scale`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of tasks are small and positive"
    )]
    pub(crate) fn scaled(&self, tasks: u32) -> u32 {
        (f64::from(tasks) * self.scale).ceil() as u32
    }

    /// A window, times `--scale`, but long enough to measure something.
    pub(crate) fn window(&self, window: Duration) -> Duration {
        const LEAST: Duration = Duration::from_secs(1);
        window.mul_f64(self.scale).clamp(LEAST, Duration::MAX)
    }

    /// Creates an empty database.
    pub(crate) async fn database(&self) -> Result<Database> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("rowlock_bench_{}_{number}", std::process::id());
        self.admin.execute(AssertSqlSafe(format!("create database {name}"))).await?;
        let url = with_database(&self.url, &name);
        let pool = PgPool::connect(&url).await?;
        Ok(Database { name, url, pool })
    }

    /// Creates a database with the schema and one queue.
    pub(crate) async fn queue(&self, workers: u32) -> Result<Database> {
        let database = self.database().await?;
        let db = database.connect(1).await?;
        db.migrate().await?;
        declare(&db, &declaration(workers)).await?;
        db.close().await;
        Ok(database)
    }

    /// Drops the database, so that it does not slow down the next measurement.
    pub(crate) async fn discard(&self, database: Database) -> Result<()> {
        database.pool.close().await;
        let name = &database.name;
        self.admin.execute(AssertSqlSafe(format!("drop database {name} with (force)"))).await?;
        self.admin.execute("checkpoint").await?;
        Ok(())
    }

    /// Counts the statements in this database from now on. False if the server cannot.
    pub(crate) async fn count_statements(&self, database: &Database) -> bool {
        let name = &database.name;
        let setting = AssertSqlSafe(format!("alter database {name} set pg_stat_statements.track = 'top'"));
        self.admin.execute("create extension if not exists pg_stat_statements").await.is_ok()
            && self.admin.execute("select count(*) from pg_stat_statements").await.is_ok()
            && self.admin.execute(setting).await.is_ok()
    }

    pub(crate) async fn close(&mut self) -> Result<()> {
        self.admin.close().await;
        if let Some((server, _folder)) = &mut self.server {
            server.stop().await?;
        }
        Ok(())
    }
}

impl Database {
    pub(crate) async fn connect(&self, connections: u32) -> Result<Db> {
        Ok(Db::connect(&self.as_connect(connections)).await?)
    }

    pub(crate) fn as_connect(&self, connections: u32) -> Connect {
        Connect::new(self.url.clone(), "rowlock-bench", connections)
    }

    /// Vacuums and analyzes, as autovacuum would in time. The peers get the same.
    pub(crate) async fn settle_down(&self) -> Result<()> {
        self.pool.execute("vacuum analyze").await?;
        self.pool.execute("checkpoint").await?;
        Ok(())
    }
}

pub(crate) fn declaration(workers: u32) -> Declaration {
    Declaration {
        name: QUEUE.to_owned(),
        owner: "rowlock-bench".to_owned(),
        generation: 1,
        policy: Policy::default(),
        max_attempts: 6,
        total_workers: workers,
        paused: false,
        backlog_limit: BACKLOG,
        payload_limit: PAYLOAD_BYTES,
        keep_completed: KEEP,
        keep_dead: KEEP,
        keep_cancelled: KEEP,
        max_delay: KEEP,
    }
}

/// The URL of another database on the same server.
fn with_database(url: &str, name: &str) -> String {
    let (address, parameters) = url.split_once('?').map_or((url, None), |(a, p)| (a, Some(p)));
    let start = address.find("://").map_or(0, |scheme| scheme + 3);
    let end = address[start..].find('/').map_or(address.len(), |slash| start + slash);
    let parameters = parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
    format!("{}/{name}{parameters}", &address[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced() {
        assert_eq!(
            with_database("postgres://u:p@h:5/d?sslmode=disable", "x"),
            "postgres://u:p@h:5/x?sslmode=disable"
        );
        assert_eq!(with_database("postgres://u@h", "x"), "postgres://u@h/x");
    }
}
