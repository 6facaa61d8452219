//! What an operator looks at: all queues of a database, whose they are, and how many connections there are; in one statement, which says the same
//! to every user.

use sqlx::{Row, postgres::PgRow};

use crate::{Db, QueueStats, Result, db::query};

/// A database as an operator sees it.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Every queue, by name.
    pub queues: Vec<Declared>,
    /// What limits the connections; nothing behind a connection pooler, which has more clients than connections.
    pub limits: Vec<ConnectionLimit>,
}

/// A queue and what it was last declared by.
#[derive(Debug, Clone)]
pub struct Declared {
    /// How it does.
    pub stats: QueueStats,
    /// Whose it is.
    pub owner: String,
    /// Of which generation.
    pub generation: i64,
}

/// One of the limits that hold in this database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// What sets it: `max_connections`, the database's `CONNECTION LIMIT`, or a role's.
    pub limit_of: String,
    /// The user that it holds for, where it does for one alone.
    pub user: Option<String>,
    /// So many connections at most, those kept for superusers not counted.
    pub limit: u32,
    /// So many of them are held, not counting those of instances in this database.
    pub others: u32,
}

/// Sessions of other users show little of themselves: what may be a client counts as one. Instances are known by their names.
const OVERVIEW: &str = "
with activity as materialized (
  select a.usename, a.datname = current_database() as here,
         a.datname = current_database() and starts_with(a.application_name, 'rowlock-worker') as instance
  from pg_stat_activity a
  where a.datname is not null and a.usename is not null and coalesce(a.backend_type, 'client backend') = 'client backend'),
limits (limit_of, of_user, most, others) as (
  select 'max_connections', null::text, current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0), (select count(*) from activity where not instance)
  union all
  select 'the connection limit of the database', null, d.datconnlimit, (select count(*) from activity where here and not instance)
    from pg_database d where d.datname = current_database() and d.datconnlimit >= 0
  union all
  select 'the connection limit of the role', r.rolname, r.rolconnlimit,
         (select count(*) from activity a where a.usename = r.rolname and not a.instance)
    from pg_roles r where r.rolconnlimit >= 0 and not r.rolsuper)
select l.*, s.*, q.owner, q.generation
from limits l full join (rowlock.statistics() s join rowlock.queue q on q.id = s.queue) on false";

/// Looks at a database.
pub async fn overview(db: &Db) -> Result<Overview> {
    let rows = db.all(query(OVERVIEW)).await?;
    // Each row is a limit or a queue.
    let (limits, queues): (Vec<_>, Vec<_>) =
        rows.iter().partition(|row| row.try_get::<&str, _>("limit_of").is_ok());
    let limits = if db.is_behind_pooler() { Vec::new() } else { limits };
    Ok(Overview {
        queues: queues.into_iter().map(declared).collect::<Result<_>>()?,
        limits: limits.into_iter().map(connections).collect::<Result<_>>()?,
    })
}

fn connections(row: &PgRow) -> Result<ConnectionLimit> {
    let others: i64 = row.try_get("others")?;
    Ok(ConnectionLimit {
        limit_of: row.try_get("limit_of")?,
        user: row.try_get("of_user")?,
        limit: u32::try_from(row.try_get::<i32, _>("most")?).unwrap_or_default(),
        others: u32::try_from(others).unwrap_or(u32::MAX),
    })
}

fn declared(row: &PgRow) -> Result<Declared> {
    let stats = QueueStats::read(row)?;
    Ok(Declared { stats, owner: row.try_get("owner")?, generation: row.try_get("generation")? })
}
