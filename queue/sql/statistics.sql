-- The numbers of all queues. `statistics` is called by the operator every two seconds, by
-- `rowlock status`, and for metrics (queue/src/statistics.rs, overview.rs).

-- How many tasks run in each queue, and for how long on average, by the leases. If that table is
-- large (dead rows that an old transaction keeps), by what the newest heartbeats say is held, and
-- the average is unknown; an instance whose heartbeats have stopped is then still counted by its
-- leases.
create or replace function rowlock.running()
returns table (queue int, n bigint, mean_seconds double precision)
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
        sum(unsettled.n)::bigint,
        greatest(
          sum(unsettled.n * date_part('epoch', now() - l.at)) / nullif(sum(unsettled.n), 0),
          0
        )
      from
        rowlock.lease l,
        lateral (
          select sum(range) - cardinality(l.settled) n from unnest(l.ns) range
        ) unsettled
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
      )::bigint,
      null::double precision
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
-- since 2024: by the first range of each shard from the watermarks.
create or replace function rowlock.oldest_by_priority(queue int, watermarks bigint[])
returns int[]
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
  select array_agg(oldest.since order by p)
  from generate_series(0, 3) p
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
          and r.k >= oldest_by_priority.watermarks[p * 4 + s + 1]
        order by r.k
        limit 1
      ) first
  ) oldest on true
$$;

-- How many tasks died within the last 15 minutes, up to `most`.
create or replace function rowlock.newly_dead(queue int, most int)
returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
  select count(*)
  from (
    select d.id
    from rowlock.dead d
    where d.queue = newly_dead.queue and d.at > now() - interval '15 minutes'
    limit newly_dead.most
  ) newly
$$;

-- How many tasks that could start at once came in each of the last eleven seconds, the current one
-- first, which is `second` as in their ids. A task with a delay counts only in `enqueued`, which is
-- null where no task came. Of all queues, only the newest 100,000 tasks are read. If more came, the
-- first `known` entries are known; the others are zero.
create or replace function rowlock.recent_arrivals()
returns table (queue int, second bigint, known int, counts bigint[], enqueued bigint[])
language sql stable
set search_path = pg_catalog, pg_temp
set jit = off
as $$
  with recent as materialized (
    select
      newest.queue,
      newest.second,
      count(newest.k_low)::int n,
      count(*)::int scanned
    from (
      select t.queue, t.k_low, t.id >> 31 as second
      from rowlock.task t
      where t.id >= rowlock.id_at(now() - interval '10 seconds')
        -- The clock may have stepped back: others are of later seconds.
        and t.id < rowlock.id_at(now() + interval '1 second')
      order by t.id desc
      limit 100000
    ) newest
    group by newest.queue, newest.second
  ),
  seconds as materialized (
    select
      this.second,
      case
        when scan.tasks >= 100000 then greatest(this.second - scan.oldest, 0)
        else 11
      end::int known
    from
      (select rowlock.id_at(now()) >> 31 as second) this,
      (select sum(recent.scanned) tasks, min(recent.second) oldest from recent) scan
  ),
  counted as (
    select
      known.queue,
      array[
        coalesce(sum(n) filter (where ago = 0), 0),
        coalesce(sum(n) filter (where ago = 1), 0),
        coalesce(sum(n) filter (where ago = 2), 0),
        coalesce(sum(n) filter (where ago = 3), 0),
        coalesce(sum(n) filter (where ago = 4), 0),
        coalesce(sum(n) filter (where ago = 5), 0),
        coalesce(sum(n) filter (where ago = 6), 0),
        coalesce(sum(n) filter (where ago = 7), 0),
        coalesce(sum(n) filter (where ago = 8), 0),
        coalesce(sum(n) filter (where ago = 9), 0),
        coalesce(sum(n) filter (where ago = 10), 0)
      ] counts,
      array[
        coalesce(sum(scanned) filter (where ago = 0), 0),
        coalesce(sum(scanned) filter (where ago = 1), 0),
        coalesce(sum(scanned) filter (where ago = 2), 0),
        coalesce(sum(scanned) filter (where ago = 3), 0),
        coalesce(sum(scanned) filter (where ago = 4), 0),
        coalesce(sum(scanned) filter (where ago = 5), 0),
        coalesce(sum(scanned) filter (where ago = 6), 0),
        coalesce(sum(scanned) filter (where ago = 7), 0),
        coalesce(sum(scanned) filter (where ago = 8), 0),
        coalesce(sum(scanned) filter (where ago = 9), 0),
        coalesce(sum(scanned) filter (where ago = 10), 0)
      ] enqueued
    from (
      select recent.queue, recent.n, recent.scanned, seconds.second - recent.second ago
      from recent, seconds
      where seconds.second - recent.second < seconds.known
    ) known
    group by known.queue
  )
  select
    q.id,
    seconds.second,
    seconds.known,
    coalesce(counted.counts, array_fill(0::bigint, array[11])),
    counted.enqueued
  from rowlock.queue q
  cross join seconds
  left join counted on counted.queue = q.id
$$;

-- The suspects of each queue that wait to run alone, and for how long the oldest one has waited.
-- They are in `delayed`, too, where they look like tasks that wait for their next attempt.
create or replace function rowlock.waiting_suspects()
returns table (queue int, n bigint, oldest_seconds double precision)
language sql stable
set search_path = pg_catalog, pg_temp
set jit = off
as $$
  select
    s.queue,
    (count(*) * 100 / rowlock.sample_percent('rowlock.suspect'))::bigint,
    date_part(
      'epoch',
      now() - min(s.until - rowlock.suspect_delay(s.alone) - rowlock.suspect_timeout())
    )
  from rowlock.suspect s
    tablesample system (rowlock.sample_percent('rowlock.suspect')) repeatable (0)
  where s.due <> 'infinity'
  group by s.queue
$$;

-- All queues of the database in one statement. Large numbers of available, delayed or dead tasks
-- are estimated: see rowlock.backlog(). `retryable` includes the suspects.
drop function if exists rowlock.statistics();
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
  arrivals bigint[],
  arrivals_second bigint,
  arrivals_known int,
  instances bigint,
  allocated bigint,
  busy bigint,
  runs bigint,
  failures bigint,
  run_seconds double precision,
  run_seconds_squared double precision,
  mean_running_seconds double precision,
  oldest_by_priority double precision[],
  suspects bigint,
  oldest_suspect_seconds double precision,
  enqueued bigint[],
  newly_dead bigint
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
    -- Suspects run one at a time, so all those of a queue count as one.
    coalesce(soon.n, 0) + exists (
      select 1
      from rowlock.suspect s
      where s.queue = q.id and s.due < now() + interval '5 seconds'
    )::int,
    coalesce(running.n, 0),
    coalesce(dead.n, 0),
    case
      when backlog.oldest is not null then
        greatest(date_part('epoch', clock_timestamp()) - 1704067200 - backlog.oldest, 0)
    end,
    coalesce(completed.n, 0),
    arrived.counts,
    arrived.second,
    arrived.known,
    coalesce(live.n, 0),
    coalesce(live.allocated, 0),
    coalesce(live.held, 0),
    coalesce(live.runs, 0),
    coalesce(live.failures, 0),
    coalesce(live.run_seconds, 0),
    coalesce(live.run_seconds_squared, 0),
    running.mean_seconds,
    case
      when backlog.available > 0 then (
        select array_agg(
          case
            when oldest.since is not null then
              greatest(date_part('epoch', clock_timestamp()) - 1704067200 - oldest.since, 0)
          end
          order by oldest.number
        )
        from
          unnest(
            coalesce(
              few.oldest,
              rowlock.oldest_by_priority(
                q.id,
                coalesce(rowlock.published_watermarks(q.id), array_fill(0::bigint, array[16]))
              )
            )
          ) with ordinality oldest(since, number)
      )
    end,
    coalesce(suspects.n, 0),
    case when suspects.n > 0 then greatest(suspects.oldest_seconds, 0) end,
    arrived.enqueued,
    -- Not from the sample of `dead`, which may change in one queue by tasks of another. Without a
    -- dead task, there is nothing to look for.
    case
      when dead.n > 0 or (select rowlock.sample_percent('rowlock.dead')) < 100 then
        rowlock.newly_dead(
          q.id,
          greatest(least(100000 / (count(*) over ()), 1000), 10)::int
        )
      else 0
    end
  from rowlock.queue q
  left join rowlock.backlog() backlog on backlog.queue = q.id
  -- Thousands of queues with a few tasks each: one scan costs less than a lookup for each of them.
  left join (
    select
      r.queue,
      array[
        min(r.since) filter (where r.priority = 0),
        min(r.since) filter (where r.priority = 1),
        min(r.since) filter (where r.priority = 2),
        min(r.since) filter (where r.priority = 3)
      ] oldest
    from rowlock.ready r
    where rowlock.sample_percent('rowlock.ready') = 100 and r.lane = 0
    group by r.queue
  ) few on few.queue = q.id
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
  left join rowlock.waiting_suspects() suspects on suspects.queue = q.id
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
  left join rowlock.recent_arrivals() arrived on arrived.queue = q.id
  left join (
    select
      i.queue,
      count(*) n,
      sum(newest.allocated) allocated,
      sum(newest.held) held,
      sum(newest.runs) runs,
      sum(newest.failures) failures,
      sum(newest.run_seconds::double precision) run_seconds,
      sum(newest.run_seconds_squared::double precision) run_seconds_squared
    from
      rowlock.instance i,
      lateral (
        select
          h.allocated, h.held, h.runs, h.failures, h.run_seconds, h.run_seconds_squared
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
