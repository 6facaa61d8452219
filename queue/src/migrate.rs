//! Migrations: numbered, forward only, each in one transaction under a transaction-scoped lock, so that they run behind a
//! transaction pooler too, where sqlx's own migrator with its session lock does not.

use sqlx::{Connection, Executor, Row};

use crate::{
    Db, Error, Result,
    db::{BEGIN, once, query},
};

struct Migration {
    version: i32,
    name: &'static str,
    /// Releases that know this version and no later one work with these tables too: while a release is rolled out, and after it was taken back,
    /// instances of both are there.
    compatible_from: i32,
    sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal from $compatible_from:literal),* $(,)?) => {
        &[$(Migration {
            version: $version,
            name: $name,
            compatible_from: $compatible_from,
            sql: include_str!(concat!("../migrations/", $name, ".sql")),
        }),*]
    };
}

const MIGRATIONS: &[Migration] = migrations![
    1 "0001_tables" from 1,
    2 "0002_partitions" from 2,
    3 "0003_enqueue" from 3,
    4 "0004_instances" from 4,
    5 "0005_settle" from 5,
    6 "0006_caretakers" from 6,
    7 "0007_people" from 7,
    8 "0008_roles" from 8,
];

/// The version of the schema that this release needs.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a handful of migrations")]
pub const SCHEMA_VERSION: i32 = MIGRATIONS.len() as i32;

/// So long a migration waits for a lock: producers wait behind it, and they shall not for longer.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '3s'";

/// What `server_encoding` says where there is none: `initdb` without a locale makes such databases.
const NO_ENCODING: &str = "SQL_ASCII";

/// The tables that were found.
#[derive(Debug, Clone, Copy)]
struct Found {
    version: i32,
    compatible_from: i32,
}

/// What a migration did.
#[derive(Debug, Clone)]
pub struct MigrateReport {
    /// The version before; 0: there was no schema.
    pub from: i32,
    /// The version now.
    pub to: i32,
    /// What an administrator should know or run.
    pub notes: Vec<String>,
}

/// What an administrator runs where the owner of the database may not create roles.
const ROLES_NOTE: &str = "this user may not create roles, so nobody but the owner may use the queues; an administrator can run:
  create role rowlock_producer nologin; create role rowlock_worker nologin; create role rowlock_reader nologin;
  select rowlock.grant_roles();";

impl Db {
    /// Whether the schema is one that this release works with: its own, or a later one that says so.
    pub async fn check_schema(&self) -> Result<()> {
        match self.found().await? {
            None => Err(Error::SchemaMissing),
            Some(Found { version: found, .. }) if found < SCHEMA_VERSION => {
                Err(Error::SchemaOlder { found, known: SCHEMA_VERSION })
            }
            Some(found) => found.refuse_newer(),
        }
    }

    async fn found(&self) -> Result<Option<Found>> {
        let there = self.one(query("select to_regclass('rowlock.migration') is not null")).await?;
        if !there.try_get::<bool, _>(0)? {
            return Ok(None);
        }
        // Tables that lack the column say nothing of it.
        let asked = "select max(m.version), max(coalesce((to_jsonb(m)->>'compatible_from')::int, m.version)) from rowlock.migration m";
        let row = self.one(query(asked)).await?;
        let (version, compatible_from): (Option<i32>, Option<i32>) = (row.try_get(0)?, row.try_get(1)?);
        Ok(version.zip(compatible_from).map(|(version, compatible_from)| Found { version, compatible_from }))
    }

    /// Text of a database without an encoding is whatever its producers send, and what one of them wrote
    /// others may not be able to read.
    async fn refuse_no_encoding(&self) -> Result<()> {
        let encoding = self.one(query("select current_setting('server_encoding')")).await?;
        if encoding.try_get::<String, _>(0)? != NO_ENCODING {
            return Ok(());
        }
        Err(Error::Unsupported(format!(
            "this database has the encoding {NO_ENCODING}, in which nobody checks that text can be read; \
             use one that was made by `create database NAME template template0 encoding 'UTF8'`"
        )))
    }

    /// Brings the schema to this release's version; one of a later release is left as it is. Safe to run at any time, by many at once, and
    /// under load.
    pub async fn migrate(&self) -> Result<MigrateReport> {
        let found = self.found().await?;
        let from = found.map_or(0, |found| found.version);
        if let Some(found) = found.filter(|found| found.version > SCHEMA_VERSION) {
            found.refuse_newer()?;
            return Ok(MigrateReport { from, to: from, notes: Vec::new() });
        }
        self.refuse_no_encoding().await?;
        let mut lent = self.pool.lend().await?;
        let mut tx = lent.connection().begin_with(BEGIN).await?;
        // One migrator at a time, for the whole database.
        once("select pg_advisory_xact_lock(1902601, 9)").execute(&mut *tx).await?;
        tx.execute(LOCK_TIMEOUT).await?;
        if !once("select to_regnamespace('rowlock') is not null")
            .fetch_one(&mut *tx)
            .await?
            .try_get::<bool, _>(0)?
        {
            tx.execute("create schema rowlock").await?;
        }
        tx.execute(
            "create table if not exists rowlock.migration (
               version int primary key, name text not null, compatible_from int not null, applied_at timestamptz not null default now())",
        )
        .await?;
        let found: Option<i32> =
            once("select max(version) from rowlock.migration").fetch_one(&mut *tx).await?.try_get(0)?;
        for migration in MIGRATIONS.iter().filter(|migration| migration.version > found.unwrap_or(0)) {
            tx.execute(migration.sql).await?;
            once("insert into rowlock.migration (version, name, compatible_from) values ($1, $2, $3)")
                .bind(migration.version)
                .bind(migration.name)
                .bind(migration.compatible_from)
                .execute(&mut *tx)
                .await?;
        }
        let granted: bool = once("select rowlock.grant_roles()").fetch_one(&mut *tx).await?.try_get(0)?;
        let committed = tx.commit().await;
        lent.give_back(&committed);
        committed?;
        let notes = if granted { Vec::new() } else { vec![ROLES_NOTE.to_owned()] };
        Ok(MigrateReport { from, to: SCHEMA_VERSION, notes })
    }
}

impl Found {
    fn refuse_newer(self) -> Result<()> {
        if self.compatible_from <= SCHEMA_VERSION {
            return Ok(());
        }
        Err(Error::SchemaNewer { found: self.version, known: SCHEMA_VERSION })
    }
}
