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
    sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal),* $(,)?) => {
        &[$(Migration { version: $version, name: $name, sql: include_str!(concat!("../migrations/", $name, ".sql")) }),*]
    };
}

const MIGRATIONS: &[Migration] = migrations![
    1 "0001_tables",
    2 "0002_partitions",
    3 "0003_enqueue",
    4 "0004_instances",
    5 "0005_settle",
    6 "0006_caretakers",
    7 "0007_people",
    8 "0008_roles",
];

/// The version of the schema that this release needs.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a handful of migrations")]
pub const SCHEMA_VERSION: i32 = MIGRATIONS.len() as i32;

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
    /// Whether the schema is the one this release needs.
    pub async fn check_schema(&self) -> Result<()> {
        match self.schema_version().await? {
            None => Err(Error::SchemaMissing),
            Some(found) if found < SCHEMA_VERSION => Err(Error::SchemaOlder { found, known: SCHEMA_VERSION }),
            Some(found) if found > SCHEMA_VERSION => Err(Error::SchemaNewer { found, known: SCHEMA_VERSION }),
            Some(_) => Ok(()),
        }
    }

    async fn schema_version(&self) -> Result<Option<i32>> {
        let there = self.one(query("select to_regclass('rowlock.migration') is not null")).await?;
        if !there.try_get::<bool, _>(0)? {
            return Ok(None);
        }
        Ok(self.one(query("select max(version) from rowlock.migration")).await?.try_get(0)?)
    }

    /// Brings the schema to this release's version. Safe to run at any time, by many at once, and under load.
    pub async fn migrate(&self) -> Result<MigrateReport> {
        let from = self.schema_version().await?.unwrap_or(0);
        if from > SCHEMA_VERSION {
            return Err(Error::SchemaNewer { found: from, known: SCHEMA_VERSION });
        }
        let mut lent = self.pool.lend().await?;
        let mut tx = lent.connection().begin_with(BEGIN).await?;
        // One migrator at a time, for the whole database.
        once("select pg_advisory_xact_lock(1902601, 9)").execute(&mut *tx).await?;
        if !once("select to_regnamespace('rowlock') is not null")
            .fetch_one(&mut *tx)
            .await?
            .try_get::<bool, _>(0)?
        {
            tx.execute("create schema rowlock").await?;
        }
        tx.execute(
            "create table if not exists rowlock.migration (
               version int primary key, name text not null, applied_at timestamptz not null default now())",
        )
        .await?;
        let found: Option<i32> =
            once("select max(version) from rowlock.migration").fetch_one(&mut *tx).await?.try_get(0)?;
        for migration in MIGRATIONS.iter().filter(|migration| migration.version > found.unwrap_or(0)) {
            tx.execute(migration.sql).await?;
            once("insert into rowlock.migration (version, name) values ($1, $2)")
                .bind(migration.version)
                .bind(migration.name)
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
