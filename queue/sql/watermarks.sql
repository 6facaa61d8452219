-- No watermark lies further above k_seq than this: so much a failover may take back.
create or replace function rowlock.watermark_max_lead() returns bigint language sql immutable return 1000000;

-- The watermarks that were published last, of all instances the least: an instance that joins need not walk the
-- dead rows of a pinned horizon, and is led past no task by another one that errs. Of a queue without
-- instances those that were kept (rowlock.keep_watermarks), for as long as they are looked after.
create or replace function rowlock.published_watermarks(queue int) returns bigint[] language sql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
  select coalesce(array_agg(y.watermark order by y.o), (
    select array_agg(least(u.watermark, (select s.last_value from rowlock.k_seq s)) order by u.o)
    from rowlock.queue q, unnest(q.watermarks) with ordinality u(watermark, o)
    where q.id = $1 and q.lows_at > now() - interval '20 minutes')) from (
    select u.o, min(least(u.watermark, (select s.last_value from rowlock.k_seq s))) watermark
        from rowlock.instance i, lateral (
      select x.watermarks from rowlock.heartbeat x where x.instance = i.id and x.watermarks is not null
          and x.at > now() - interval '1 minute' order by x.n desc limit 1) b,
      unnest(b.watermarks) with ordinality u(watermark, o)
    where i.queue = $1 and coalesce(i.ended_at > now() - interval '1 minute', true) group by u.o) y
$$;

-- The least k that is ready in each of the 16 parts (four priorities of four shards), from the given watermarks on. Dead rows below are not walked.
create or replace function rowlock.least_k(queue int, watermarks bigint[]) returns bigint[]
language sql stable security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
  select array_agg(f.k order by p) from generate_series(0, 15) p left join lateral (
    select r.k from rowlock.ready r where r.queue = $1 and r.shard = (p & 3)::smallint and r.lane = 0 and r.priority = (p >> 2)::smallint and r.k >= $2[p + 1] order by r.k limit 1) f on true
$$;

-- Keeps where claims may start in queues without instances, so that what waits there is counted without a walk
-- over all that died: the exact watermark (R6), for nobody is there who would sweep. Call it as a transaction of its
-- own, about once a minute: k is read before this transaction has an id. A note is good once every transaction that was
-- open is over. What was kept is found anew every ten minutes: a failover may take back k_seq.
create or replace function rowlock.keep_watermarks() returns void language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
#variable_conflict use_column
declare v_k bigint; m rowlock.maintenance; none bigint[] := array_fill(0::bigint, array[16]);
begin
  perform rowlock.require_read_committed();
  select s.last_value + s.is_called::int into v_k from rowlock.k_seq s;
  select x.* into m from rowlock.maintenance x for update skip locked;
  if not found then return; end if;
  if v_k < m.noted_k then
    update rowlock.queue q set watermarks = null, lows_at = '-infinity' where q.watermarks is not null;
  elsif m.noted_xid > pg_snapshot_xmin(pg_current_snapshot())::text::bigint then
    return;
  elsif m.noted_xid > 0 then
    update rowlock.queue q set watermarks = (
        select array_agg(least(coalesce(u.k, m.noted_k), m.noted_k) order by u.o)
        from unnest(rowlock.least_k(q.id, none)) with ordinality u(k, o)), lows_at = m.noted_at
      where q.id in (
        select x.id from rowlock.queue x
        where not exists (select 1 from rowlock.instance i where i.queue = x.id and i.ended_at is null)
          and (x.lows_at not between now() - interval '10 minutes' and now()
            or exists (select 1 from rowlock.instance i where i.queue = x.id and i.ended_at > x.lows_at))
        for no key update skip locked);
  end if;
  update rowlock.maintenance x set noted_k = v_k, noted_xid = pg_current_xact_id()::text::bigint, noted_at = now();
end $$;
