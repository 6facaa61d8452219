-- How many tasks run in each queue: those of the leases, or where the table is large (rows that died beside an old transaction) what the newest
-- heartbeats say they hold. An instance whose heartbeats have stopped is counted by its leases.
create or replace function rowlock.running() returns table (queue int, n bigint) language plpgsql stable
set search_path = pg_catalog, pg_temp set jit = off as $$
#variable_conflict use_column
begin
  if rowlock.sample_percent('rowlock.lease') = 100 then
    return query select l.queue, sum((select sum(u) from unnest(l.ns) u) - cardinality(l.settled))::bigint from rowlock.lease l group by l.queue;
    return;
  end if;
  return query
    select i.queue, sum(coalesce(b.held, (
        select sum((select sum(u) from unnest(l.ns) u) - cardinality(l.settled)) from rowlock.lease l where l.instance = i.id)))::bigint
    from rowlock.instance i left join lateral (
      select x.held from rowlock.heartbeat x where x.instance = i.id and x.at > now() - interval '1 minute' order by x.n desc limit 1) b on true
    where i.ended_at is null group by i.queue;
end $$;

-- Since when the oldest available task of each priority, 0 to 3, has been so, in seconds since 2024: by the first of each shard.
create or replace function rowlock.oldest_by_priority(queue int) returns int[] language sql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
  select array_agg(f.since order by p) from coalesce(rowlock.published_watermarks($1), array_fill(0::bigint, array[16])) watermarks cross join generate_series(0, 3) p
  left join lateral (
    select min(y.since) since from generate_series(0, 3) s, lateral (
      select r.since from rowlock.ready r where r.queue = $1 and r.shard = s::smallint and r.lane = 0 and r.priority = p::smallint and r.k >= watermarks[p * 4 + s + 1]
      order by r.k limit 1) y) f on true
$$;

-- All queues of the database in one statement. What is ready, delayed or dead is estimated where it is much: see rowlock.backlog().
create or replace function rowlock.statistics() returns table (queue int, name text, paused boolean, total_workers int, available bigint, scheduled bigint, retryable bigint, due_soon bigint,
  running bigint, dead bigint, oldest_seconds double precision, completed bigint, arrivals bigint, instances bigint, allocated bigint, busy bigint, service_ms double precision,
  oldest_by_priority double precision[])
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select q.id, q.name, q.paused, q.total_workers, coalesce(r.available, 0), coalesce(r.scheduled, 0), coalesce(r.retryable, 0), coalesce(d.soon, 0),
         coalesce(l.n, 0), coalesce(x.n, 0), case when r.oldest is not null then greatest(date_part('epoch', clock_timestamp()) - 1704067200 - r.oldest, 0) end, coalesce(c.n, 0), coalesce(a.n, 0),
         coalesce(i.n, 0), coalesce(i.allocated, 0), coalesce(i.held, 0), i.service_ms,
         case when r.available > 0 then (
           select array_agg(case when u.since is not null then greatest(date_part('epoch', clock_timestamp()) - 1704067200 - u.since, 0) end order by u.p) from unnest(rowlock.oldest_by_priority(q.id)) with ordinality u(since, p)) end
  from rowlock.queue q
  left join rowlock.backlog() r on r.queue = q.id
  -- Due within five seconds, of at most 20,000 looked at.
  left join (select d.queue, count(*) soon from (select d.queue from rowlock.delayed d where d.due < now() + interval '5 seconds' order by d.due limit 20000) d group by d.queue) d on d.queue = q.id
  left join rowlock.running() l on l.queue = q.id
  left join (select d.queue, (count(*) * 100 / rowlock.sample_percent('rowlock.dead'))::bigint n
             from rowlock.dead d tablesample system (rowlock.sample_percent('rowlock.dead')) repeatable (0) group by d.queue) x on x.queue = q.id
  left join lateral (select sum((select sum(u) from unnest(r.ns) u))::bigint n from rowlock.receipt r
    where r.queue = q.id and r.state = 1 and r.at > now() - interval '60 seconds' and r.at < now() + interval '60 seconds') c on true
  -- Enqueued in the last ten seconds, of at most 100,000 looked at.
  left join (select t.queue, count(*) n from (select t.queue from rowlock.task t where t.id >= rowlock.id_at(now() - interval '10 seconds') order by t.id desc limit 100000) t group by t.queue) a on a.queue = q.id
  left join (select i.queue, count(*) n, sum(b.allocated) allocated, sum(b.held) held, avg(b.service_ms) service_ms from rowlock.instance i,
                    lateral (select b.allocated, b.held, b.service_ms from rowlock.heartbeat b where b.instance = i.id and b.at > now() - interval '1 minute' order by b.n desc limit 1) b
             where i.ended_at is null group by i.queue) i on i.queue = q.id
  where not q.restricted or rowlock.has_permission('reader', q.id)
  order by q.name
$$;
