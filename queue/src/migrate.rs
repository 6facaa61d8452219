//! Brings a database's schema to this release: the tables by numbered migrations, forward only, then the
//! functions of `sql/`. All in one transaction under a transaction-scoped lock, so that it works behind a
//! transaction pooler too, where sqlx's own migrator with its session lock does not.

use sqlx::{Connection, Executor, PgConnection, Row};

use crate::{
    Db, Error, Result,
    connect::catch_panic,
    db::{BEGIN, query, query_unprepared},
    functions,
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
];

/// The version of the schema that this release needs. A release that changes a table or a function adds a
/// migration, which may be empty: so a program knows whether the functions that it calls are there.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a handful of migrations")]
pub const SCHEMA_VERSION: i32 = MIGRATIONS.len() as i32;

/// So long a migration waits for a lock: producers wait behind it, and they shall not for longer.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '3s'";

/// What `server_encoding` says where there is none: `initdb` without a locale makes such databases.
const NO_ENCODING: &str = "SQL_ASCII";

const MIGRATION_TABLE: &str = "create table rowlock.migration (
  version int primary key, name text not null, compatible_from int not null, applied_at timestamptz not null default now(),
  functions text)";

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

/// For an administrator whose database publishes all its tables.
const PUBLICATION_NOTE: &str = "a publication FOR ALL TABLES also publishes Rowlock's tables, and a subscriber stops at the first partition that it does not have; \
publish FOR TABLES IN SCHEMA public, or a list of tables, instead (docs/operations.md)";

/// How often a migration starts again because another one made the schema meanwhile. Once is enough: the
/// second try finds it made.
const RACES: usize = 3;

/// Whether the schema is there, whose it is, and what is in it. It is known where its owner is this user or a
/// role that it has, the owner of the database, or a superuser; a superuser has every role, so for it that
/// alone says nothing. Somebody who may do much looks here before it calls anything of the schema: a login
/// that may create schemas could have made it.
const INSPECT_SCHEMA: &str = "
select pg_get_userbyid(n.nspowner)::text, to_regclass('rowlock.migration') is not null,
       coalesce(n.nspowner = me.oid or n.nspowner = d.datdba or owner.rolsuper
         or (not me.rolsuper and pg_has_role(me.oid, n.nspowner, 'usage')), true) as known,
       coalesce(pg_has_role(me.oid, n.nspowner, 'usage'), true) as has_role,
       me.rolsuper or pg_has_role(me.oid, d.datdba, 'usage') as powerful,
       (select min(c.relname)::text from pg_class c where c.relnamespace = n.oid)
from pg_database d join pg_roles me on me.rolname = current_user left join pg_namespace n on n.nspname = 'rowlock'
     left join pg_roles owner on owner.oid = n.nspowner
where d.datname = current_database()";

/// The schema as [`INSPECT_SCHEMA`] finds it.
struct Schema {
    /// `None`: it is not there.
    owner: Option<String>,
    migrated: bool,
    /// Its functions may be called.
    trusted: bool,
    /// It may be changed, and is to be.
    ours: bool,
    /// The name of a table or view in it.
    holds: Option<String>,
}

impl Db {
    /// Whether the schema is one that this release works with: its own, or a later one that says so.
    pub async fn check_schema(&self) -> Result<()> {
        let schema = self.schema().await?;
        if !schema.trusted {
            return Err(schema.of_another());
        }
        match self.found(&schema).await? {
            None => Err(Error::SchemaMissing),
            Some(Found { version: found, .. }) if found < SCHEMA_VERSION => {
                Err(Error::SchemaOlder { found, known: SCHEMA_VERSION })
            }
            Some(found) => found.refuse_newer(),
        }
    }

    async fn schema(&self) -> Result<Schema> {
        let row = self.one(query(INSPECT_SCHEMA)).await?;
        let (known, has_role, powerful): (bool, bool, bool) =
            (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        Ok(Schema {
            owner: row.try_get(0)?,
            migrated: row.try_get(1)?,
            trusted: known || !powerful,
            ours: known && has_role,
            holds: row.try_get(5)?,
        })
    }

    async fn found(&self, schema: &Schema) -> Result<Option<Found>> {
        if !schema.migrated {
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
        Err(Error::UnsupportedEncoding(format!(
            "this database has the encoding {NO_ENCODING}, in which nobody checks that text can be read; \
             use one that was made by `create database NAME template template0 encoding 'UTF8'`"
        )))
    }

    /// Brings the schema to this release's version; one of a later release is left as it is. Safe to run at any time, by many at once, and
    /// under load. Refused where the schema belongs to somebody else, or holds what is not ours.
    pub async fn migrate(&self) -> Result<MigrateReport> {
        let mut races = RACES;
        loop {
            match self.migrate_once().await {
                Err(error) if 0 < races && error.made_meanwhile() => races -= 1,
                Err(error) => return Err(error),
                // A later release was first: the next look says whether this one works with it.
                Ok(None) => (),
                Ok(Some(report)) => return Ok(report),
            }
        }
    }

    /// `None`: a later release has migrated since its version was looked up.
    async fn migrate_once(&self) -> Result<Option<MigrateReport>> {
        let schema = self.schema().await?;
        if !schema.ours {
            return Err(schema.of_another());
        }
        if let (false, Some(object)) = (schema.migrated, &schema.holds) {
            return Err(Error::SchemaTaken { object: object.clone() });
        }
        let found = self.found(&schema).await?;
        let from = found.map_or(0, |found| found.version);
        if let Some(found) = found.filter(|found| found.version > SCHEMA_VERSION) {
            found.refuse_newer()?;
            return Ok(Some(MigrateReport { from, to: from, notes: Vec::new() }));
        }
        self.refuse_no_encoding().await?;
        let mut lent = self.pool.acquire().await?;
        let published = catch_panic(apply(lent.connection(), &schema)).await;
        let Some(published) = lent.release(published)? else { return Ok(None) };
        let notes = published.then(|| PUBLICATION_NOTE.to_owned()).into_iter().collect();
        Ok(Some(MigrateReport { from, to: SCHEMA_VERSION, notes }))
    }
}

/// Runs the migrations that are missing, in one transaction. Answers with whether all tables are published;
/// `None`, and does nothing, where they are a later release's: its functions are newer.
async fn apply(connection: &mut PgConnection, schema: &Schema) -> sqlx::Result<Option<bool>> {
    let mut tx = connection.begin_with(BEGIN).await?;
    // One migrator at a time, for the whole database, by locks that need a right: a schema's name is
    // unique, and so it waits for the other one's commit; the table is ours.
    match &schema.owner {
        None => _ = tx.execute("create schema rowlock").await?,
        // All in it is the owner's, whoever migrates: functions run as their owner, and only that one may
        // replace them.
        Some(owner) => {
            let become_owner = query_unprepared("select pg_catalog.set_config('role', $1, true)");
            become_owner.bind(owner).execute(&mut *tx).await?;
        }
    }
    if schema.migrated {
        tx.execute("lock table rowlock.migration in share row exclusive mode").await?;
    } else {
        tx.execute(MIGRATION_TABLE).await?;
    }
    tx.execute(LOCK_TIMEOUT).await?;
    let found: Option<i32> = query_unprepared("select max(version) from rowlock.migration")
        .fetch_one(&mut *tx)
        .await?
        .try_get(0)?;
    if found.is_some_and(|found| found > SCHEMA_VERSION) {
        tx.rollback().await?;
        return Ok(None);
    }
    apply_tables(&mut tx, found.unwrap_or(0)).await?;
    // Who grants and revokes writes to the functions, too, and Postgres has no two do so at once.
    tx.execute("lock table rowlock.access in share row exclusive mode").await?;
    apply_functions(&mut tx).await?;
    // Functions that are new have no grants yet.
    tx.execute("select rowlock.renew_grants()").await?;
    let asked = "select exists (select 1 from pg_publication p where p.puballtables)";
    let published = query_unprepared(asked).fetch_one(&mut *tx).await?.try_get(0)?;
    tx.commit().await?;
    Ok(Some(published))
}

/// Applies what is newer than the version `found`.
async fn apply_tables(tx: &mut PgConnection, found: i32) -> sqlx::Result<()> {
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found) {
        tx.execute(migration.sql).await?;
        query_unprepared(
            "insert into rowlock.migration (version, name, compatible_from) values ($1, $2, $3)",
        )
        .bind(migration.version)
        .bind(migration.name)
        .bind(migration.compatible_from)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Applies this build's functions unless the database has them, and records which they are.
async fn apply_functions(tx: &mut PgConnection) -> sqlx::Result<()> {
    let digest = functions::digest();
    let record = "update rowlock.migration m set functions = $2 \
                  where m.version = $1 and m.functions is distinct from $2";
    let recorded = query_unprepared(record).bind(SCHEMA_VERSION).bind(digest).execute(&mut *tx).await?;
    if recorded.rows_affected() == 0 {
        return Ok(());
    }
    functions::apply(&mut *tx).await?;
    // Tables that are new have no partitions.
    tx.execute("select rowlock.extend_partitions()").await?;
    Ok(())
}

impl Schema {
    fn of_another(self) -> Error {
        Error::SchemaOfAnother { owner: self.owner.unwrap_or_default() }
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
