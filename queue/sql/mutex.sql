-- Row locks for operations that only one session may do at a time. Every such function calls
-- `try_mutex`. Producers that need a partition, and programs that log which session holds a lock,
-- call `mutex_holders`. The numbers of the operations are listed in migrations/0001_tables.sql.

-- Takes the lock until the end of the transaction. Returns false at once if another session has it.
create or replace function rowlock.try_mutex(operation int, queue int)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  perform 1
    from rowlock.mutex m
    where m.operation = try_mutex.operation and m.queue = try_mutex.queue
    for update skip locked;
  if found then
    return true;
  end if;
  if exists (
    select 1
    from rowlock.mutex m
    where m.operation = try_mutex.operation and m.queue = try_mutex.queue
  ) then
    return false;
  end if;
  -- The queue was not created by rowlock.declare_queue. A queue that does not exist gets no row.
  if try_mutex.queue <> 0
    and not exists (select 1 from rowlock.queue q where q.id = try_mutex.queue) then
    return false;
  end if;
  insert into rowlock.mutex (operation, queue)
    values (try_mutex.operation, try_mutex.queue)
    on conflict do nothing;
  return found;
end $$;

-- The transactions that hold locks of the table `mutex`, or the turn at maintenance (operation 7),
-- and their owners: a session, or a prepared transaction. A column is null if the caller may not
-- see it.
--
-- A lock that was taken in a savepoint, or in a block of plpgsql with an exception handler, has the
-- id of that subtransaction. Once the savepoint is released, pg_locks has no entry for it any more.
-- The holder is then the only older transaction that has a lock on the table; if there are several,
-- none is named.
create or replace function rowlock.mutex_holders()
returns table (
  operation smallint,
  queue int,
  xid text,
  pid int,
  usename text,
  application text,
  since timestamptz,
  prepared text
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  with mutex as (
    select m.operation, m.queue, m.xmax, 'rowlock.mutex'::regclass as relation from rowlock.mutex m
    union all
    select 7::smallint, 0, m.xmax, 'rowlock.maintenance'::regclass from rowlock.maintenance m
  ),
  lock as materialized (
    select l.virtualtransaction, l.pid, l.transactionid, l.relation
    from pg_locks l
    where l.granted
      and (
        l.locktype = 'transactionid' and l.mode = 'ExclusiveLock'
        or l.locktype = 'relation'
          and l.mode in ('RowShareLock', 'RowExclusiveLock')
          and l.relation in ('rowlock.mutex'::regclass, 'rowlock.maintenance'::regclass)
          and l.database = (select d.oid from pg_database d where d.datname = current_database())
      )
  ),
  -- In which transaction it was: of the ids that a transaction holds, its own is the oldest.
  own as (
    select distinct on (l.virtualtransaction) l.virtualtransaction, l.transactionid
    from lock l
    where l.transactionid is not null
    order by l.virtualtransaction, age(l.transactionid) desc
  ),
  snapshot as (
    select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next
  ),
  released as (
    select m.operation, m.queue, m.xmax, m.relation, s.next
        -- The difference of two ids of 32 bits, which wrap around.
        + ((m.xmax::text::bigint - s.next + 2147483648) & 4294967295) - 2147483648 as xid
    from mutex m
    cross join snapshot s
    where age(m.xmax) > 0
      and not exists (select 1 from lock l where l.transactionid::text = m.xmax::text)
  ),
  holder as (
    select m.operation, m.queue, m.xmax::text as xid, l.virtualtransaction, l.pid
    from mutex m
    join lock l on l.transactionid::text = m.xmax::text
    union all
    select r.operation, r.queue, r.xmax::text, min(l.virtualtransaction), min(l.pid)
    from released r
    join lock l on l.relation = r.relation
    join own
      on own.virtualtransaction = l.virtualtransaction
      and age(own.transactionid) > age(r.xmax)
    where case when r.xid > 2 then pg_xact_status(r.xid::text::xid8) = 'in progress' end
    group by r.operation, r.queue, r.xmax::text
    having count(distinct l.virtualtransaction) = 1
  )
  select
    holder.operation,
    holder.queue,
    holder.xid,
    holder.pid,
    coalesce(session.usename, prepared.owner)::text,
    session.application_name,
    coalesce(session.xact_start, prepared.prepared),
    prepared.gid
  from holder
  left join own on own.virtualtransaction = holder.virtualtransaction
  left join pg_stat_activity session on session.pid = holder.pid
  left join pg_prepared_xacts prepared
    on holder.pid is null
    and prepared.transaction::text = own.transactionid::text
  where holder.pid is distinct from pg_backend_pid()
$$;
