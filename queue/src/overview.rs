//! What an operator looks at: all queues of a database, whose they are, and how many connections there are; in one statement.

use sqlx::{Row, postgres::PgRow};

use crate::{Db, QueueStats, Result, db::query};

/// A database as an operator sees it.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Every queue, by name.
    pub queues: Vec<Declared>,
    /// What limits the connections; `None` behind a connection pooler, which has more clients than connections.
    pub connections: Option<Connections>,
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

/// The tightest of the limits that hold for this user in this database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connections {
    /// What sets it: `max_connections`, the database's `CONNECTION LIMIT`, or the role's.
    pub limit_of: String,
    /// So many connections at most, those kept for superusers not counted.
    pub limit: u32,
    /// So many of them are held, not counting those of instances in this database.
    pub others: u32,
}

/// What [`Connections::limit_of`] says of a limit that holds for one user alone.
pub const LIMIT_OF_ROLE: &str = "the connection limit of the role";

/// Sessions of other users show little of themselves: what may be a client counts as one. Instances are known by their names.
const OVERVIEW: &str = "
with activity as materialized (
  select a.datname = current_database() as here, a.usename = session_user as mine,
         a.datname = current_database() and starts_with(a.application_name, 'rowlock-worker') as instance
  from pg_stat_activity a
  where a.datname is not null and a.usename is not null and coalesce(a.backend_type, 'client backend') = 'client backend'),
limits (limit_of, most, others) as (
  select 'max_connections', current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0), (select count(*) from activity where not instance)
  union all
  select 'the connection limit of the database', d.datconnlimit, (select count(*) from activity where here and not instance)
    from pg_database d where d.datname = current_database() and d.datconnlimit >= 0
  union all
  select 'the connection limit of the role', r.rolconnlimit, (select count(*) from activity where mine and not instance)
    from pg_roles r where r.rolname = session_user and r.rolconnlimit >= 0 and not r.rolsuper)
select l.*, s.*, q.owner, q.generation
from (select * from limits order by most - others limit 1) l
left join (rowlock.statistics() s join rowlock.queue q on q.id = s.queue) on true";

/// Looks at a database.
pub async fn overview(db: &Db) -> Result<Overview> {
    let rows = db.all(query(OVERVIEW)).await?;
    let connections = match rows.first() {
        Some(first) if !db.behind_pooler => Some(connections(first)?),
        _ => None,
    };
    // A database without queues answers with its limits alone.
    let known = rows.iter().filter(|row| row.try_get::<i32, _>("queue").is_ok());
    let queues = known.map(declared).collect::<Result<_>>()?;
    Ok(Overview { queues, connections })
}

fn connections(row: &PgRow) -> Result<Connections> {
    let others: i64 = row.try_get("others")?;
    Ok(Connections {
        limit_of: row.try_get("limit_of")?,
        limit: u32::try_from(row.try_get::<i32, _>("most")?).unwrap_or_default(),
        others: u32::try_from(others).unwrap_or(u32::MAX),
    })
}

fn declared(row: &PgRow) -> Result<Declared> {
    let stats = QueueStats::read(row)?;
    Ok(Declared { stats, owner: row.try_get("owner")?, generation: row.try_get("generation")? })
}
