-- Accounts for every task. Called by administrators, the demo and tests (queue/src/audit.rs).

-- For each queue, over the tasks that are still kept: enqueued = completed + dead + cancelled +
-- open. If `untraced` is above zero, a task is in no table. That is a bug.
create or replace function rowlock.audit()
returns table (
  queue text,
  enqueued bigint,
  completed bigint,
  dead bigint,
  cancelled bigint,
  open bigint,
  untraced bigint
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
  with trace as (
    select d.id, 'open' state
    from rowlock.delayed d
    union all
    select task, 'open'
    from rowlock.ready r, generate_series(r.id, r.id + r.n - 1) task
    union all
    select task, 'open'
    from
      rowlock.lease l,
      unnest(l.firsts, l.ns) range(first_id, n),
      generate_series(range.first_id, range.first_id + range.n - 1) task
    where not exists (select 1 from unnest(l.settled) done where done = task)
    union all
    select d.id, 'dead'
    from rowlock.dead d
    union all
    select
      task,
      case r.state when 1 then 'completed' when 2 then 'dead' else 'cancelled' end
    from
      rowlock.receipt r,
      unnest(r.firsts, r.ns) range(first_id, n),
      generate_series(range.first_id, range.first_id + range.n - 1) task
  )
  select
    q.name,
    count(t.id),
    count(*) filter (where trace.state = 'completed'),
    count(*) filter (where trace.state = 'dead'),
    count(*) filter (where trace.state = 'cancelled'),
    count(*) filter (where trace.state = 'open'),
    count(t.id) filter (where trace.state is null)
  from rowlock.queue q
  left join rowlock.every_task t on t.queue = q.id
  left join trace on trace.id = t.id
  where not q.restricted or rowlock.has_permission('reader', q.id)
  group by q.name
  order by q.name
$$;
