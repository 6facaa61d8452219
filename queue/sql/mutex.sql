-- Takes the lock for the rest of the transaction, or answers false at once where somebody has it.
create or replace function rowlock.try_mutex(operation int, queue int) returns boolean language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
  perform 1 from rowlock.mutex m where m.operation = $1 and m.queue = $2 for update skip locked;
  if found then return true; end if;
  if exists (select 1 from rowlock.mutex m where m.operation = $1 and m.queue = $2) then return false; end if;
  -- A queue that was not declared by rowlock.declare_queue. One that does not exist leaves no row.
  if $2 <> 0 and not exists (select 1 from rowlock.queue q where q.id = $2) then return false; end if;
  insert into rowlock.mutex (operation, queue) values ($1, $2) on conflict do nothing;
  return found;
end $$;

-- Which transactions hold the locks of the table `mutex`, or the turn at maintenance (operation 7), at this moment,
-- and whose they are: a session's, or a prepared one. What is not shown to the caller is null.
create or replace function rowlock.mutex_holders()
returns table (operation smallint, queue int, xid text, pid int, usename text, application text, since timestamptz, prepared text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select m.operation, m.queue, m.xmax::text, l.pid, coalesce(a.usename, p.owner)::text, a.application_name,
         coalesce(a.xact_start, p.prepared), p.gid
  from (select x.operation, x.queue, x.xmax from rowlock.mutex x union all select 7::smallint, 0, x.xmax from rowlock.maintenance x) m
  join pg_locks l on l.locktype = 'transactionid' and l.mode = 'ExclusiveLock'
      and l.granted and l.transactionid::text = m.xmax::text
  left join pg_stat_activity a on a.pid = l.pid
  left join pg_prepared_xacts p on l.pid is null and p.transaction::text = m.xmax::text
  where l.pid is distinct from pg_backend_pid()
$$;
