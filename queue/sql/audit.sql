-- enqueued = completed + dead + cancelled + open, of the tasks that are still kept. `untraced` above zero is an alarm.
create or replace function rowlock.audit() returns table (queue text, enqueued bigint, completed bigint, dead bigint, cancelled bigint, open bigint, untraced bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  with trace as (
    select d.id, 'open' s from rowlock.delayed d
    union all select g, 'open' from rowlock.ready r, generate_series(r.id, r.id + r.n - 1) g
    union all select g, 'open' from rowlock.lease l, unnest(l.firsts, l.ns) u(f, n), generate_series(u.f, u.f + u.n - 1) g where not exists (select 1 from unnest(l.settled) z where z = g)
    union all select d.id, 'dead' from rowlock.dead d
    union all select g, case r.state when 1 then 'completed' when 2 then 'dead' else 'cancelled' end from rowlock.receipt r, unnest(r.firsts, r.ns) u(f, n), generate_series(u.f, u.f + u.n - 1) g)
  select q.name, count(t.id), count(*) filter (where c.s = 'completed'), count(*) filter (where c.s = 'dead'), count(*) filter (where c.s = 'cancelled'),
         count(*) filter (where c.s = 'open'), count(t.id) filter (where c.s is null)
  from rowlock.queue q left join rowlock.every_task t on t.queue = q.id left join trace c on c.id = t.id
  where not q.restricted or rowlock.has_permission('reader', q.id) group by q.name order by q.name
$$;
