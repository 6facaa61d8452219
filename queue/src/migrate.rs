//! Updates the schema of a database to this release: first the tables, by numbered migrations that only go
//! forward, then the functions of `sql/`. All of it is one transaction under a lock of that transaction,
//! which also works behind a transaction pooler. (The migrator of sqlx needs a session lock.)

use sqlx::{Connection, Executor, PgConnection, Row};

use crate::{
    Db, Error, Result,
    connect::catch_panic,
    db::{BEGIN, query, query_unprepared},
    sql_files,
};

struct Migration {
    version: i32,
    name: &'static str,
    /// The oldest schema version whose release can use the tables after this migration. Instances of both
    /// releases run during a rollout, and after a rollback.
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
/// migration, which may be empty. So a program can tell whether the functions that it calls exist.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a handful of migrations")]
pub const SCHEMA_VERSION: i32 = MIGRATIONS.len() as i32;

/// How long a migration waits for a lock. Producers wait behind it for the same time.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '3s'";

/// The `server_encoding` that checks nothing. `initdb` without a locale creates such databases.
const NO_ENCODING: &str = "SQL_ASCII";

const MIGRATION_TABLE: &str = "create table rowlock.migration (
  version int primary key, name text not null, compatible_from int not null,
  applied_at timestamptz not null default now(), functions text)";

/// The version of the schema in the database.
#[derive(Debug, Clone, Copy)]
struct Found {
    version: i32,
    compatible_from: i32,
}

/// The result of a migration.
#[derive(Debug, Clone)]
pub struct MigrateReport {
    /// The previous version; 0: there was no schema.
    pub from: i32,
    /// The new version.
    pub to: i32,
    /// Advice for an administrator.
    pub notes: Vec<String>,
}

/// Advice for an administrator whose database publishes all its tables.
const PUBLICATION_NOTE: &str = "a publication FOR ALL TABLES also publishes Rowlock's tables, and a \
subscriber stops at the first partition that it does not have; publish FOR TABLES IN SCHEMA public, or a \
list of tables, instead (docs/operations.md)";

/// How often a migration is retried because another session created the schema at the same time. One retry
/// should be enough, because it finds the schema.
const RACES: usize = 3;

/// Whether the schema exists, its owner, and its contents. The owner is `known` if it is this user or a role
/// that this user has, the owner of the database, or a superuser. (A superuser has every role, so for it a
/// role does not count.) A powerful user checks this before it calls functions of the schema: any login that
/// may create schemas could have made it.
const INSPECT_SCHEMA: &str = "
select pg_get_userbyid(n.nspowner)::text as owner, to_regclass('rowlock.migration') is not null as migrated,
       coalesce(n.nspowner = me.oid or n.nspowner = d.datdba or owner.rolsuper
         or (not me.rolsuper and pg_has_role(me.oid, n.nspowner, 'usage')), true) as known,
       coalesce(pg_has_role(me.oid, n.nspowner, 'usage'), true) as has_role,
       me.rolsuper or pg_has_role(me.oid, d.datdba, 'usage') as powerful,
       (select min(c.relname)::text from pg_class c where c.relnamespace = n.oid) as content
from pg_database d
     join pg_roles me on me.rolname = current_user
     left join pg_namespace n on n.nspname = 'rowlock'
     left join pg_roles owner on owner.oid = n.nspowner
where d.datname = current_database()";

/// The version of the schema, and the oldest version whose release can use it. The column `compatible_from`
/// may be missing.
const SCHEMA_VERSIONS: &str = "
select max(m.version) as version,
       max(coalesce((to_jsonb(m)->>'compatible_from')::int, m.version)) as compatible_from
from rowlock.migration m";

/// The schema as [`INSPECT_SCHEMA`] finds it.
struct Schema {
    /// `None`: the schema does not exist.
    owner: Option<String>,
    /// Rowlock's migrations have run.
    migrated: bool,
    /// Its functions may be called.
    trusted: bool,
    /// This user may change it.
    changeable: bool,
    /// The name of a table or view in it.
    content: Option<String>,
}

impl Db {
    /// Fails unless this release can use the schema. The schema must have this release's version, or a later
    /// compatible one.
    pub async fn check_schema(&self) -> Result<()> {
        let schema = self.schema().await?;
        if !schema.trusted {
            return Err(schema.owner_error());
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
            (row.try_get("known")?, row.try_get("has_role")?, row.try_get("powerful")?);
        Ok(Schema {
            owner: row.try_get("owner")?,
            migrated: row.try_get("migrated")?,
            trusted: known || !powerful,
            changeable: known && has_role,
            content: row.try_get("content")?,
        })
    }

    async fn found(&self, schema: &Schema) -> Result<Option<Found>> {
        if !schema.migrated {
            return Ok(None);
        }
        let row = self.one(query(SCHEMA_VERSIONS)).await?;
        let (version, compatible_from): (Option<i32>, Option<i32>) =
            (row.try_get("version")?, row.try_get("compatible_from")?);
        Ok(version.zip(compatible_from).map(|(version, compatible_from)| Found { version, compatible_from }))
    }

    /// A database without an encoding stores whatever bytes a producer sends, and other clients may not be
    /// able to read them.
    async fn refuse_no_encoding(&self) -> Result<()> {
        let encoding: String = self.scalar(query("select current_setting('server_encoding')")).await?;
        if encoding != NO_ENCODING {
            return Ok(());
        }
        Err(Error::UnsupportedEncoding(format!(
            "this database has the encoding {NO_ENCODING}, which does not check text; use a database \
             created with `create database NAME template template0 encoding 'UTF8'`"
        )))
    }

    /// Updates the schema to this release's version. A later version is not changed. Safe to run at any time,
    /// concurrently, and under load. Refused if the schema belongs to another role, or has tables of another
    /// program.
    pub async fn migrate(&self) -> Result<MigrateReport> {
        let mut races = RACES;
        loop {
            match self.migrate_once().await {
                Err(error) if 0 < races && error.created_concurrently() => races -= 1,
                Err(error) => return Err(error),
                // A later release migrated first. The next check decides whether this release works with it.
                Ok(None) => (),
                Ok(Some(report)) => return Ok(report),
            }
        }
    }

    /// `None`: a later release has migrated since the version was read.
    async fn migrate_once(&self) -> Result<Option<MigrateReport>> {
        let schema = self.schema().await?;
        if !schema.changeable {
            return Err(schema.owner_error());
        }
        if let (false, Some(object)) = (schema.migrated, &schema.content) {
            return Err(Error::SchemaTaken { object: object.clone() });
        }
        let found = self.found(&schema).await?;
        let from = found.map_or(0, |found| found.version);
        if let Some(found) = found.filter(|found| found.version > SCHEMA_VERSION) {
            found.refuse_newer()?;
            return Ok(Some(MigrateReport { from, to: from, notes: Vec::new() }));
        }
        self.refuse_no_encoding().await?;
        let mut connection = self.pool.acquire().await?;
        let published = catch_panic(apply(connection.connection(), &schema)).await;
        let Some(published) = connection.release(published)? else { return Ok(None) };
        let notes = published.then(|| PUBLICATION_NOTE.to_owned()).into_iter().collect();
        Ok(Some(MigrateReport { from, to: SCHEMA_VERSION, notes }))
    }
}

/// Runs the missing migrations in one transaction. Returns whether a publication includes all tables. Returns
/// `None` and changes nothing if the schema is a later release's: its functions are newer.
async fn apply(connection: &mut PgConnection, schema: &Schema) -> sqlx::Result<Option<bool>> {
    let mut tx = connection.begin_with(BEGIN).await?;
    // Only one migrator runs at a time, by locks that only a privileged login can take. Creating a schema
    // waits for another session that creates the same one, and the table is Rowlock's own.
    match &schema.owner {
        None => _ = tx.execute("create schema rowlock").await?,
        // All objects belong to the schema's owner, whichever role migrates: functions run as their owner,
        // and only the owner may replace them.
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
    // Grants and revokes write to the functions too, and Postgres does not allow two sessions to do so at
    // once.
    tx.execute("lock table rowlock.access in share row exclusive mode").await?;
    apply_functions(&mut tx).await?;
    // New functions have no grants yet.
    tx.execute("select rowlock.renew_grants()").await?;
    let publishes_all = "select exists (select 1 from pg_publication p where p.puballtables)";
    let published = query_unprepared(publishes_all).fetch_one(&mut *tx).await?.try_get(0)?;
    tx.commit().await?;
    Ok(Some(published))
}

/// Applies the migrations after the version `found`.
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

/// Applies the functions of this build unless the database has them, and records their digest.
async fn apply_functions(tx: &mut PgConnection) -> sqlx::Result<()> {
    let digest = sql_files::digest();
    let record = "update rowlock.migration m set functions = $2 \
                  where m.version = $1 and m.functions is distinct from $2";
    let recorded = query_unprepared(record).bind(SCHEMA_VERSION).bind(digest).execute(&mut *tx).await?;
    if recorded.rows_affected() == 0 {
        return Ok(());
    }
    sql_files::apply(&mut *tx).await?;
    // New tables have no partitions yet.
    tx.execute("select rowlock.extend_partitions()").await?;
    Ok(())
}

impl Schema {
    fn owner_error(self) -> Error {
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
