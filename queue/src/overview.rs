//! Reads all that an operator needs of a database in one statement: all queues with their owners, the use of
//! connections, and who holds back the xmin horizon.

use sqlx::{Row, postgres::PgRow};

use crate::{Db, QueueStats, Result, db::query};

/// A database as an operator sees it.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Every queue, ordered by name.
    pub queues: Vec<Declared>,
    /// When the server was started, as in [`Identity`](crate::Identity).
    pub started_at: i64,
    /// The limits of connections; empty behind a connection pooler, which has more clients than connections.
    pub limits: Vec<ConnectionLimit>,
    /// Who holds back the xmin horizon of the database: of each kind of holder the one with the oldest
    /// transaction.
    pub horizon: Vec<HorizonHolder>,
}

/// Who keeps dead rows from being removed.
#[derive(Debug, Clone, PartialEq)]
pub struct HorizonHolder {
    /// One of [`HORIZON_KINDS`].
    pub kind: String,
    /// The transaction before which nothing is held back.
    pub xid: i64,
    /// For how long its transaction has run, in seconds, if that is known: Postgres hides it of other users'
    /// sessions.
    pub seconds: Option<f64>,
}

/// What can hold back the horizon: a session, a prepared transaction, a replication slot, or a standby with
/// `hot_standby_feedback`.
pub const HORIZON_KINDS: [&str; 4] = ["session", "prepared", "replication_slot", "standby"];

/// A queue and its last declaration.
#[derive(Debug, Clone)]
pub struct Declared {
    /// Its statistics.
    pub stats: QueueStats,
    /// Its owner.
    pub owner: String,
    /// The generation of that declaration.
    pub generation: i64,
    /// Whether enqueue refuses tasks, because a limit of the backlog is reached.
    pub backlog_full: bool,
}

/// A limit of connections that applies to this database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// The setting with the limit: `max_connections`, the database's `CONNECTION LIMIT`, or a role's.
    pub limit_of: String,
    /// The user, if it applies to a single one.
    pub user: Option<String>,
    /// The most connections, without those reserved for superusers.
    pub limit: u32,
    /// Connections in use, without those of instances and operators in this database.
    pub others: u32,
    /// Connections in use by operators.
    pub operators: u32,
    /// Connections in use by instances in this database.
    pub workers: u32,
}

/// The view hides most columns of other users' sessions, so a session of unknown type counts as a client.
/// Instances are recognized by their application name.
const OVERVIEW: &str = "
with activity as materialized (
  select a.pid, a.usename, a.datname, a.xact_start, a.backend_xid, a.backend_xmin,
         coalesce(a.backend_type, 'client backend') as type,
         a.datname = current_database() as here,
         a.datname = current_database() and starts_with(a.application_name, 'rowlock-worker') as instance,
         a.datname = current_database() and starts_with(a.application_name, 'rowlock-operator') as operator
  from pg_stat_activity a),
held as (
  select usename, here, count(*) filter (where not instance and not operator) as others,
         count(*) filter (where operator) as operators, count(*) filter (where instance) as workers
  from activity
  where datname is not null and usename is not null and type = 'client backend'
  group by usename, here),
holders (kind, xid, since) as (
  select case when here then 'session' else 'standby' end,
         case when age(backend_xid) > age(backend_xmin) then backend_xid
              else coalesce(backend_xmin, backend_xid) end,
         case when here then xact_start end
    from activity
    where usename is not null and (here or datname is null)
      and coalesce(backend_xmin, backend_xid) is not null and type <> 'autovacuum worker'
      and pid <> pg_backend_pid() and pid not in (select v.pid from pg_stat_progress_vacuum v)
  union all
  select 'prepared', p.transaction, p.prepared
    from pg_prepared_xacts p where p.database = current_database()
  union all
  select 'replication_slot', s.xmin, null from pg_replication_slots s where s.xmin is not null),
horizon (holder_kind, holder_xid, holder_seconds) as (
  select distinct on (h.kind) h.kind, h.xid::text::bigint,
         extract(epoch from clock_timestamp() - h.since)::double precision
  from holders h order by h.kind, age(h.xid) desc, h.since),
limits (limit_of, of_user, most, others, operators, workers) as (
  select 'max_connections', null::text,
         current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0),
         sum(h.others)::bigint, sum(h.operators)::bigint, sum(h.workers)::bigint
    from held h
  union all
  select 'the connection limit of the database', null, d.datconnlimit,
         sum(h.others)::bigint, sum(h.operators)::bigint, sum(h.workers)::bigint
    from pg_database d left join held h on h.here
    where d.datname = current_database() and d.datconnlimit >= 0 group by d.datconnlimit
  union all
  select 'the connection limit of the role', r.rolname, r.rolconnlimit,
         sum(h.others)::bigint, sum(h.operators)::bigint, sum(h.workers)::bigint
    from pg_roles r left join held h on h.usename = r.rolname
    where r.rolconnlimit >= 0 and not r.rolsuper group by r.rolname, r.rolconnlimit)
select (extract(epoch from pg_postmaster_start_time()) * 1000000::numeric)::bigint as started_at,
       l.*, h.*, s.*, q.owner, q.generation, q.backlog_full or q.far_future_full as backlog_full
from limits l full join horizon h on false
     full join (rowlock.statistics() s join rowlock.queue q on q.id = s.queue) on false";

/// Reads the overview of a database.
pub async fn overview(db: &Db) -> Result<Overview> {
    let rows = db.all(query(OVERVIEW)).await?;
    // Each row is a limit, a holder of the horizon or a queue.
    let is = |row: &&PgRow, column| row.try_get::<&str, _>(column).is_ok();
    let (limits, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| is(row, "limit_of"));
    let (holders, queues): (Vec<_>, Vec<_>) = others.into_iter().partition(|row| is(row, "holder_kind"));
    let started_at = rows.first().map_or(Ok(0), |row| row.try_get("started_at"))?;
    let limits = if db.is_behind_pooler() { Vec::new() } else { limits };
    Ok(Overview {
        started_at,
        queues: queues.into_iter().map(declared).collect::<Result<_>>()?,
        limits: limits.into_iter().map(connections).collect::<Result<_>>()?,
        horizon: holders.into_iter().map(holder).collect::<Result<_>>()?,
    })
}

fn holder(row: &PgRow) -> Result<HorizonHolder> {
    Ok(HorizonHolder {
        kind: row.try_get("holder_kind")?,
        xid: row.try_get("holder_xid")?,
        seconds: row.try_get("holder_seconds")?,
    })
}

fn connections(row: &PgRow) -> Result<ConnectionLimit> {
    let count = |name| Ok::<_, crate::Error>(row.try_get::<Option<i64>, _>(name)?.unwrap_or_default());
    Ok(ConnectionLimit {
        limit_of: row.try_get("limit_of")?,
        user: row.try_get("of_user")?,
        limit: u32::try_from(row.try_get::<i32, _>("most")?).unwrap_or_default(),
        others: u32::try_from(count("others")?).unwrap_or(u32::MAX),
        operators: u32::try_from(count("operators")?).unwrap_or(u32::MAX),
        workers: u32::try_from(count("workers")?).unwrap_or(u32::MAX),
    })
}

fn declared(row: &PgRow) -> Result<Declared> {
    let stats = QueueStats::read(row)?;
    Ok(Declared {
        stats,
        owner: row.try_get("owner")?,
        generation: row.try_get("generation")?,
        backlog_full: row.try_get("backlog_full")?,
    })
}
