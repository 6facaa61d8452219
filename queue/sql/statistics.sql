-- The numbers of all queues. `statistics` is called by the operator every two seconds, by
-- `rowlock status`, and for metrics (queue/src/statistics.rs, overview.rs).

-- How many tasks run in each queue, by the leases. If that table is large (dead rows that an old
-- transaction keeps), by what the newest heartbeats say is held; an instance whose heartbeats have
-- stopped is then still counted by its leases.
create or replace function rowlock.running()
returns table (queue int, n bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
begin
  if rowlock.sample_percent('rowlock.lease') = 100 then
    return query
      select
        l.queue,
        sum((select sum(range) from unnest(l.ns) range) - cardinality(l.settled))::bigint
      from rowlock.lease l
      group by l.queue;
    return;
  end if;
  return query
    select
      i.queue,
      sum(
        coalesce(
          newest.held,
          (
            select sum((select sum(range) from unnest(l.ns) range) - cardinality(l.settled))
            from rowlock.lease l
            where l.instance = i.id
          )
        )
      )::bigint
    from rowlock.instance i
    left join lateral (
      select h.held
      from rowlock.heartbeat h
      where h.instance = i.id and h.at > now() - interval '1 minute'
      order by h.n desc
      limit 1
    ) newest on true
    where i.ended_at is null
    group by i.queue;
end $$;

-- Since when the oldest available task of each priority, 0 to 3, has been available, in seconds
-- since 2024: by the first range of each shard.
create or replace function rowlock.oldest_by_priority(queue int)
returns int[]
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
  select array_agg(oldest.since order by p)
  from coalesce(
    rowlock.published_watermarks(oldest_by_priority.queue),
    array_fill(0::bigint, array[16])
  ) watermarks
  cross join generate_series(0, 3) p
  left join lateral (
    select min(first.since) since
    from
      generate_series(0, 3) s,
      lateral (
        select r.since
        from rowlock.ready r
        where r.queue = oldest_by_priority.queue
          and r.shard = s::smallint
          and r.lane = 0
          and r.priority = p::smallint
          and r.k >= watermarks[p * 4 + s + 1]
        order by r.k
        limit 1
      ) first
  ) oldest on true
$$;

-- All queues of the database in one statement. Large numbers of available, delayed or dead tasks
-- are estimated: see rowlock.backlog().
create or replace function rowlock.statistics()
returns table (
  queue int,
  name text,
  paused boolean,
  total_workers int,
  available bigint,
  scheduled bigint,
  retryable bigint,
  due_soon bigint,
  running bigint,
  dead bigint,
  oldest_seconds double precision,
  completed bigint,
  arrivals bigint,
  instances bigint,
  allocated bigint,
  busy bigint,
  service_ms double precision,
  oldest_by_priority double precision[]
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
  select
    q.id,
    q.name,
    q.paused,
    q.total_workers,
    coalesce(backlog.available, 0),
    coalesce(backlog.scheduled, 0),
    coalesce(backlog.retryable, 0),
    coalesce(soon.n, 0),
    coalesce(running.n, 0),
    coalesce(dead.n, 0),
    case
      when backlog.oldest is not null then
        greatest(date_part('epoch', clock_timestamp()) - 1704067200 - backlog.oldest, 0)
    end,
    coalesce(completed.n, 0),
    coalesce(arrived.n, 0),
    coalesce(live.n, 0),
    coalesce(live.allocated, 0),
    coalesce(live.held, 0),
    live.service_ms,
    case
      when backlog.available > 0 then (
        select array_agg(
          case
            when oldest.since is not null then
              greatest(date_part('epoch', clock_timestamp()) - 1704067200 - oldest.since, 0)
          end
          order by oldest.number
        )
        from unnest(rowlock.oldest_by_priority(q.id)) with ordinality oldest(since, number)
      )
    end
  from rowlock.queue q
  left join rowlock.backlog() backlog on backlog.queue = q.id
  -- Due within five seconds, among the first 20,000.
  left join (
    select first.queue, count(*) n
    from (
      select d.queue
      from rowlock.delayed d
      where d.due < now() + interval '5 seconds'
      order by d.due
      limit 20000
    ) first
    group by first.queue
  ) soon on soon.queue = q.id
  left join rowlock.running() running on running.queue = q.id
  left join (
    select
      d.queue,
      (count(*) * 100 / rowlock.sample_percent('rowlock.dead'))::bigint n
    from rowlock.dead d
      tablesample system (rowlock.sample_percent('rowlock.dead')) repeatable (0)
    group by d.queue
  ) dead on dead.queue = q.id
  left join lateral (
    select sum((select sum(range) from unnest(r.ns) range))::bigint n
    from rowlock.receipt r
    where r.queue = q.id
      and r.state = 1
      and r.at > now() - interval '60 seconds'
      and r.at < now() + interval '60 seconds'
  ) completed on true
  -- Enqueued in the last ten seconds, among the last 100,000.
  left join (
    select newest.queue, count(*) n
    from (
      select t.queue
      from rowlock.task t
      where t.id >= rowlock.id_at(now() - interval '10 seconds')
      order by t.id desc
      limit 100000
    ) newest
    group by newest.queue
  ) arrived on arrived.queue = q.id
  left join (
    select
      i.queue,
      count(*) n,
      sum(newest.allocated) allocated,
      sum(newest.held) held,
      avg(newest.service_ms) service_ms
    from
      rowlock.instance i,
      lateral (
        select h.allocated, h.held, h.service_ms
        from rowlock.heartbeat h
        where h.instance = i.id and h.at > now() - interval '1 minute'
        order by h.n desc
        limit 1
      ) newest
    where i.ended_at is null
    group by i.queue
  ) live on live.queue = q.id
  where not q.restricted or rowlock.has_permission('reader', q.id)
  order by q.name
$$;
