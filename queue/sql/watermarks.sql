-- Watermarks: for each of a queue's 16 parts (four priorities of four shards) the smallest k that a
-- claim must look at. A claim that starts there does not read the dead rows below. Element p * 4 +
-- s + 1 of the array is for priority p and shard s. `keep_watermarks` is called by maintenance
-- (queue/src/retention.rs), the rest by the functions for instances and by those that count.

-- The most that a watermark may be above k_seq. It is also how far a failover may rewind the
-- sequence.
create or replace function rowlock.watermark_max_lead()
returns bigint
language sql immutable
return 1000000;

-- The smallest of the watermarks that the queue's instances published last. So an instance that
-- joins does not read the dead rows that an old transaction keeps, and a wrong watermark of one
-- instance makes no other skip a task. For a queue without instances: the watermarks of
-- rowlock.keep_watermarks, if they are recent.
create or replace function rowlock.published_watermarks(queue int)
returns bigint[]
language sql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
  select coalesce(
    array_agg(part.watermark order by part.number),
    (
      select array_agg(
        least(kept.watermark, (select s.last_value from rowlock.k_seq s)) order by kept.number
      )
      from rowlock.queue q, unnest(q.watermarks) with ordinality kept(watermark, number)
      where q.id = published_watermarks.queue
        and q.watermarks_at > now() - interval '20 minutes'
    )
  )
  from (
    select
      published.number,
      min(least(published.watermark, (select s.last_value from rowlock.k_seq s))) watermark
    from
      rowlock.instance i,
      lateral (
        select h.watermarks
        from rowlock.heartbeat h
        where h.instance = i.id
          and h.watermarks is not null
          and h.at > now() - interval '1 minute'
        order by h.n desc
        limit 1
      ) newest,
      unnest(newest.watermarks) with ordinality published(watermark, number)
    where i.queue = published_watermarks.queue
      and coalesce(i.ended_at > now() - interval '1 minute', true)
    group by published.number
  ) part
$$;

-- The smallest k that is ready in each of the 16 parts, starting at the given watermarks. It is not
-- in SQL, because before version 18 PostgreSQL plans a function in SQL at each call.
create or replace function rowlock.least_k(queue int, watermarks bigint[])
returns bigint[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
  return (
    select array_agg(first.k order by part)
    from generate_series(0, 15) part
    left join lateral (
      select r.k
      from rowlock.ready r
      where r.queue = least_k.queue
        and r.shard = (part & 3)::smallint
        and r.lane = 0
        and r.priority = (part >> 2)::smallint
        and r.k >= least_k.watermarks[part + 1]
      order by r.k
      limit 1
    ) first on true
  );
end $$;

-- Keeps the exact watermarks (R6) of queues without instances, so that counting their backlog does
-- not read all dead rows. Without instances nothing sweeps such a queue, so its watermarks must be
-- exact. Call it in a separate transaction, about once a minute: it reads k before the transaction
-- has an id. A note can be used once every transaction that was open when it was written has ended.
-- Kept watermarks are computed again every ten minutes, because a failover may rewind k_seq.
create or replace function rowlock.keep_watermarks()
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
  v_k bigint;
  m rowlock.maintenance;
  none bigint[] := array_fill(0::bigint, array[16]);
begin
  perform rowlock.require_read_committed();
  select s.last_value + s.is_called::int into v_k from rowlock.k_seq s;
  select noted.* into m from rowlock.maintenance noted for update skip locked;
  if not found then
    return;
  end if;
  if v_k < m.noted_k then
    update rowlock.queue q
      set watermarks = null, watermarks_at = '-infinity'
      where q.watermarks is not null;
  elsif m.noted_xid > pg_snapshot_xmin(pg_current_snapshot())::text::bigint then
    return;
  elsif m.noted_xid > 0 then
    update rowlock.queue q
      set
        watermarks = (
          select array_agg(least(coalesce(part.k, m.noted_k), m.noted_k) order by part.number)
          from unnest(rowlock.least_k(q.id, none)) with ordinality part(k, number)
        ),
        watermarks_at = m.noted_at
      where q.id in (
        select idle.id
        from rowlock.queue idle
        where not exists (
            select 1
            from rowlock.instance i
            where i.queue = idle.id and i.ended_at is null
          )
          and (
            idle.watermarks_at not between now() - interval '10 minutes' and now()
            or exists (
              select 1
              from rowlock.instance i
              where i.queue = idle.id and i.ended_at > idle.watermarks_at
            )
          )
        for no key update skip locked
      );
  end if;
  update rowlock.maintenance noted
    set
      noted_k = v_k,
      noted_xid = pg_current_xact_id()::text::bigint,
      noted_at = now();
end $$;
