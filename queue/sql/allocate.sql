-- Divides a queue's slots (spec.workers.total) among its instances. Called by rowlock.heartbeat.

-- The newest heartbeat and allocation of every live instance of a queue, and how many slots it
-- holds. An instance without a visible heartbeat (it died, or the clock stepped) may hold its whole
-- capacity. `may_hold` treats an instance that has been silent for seconds in the same way: a
-- failover may have lost what was granted to it since (R7). `drains`: it claims nothing more, or a
-- scale-in has marked it (rowlock.drain_pods).
create or replace function rowlock.instance_slots(queue int)
returns table (
  instance bigint,
  drains boolean,
  wants int,
  granted int,
  held int,
  may_hold int
)
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
  select
    i.id,
    i.drains or coalesce(i.drain_until > now(), false),
    coalesce(least(newest.wants, i.capacity), 0),
    case
      when newest.n is null then 0
      when later.number > newest.allocation then later.slots
      else newest.allocated
    end,
    slots.held,
    case
      when newest.at < now() - interval '5 seconds' then greatest(slots.held, i.capacity)
      else slots.held
    end
  from rowlock.instance i
  left join lateral (
    select h.*
    from rowlock.heartbeat h
    where h.instance = i.id and h.at > now() - interval '1 minute'
    order by h.n desc
    limit 1
  ) newest on true
  -- Allocations that the instance has not acknowledged yet.
  left join lateral (
    select
      max(a.number) number,
      max(a.slots) highest,
      (array_agg(a.slots order by a.number desc))[1] slots
    from rowlock.allocation a
    where a.instance = i.id
      and a.number > newest.allocation
      and a.at > now() - interval '1 minute'
  ) later on true
  cross join lateral (
    select
      case
        when newest.n is null then i.capacity
        when later.number > newest.allocation
          then greatest(newest.held, newest.allocated, later.highest)
        else greatest(newest.held, newest.allocated)
      end held
  ) slots
  where i.queue = instance_slots.queue and i.ended_at is null
$$;

-- Grants free slots in numbered rows, and takes slots back from instances that have more than their
-- share (R7). Returns false if another session is doing it. A separate statement takes the lock, so
-- that under READ COMMITTED later statements see what was committed before the lock.
create or replace function rowlock.allocate(queue int)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  total int;
  free int;
  live int;     -- instances that want slots and have no target yet
  share int;
  rest int;     -- slots that no target has taken yet
  target int;
  h record;
begin
  if not rowlock.try_mutex(5, allocate.queue) then
    return false;
  end if;
  select case when q.paused then 0 else q.total_workers end
    into total
    from rowlock.queue q
    where q.id = allocate.queue;
  select
    total - coalesce(sum(s.may_hold), 0),
    count(*) filter (where s.wants > 0 and not s.drains)
    into free, live
    from rowlock.instance_slots(allocate.queue) s;
  rest := total;
  -- The instance that wants the fewest slots comes first: the rest of its share goes to the others.
  for h in
    select *
    from rowlock.instance_slots(allocate.queue) s
    order by (s.drains or s.wants = 0) desc, s.wants, s.instance
  loop
    if h.drains or h.wants = 0 then
      target := 0;
    else
      share := ceil(rest::numeric / greatest(live, 1));
      target := least(h.wants, share);
      rest := rest - target;
      live := live - 1;
    end if;
    if target > h.granted then
      target := h.granted + least(target - h.granted, greatest(free, 0));
      free := free - (target - h.granted);
    end if;
    if target <> h.granted then
      insert into rowlock.allocation (number, queue, instance, slots)
        values (nextval('rowlock.allocation_seq'), allocate.queue, h.instance, target);
    end if;
  end loop;
  return true;
end $$;
