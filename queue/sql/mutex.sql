-- Row locks that keep sessions apart. `try_mutex` is called by every verb that only one session may
-- run at a time; `mutex_holders` by producers that need a partition, and by programs that log which
-- session holds a lock. The numbers of the operations are listed in migrations/0001_tables.sql.

-- Takes the lock until the end of the transaction. Answers false at once if another session has it.
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

-- Which transactions hold the locks of the table `mutex`, or the turn at maintenance (operation 7),
-- and whose they are: a session's, or a prepared one. What the caller may not see is null.
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
  select
    mutex.operation,
    mutex.queue,
    mutex.xmax::text,
    lock.pid,
    coalesce(session.usename, prepared.owner)::text,
    session.application_name,
    coalesce(session.xact_start, prepared.prepared),
    prepared.gid
  from (
    select m.operation, m.queue, m.xmax from rowlock.mutex m
    union all
    select 7::smallint, 0, m.xmax from rowlock.maintenance m
  ) mutex
  join pg_locks lock
    on lock.locktype = 'transactionid'
    and lock.mode = 'ExclusiveLock'
    and lock.granted
    and lock.transactionid::text = mutex.xmax::text
  left join pg_stat_activity session on session.pid = lock.pid
  left join pg_prepared_xacts prepared
    on lock.pid is null
    and prepared.transaction::text = mutex.xmax::text
  where lock.pid is distinct from pg_backend_pid()
$$;
