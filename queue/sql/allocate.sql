-- The newest heartbeat and allocation of every live instance of a queue, and how many slots it counts as holding. One whose heartbeats cannot be
-- seen (it died, or the clock stepped) may hold as many as it has room for; `at_most` counts so, too, who has sent none for
-- seconds: a failover may have lost what was granted to it since (R7).
create or replace function rowlock.holding(queue int) returns table (instance bigint, drains boolean, wants int, granted int, holds int, at_most int)
language sql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
  select i.id, i.drains, coalesce(least(b.wants, i.capacity), 0),
         case when b.n is null then 0 when a.number > b.allocation then a.slots else b.allocated end,
         h.holds, case when b.at < now() - interval '5 seconds' then greatest(h.holds, i.capacity) else h.holds end
  from rowlock.instance i
  left join lateral (select x.* from rowlock.heartbeat x where x.instance = i.id and x.at > now() - interval '1 minute' order by x.n desc limit 1) b on true
  left join lateral (select max(x.number) number, max(x.slots) highest, (array_agg(x.slots order by x.number desc))[1] slots
                     from rowlock.allocation x where x.instance = i.id and x.number > b.allocation and x.at > now() - interval '1 minute') a on true
  cross join lateral (select case when b.n is null then i.capacity when a.number > b.allocation then greatest(b.held, b.allocated, a.highest) else greatest(b.held, b.allocated) end holds) h
  where i.queue = $1 and i.ended_at is null
$$;

-- Grants in numbered rows what is free; asks back from who has more than its share (R7). The caller holds no snapshot older than the lock:
-- the lock is taken in a statement of its own, under READ COMMITTED.
-- Answers false where another session does it.
create or replace function rowlock.allocate(queue int) returns boolean language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  total int; free int; live int; share int; rest int; h record; target int;
begin
  if not rowlock.try_mutex(5, $1) then return false; end if;
  select case when q.paused then 0 else q.total_workers end into total from rowlock.queue q where q.id = $1;
  select total - coalesce(sum(x.at_most), 0), count(*) filter (where x.wants > 0 and not x.drains) into free, live from rowlock.holding($1) x;
  rest := total; 
  -- Smallest wish first: what it leaves over is shared by the others.
  for h in select * from rowlock.holding($1) x order by (x.drains or x.wants = 0) desc, x.wants, x.instance loop
    if h.drains or h.wants = 0 then target := 0;
    else
      share := ceil(rest::numeric / greatest(live, 1));
      target := least(h.wants, share); rest := rest - target; live := live - 1;
    end if;
    if target > h.granted then target := h.granted + least(target - h.granted, greatest(free, 0)); free := free - (target - h.granted); end if;
    if target <> h.granted then
      insert into rowlock.allocation (number, queue, instance, slots) values (nextval('rowlock.allocation_seq'), $1, h.instance, target);
    end if;
  end loop;
  return true;
end $$;
