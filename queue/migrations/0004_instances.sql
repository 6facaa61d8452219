-- What an instance calls: join, heartbeat (with the grant of allocations), claim, settle, drain, leave.
-- An instance's id is a number from a sequence below 21 random bits: a failover may rewind the sequence while the process that had the number lives.
-- A lock on the instance's row keeps its own verbs and a rescue apart (R5): a heartbeat takes it FOR KEY SHARE, a
-- claim that found something FOR SHARE, who ends the instance FOR UPDATE; each sees the newest version of the
-- row. A settlement needs none: it locks its leases, which a rescue takes.

create function rowlock.require_read_committed() returns void language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'this verb needs READ COMMITTED' using errcode = 'RL007', hint = 'Begin the transaction with ISOLATION LEVEL READ COMMITTED.';
  end if;
end $$;

-- Who is just being ended is told to ask again: a rescue or a delete may yet fail. Answers false where it has
-- ended.
create function rowlock.check_ending(instance bigint) returns boolean language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
begin
  if exists (select 1 from rowlock.instance i where i.id = $1 and i.ended_at is null) then
    raise exception 'instance % is being ended', instance using errcode = 'lock_not_available', hint = 'Ask again.';
  end if;
  return false;
end $$;

create function rowlock.join(queue text, name text, capacity int) returns rowlock.instance
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare q rowlock.queue; i rowlock.instance;
begin
  select * into q from rowlock.queue r where r.name = $1;
  if not found then perform rowlock.refuse_unknown_queue($1); end if;
  perform rowlock.require_worker(q.id);
  if (length($2) between 1 and 200 and $2 !~ '[[:cntrl:]]') is not true then
    raise exception 'the name of an instance has 1 to 200 printable characters' using errcode = 'RL005',
        hint = 'It is for people: a pod''s name, for example.';
  end if;
  insert into rowlock.instance (id, queue, name, capacity) values ((floor(random() * 2097152)::bigint << 32) | (nextval('rowlock.instance_seq') & 4294967295), q.id, $2, $3) returning * into i;
  insert into rowlock.heartbeat (n, at, instance, queue, held, allocated, allocation, wants)
      values (nextval('rowlock.heartbeat_seq'), clock_timestamp(), i.id, q.id, 0, 0, 0, 0);
  return i;
end $$;

-- What an instance follows.
create function rowlock.policy(queue int)
returns table (generation bigint, policy json, max_attempts smallint) language sql stable security definer
set search_path = pg_catalog, pg_temp as $$
  select q.generation, q.policy, q.max_attempts from rowlock.queue q where q.id = $1
$$;

-- No watermark lies further above k_seq than this: so much a failover may take back.
create function rowlock.watermark_max_lead() returns bigint language sql immutable return 1000000;

-- The watermarks that were published last, of all instances the least: an instance that joins need not walk the
-- dead rows of a pinned horizon, and is led past no task by another one that errs. Of a queue without
-- instances those that were kept (rowlock.keep_lows), for as long as they are looked after.
create function rowlock.published_watermarks(queue int) returns bigint[] language sql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
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

-- The newest heartbeat and allocation of every live instance of a queue, and how many slots it counts as holding. One whose heartbeats cannot be
-- seen (it died, or the clock stepped) may hold as many as it has room for; `at_most` counts so, too, who has sent none for
-- seconds: a failover may have lost what was granted to it since (R7).
create function rowlock.holding(queue int) returns table (instance bigint, drains boolean, wants int, granted int, holds int, at_most int)
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
create function rowlock.allocate(queue int) returns boolean language plpgsql volatile
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

-- The least k that is ready in each of the 16 parts (four priorities of four shards), from the given watermarks on. Dead rows below are not walked.
create function rowlock.least_k(queue int, watermarks bigint[]) returns bigint[]
language sql stable security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
  select array_agg(f.k order by p) from generate_series(0, 15) p left join lateral (
    select r.k from rowlock.ready r where r.queue = $1 and r.shard = (p & 3)::smallint and r.lane = 0 and r.priority = (p >> 2)::smallint and r.k >= $2[p + 1] order by r.k limit 1) f on true
$$;

create function rowlock.heartbeat(instance bigint, held int, allocated int, allocation bigint, wants int, watermarks bigint[], idle boolean, service_ms real)
returns table (gone boolean, allocation_number bigint, slots int, paused boolean, generation bigint, newest_k bigint, least_ks bigint[], canceled bigint[],
  peers int, noted_k bigint, noted_xid bigint, xmin bigint, allocation_missed boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare v_queue int; v_live int; v_behind bigint; v_noted bigint; v_missed boolean;
begin
  perform rowlock.require_read_committed();
  -- A note for the exact watermark, as in rowlock.maintain(): k first, then the xid, which the lock draws.
  select last_value + is_called::int into v_noted from rowlock.k_seq;
  -- Until this heartbeat is committed nobody ends the instance.
  select i.queue into v_queue from rowlock.instance i where i.id = $1 and i.ended_at is null
      for key share skip locked;
  if not found and not rowlock.check_ending($1) then
    return query select true, 0::bigint, 0, false, 0::bigint, 0::bigint, '{}'::bigint[], '{}'::bigint[], 1,
        0::bigint, 0::bigint, 0::bigint, null::boolean; return;
  end if;
  perform rowlock.require_worker(v_queue);
  -- A failover may rewind k_seq below where claims start: they would not see what gets such a k. A watermark far
  -- above it is none of ours.
  select max(x) - s.last_value into v_behind from unnest($6) x, rowlock.k_seq s group by s.last_value;
  if v_behind > rowlock.watermark_max_lead() or cardinality($6) is distinct from 16
      or array_position($6, null) is not null then
    raise exception 'the watermarks of instance % are no watermarks of this queue', $1
        using errcode = 'RL005',
      hint = 'The sequence of k may have been taken back by a failover: end the instance, and join again.';
  end if;
  -- By the clock that never waits: a transaction that was begun long ago would give its heartbeat an old time
  -- (R4).
  insert into rowlock.heartbeat (n, at, instance, queue, held, allocated, allocation, wants, service_ms, watermarks)
    values (nextval('rowlock.heartbeat_seq'), clock_timestamp(), $1, v_queue, $2, $3, $4, $5, $8, $6);
  if v_behind > 0 then perform nextval('rowlock.k_seq') from generate_series(1, least(v_behind, 10000));
      end if;
  -- About four passes a second for the whole queue, however many instances send heartbeats (a full read in each heartbeat would be quadratic).
  select count(*) into v_live from rowlock.instance i where i.queue = v_queue and i.ended_at is null;
  if random() * v_live < 4 then v_missed := not rowlock.allocate(v_queue); end if;
  if $7 then
    -- Whoever has the row may have it for long: a producer that made partitions, until its commit.
    update rowlock.queue q set notify_until = now() + interval '1 minute' where q.id = (select x.id from rowlock.queue x
      where x.id = v_queue and x.notify_until < now() + interval '5 seconds' for no key update skip locked);
  end if;
  return query
    select false, coalesce(a.number, $4), coalesce(a.slots, $3), q.paused, q.generation,
           (select last_value from rowlock.k_seq), rowlock.least_k(v_queue, $6),
           array(select c.id from rowlock.cancel_request c join rowlock.lease l on l.instance = $1
                 where exists (select 1 from unnest(l.firsts, l.ns) u(f, n) where c.id >= u.f and c.id < u.f + u.n) and c.id <> all (l.settled) limit 1000),
           v_live, v_noted, pg_current_xact_id()::text::bigint,
               pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
           v_missed
    from rowlock.queue q
    left join lateral (select x.number, x.slots from rowlock.allocation x where x.instance = $1 and x.number > $4 and x.at > now() - interval '1 minute' order by x.number desc limit 1) a on true
    where q.id = v_queue;
end $$;

-- Candidates are read unlocked and cut by a running sum; only those are locked (R2). A row taken in part keeps its k, and so its place.
-- One series for both loops: of two, the planner chooses which is the outer one, and a limit would then cut by shard instead of by priority.
-- Sent again after a lost answer with the same token, it answers with the lease it made (R1).
create function rowlock.claim(instance bigint, want int, watermarks bigint[], start int, token bigint)
returns table (firsts bigint[], ns smallint[], attempts smallint[], priorities smallint[], contended boolean, newest_k bigint, least_ks bigint[])
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
#variable_conflict use_column
declare
  v_queue int; v_restricted boolean; looked int; taken bigint := 0; v_newest bigint;
  l_prios smallint[]; l_places tid[]; l_ids bigint[]; l_ns smallint[]; l_attempts smallint[];
begin
  perform rowlock.require_read_committed();
  if not exists (select 1 from rowlock.instance i where i.id = $1 and i.ended_at is null) then
    raise exception 'instance % is gone', $1 using errcode = 'RL006', hint = 'Join again.';
  end if;
  if exists (select 1 from rowlock.lease l where l.token = $5) then
    return query select l.firsts, l.ns, l.attempts, l.priorities, false, 0::bigint, '{}'::bigint[] from rowlock.lease l where l.token = $5 and l.instance = $1; return;
  end if;
  select i.queue, q.restricted into v_queue, v_restricted from rowlock.instance i
      join rowlock.queue q on q.id = i.queue
    where i.id = $1 and not q.paused and not i.drains;
  if not found then return query select '{}'::bigint[], '{}'::smallint[], '{}'::smallint[], '{}'::smallint[], false, 0::bigint, '{}'::bigint[]; return; end if;
  if v_restricted then perform rowlock.require_worker(v_queue); end if;
  select last_value into v_newest from rowlock.k_seq;
  with look as materialized (
    select count(*) as entries from (
      select sum(y.n) over (order by y.priority, y.turn, y.k) - y.n as before from (
        select x.priority, s.turn, x.k, x.n from (select o >> 2 as p, o & 3 as turn from generate_series(0, 15) o) s, lateral (
          select r.priority, r.k, r.n from rowlock.ready r
          where r.queue = v_queue and r.shard = ((s.turn + $4) & 3)::smallint and r.lane = 0 and r.priority = p::smallint and r.k >= $3[p * 4 + ((s.turn + $4) & 3) + 1] order by r.k limit $2) x limit $2) y) z
    where before < $2),
  locked as materialized (
    select x.*, s.turn from (select o >> 2 as p, o & 3 as turn from generate_series(0, 15) o) s, lateral (
      select r.priority, r.k, r.id, r.n, r.attempt, r.ctid place from rowlock.ready r
      where r.queue = v_queue and r.shard = ((s.turn + $4) & 3)::smallint and r.lane = 0 and r.priority = p::smallint and r.k >= $3[p * 4 + ((s.turn + $4) & 3) + 1] order by r.k
      limit (select entries from look) for update skip locked) x limit (select entries from look))
  select (select entries from look), array_agg(priority order by priority, turn, k), array_agg(place order by priority, turn, k),
         array_agg(id order by priority, turn, k), array_agg(n order by priority, turn, k), array_agg(attempt order by priority, turn, k)
    into looked, l_prios, l_places, l_ids, l_ns, l_attempts from locked;
  if l_ids is not null then
    -- Until the lease is committed nobody ends the instance, or the lease would be nobody's. Not waited for:
    -- whoever ends a queue waits for what is locked above.
    perform 1 from rowlock.instance i where i.id = $1 and i.ended_at is null for share skip locked;
    if not found and not rowlock.check_ending($1) then
      raise exception 'instance % is gone', $1 using errcode = 'RL006', hint = 'Join again.';
    end if;
    -- A new snapshot: what was locked is now seen in its newest version, whatever ran between look and lock. By place, which a lock keeps:
    -- joined by key, a plan made while the table was small walks the whole index once it is large.
    with l as materialized (
      select u.*, (sum(u.n) over (order by u.o))::int - u.n as before
      from unnest(l_prios, l_places, l_ids, l_ns, l_attempts) with ordinality u(priority, place, id, n, attempt, o)),
    whole as (delete from rowlock.ready r where r.ctid = any (array(select l.place from l where l.before + l.n <= $2))),
    part as (update rowlock.ready r set id = r.id + ($2 - l.before), n = r.n - ($2 - l.before) from l where l.before < $2 and l.before + l.n > $2
      and r.ctid = any (array(select l.place from l where l.before < $2 and l.before + l.n > $2)) and r.ctid = l.place)
    insert into rowlock.lease as y (token, instance, queue, firsts, ns, attempts, priorities)
      select $5, $1, v_queue, array_agg(l.id order by l.o), array_agg(least(l.n, $2 - l.before)::smallint order by l.o), array_agg(l.attempt order by l.o), array_agg(l.priority order by l.o)
      from l where l.before < $2;
    select sum(n) into taken from unnest(l_ns) n;
  end if;
  return query
    select coalesce(l.firsts, '{}'), coalesce(l.ns, '{}'), coalesce(l.attempts, '{}'), coalesce(l.priorities, '{}'),
           looked > 0 and coalesce(taken, 0) < $2 and coalesce(cardinality(l_ids), 0) < looked, v_newest, rowlock.least_k(v_queue, $3)
    from (select 1) one left join rowlock.lease l on l.token = $5;
end $$;

-- Waits for the claims of an instance that have taken something and are under way. Ask before a claim is sent
-- again: answered before the first one ends, its lease would be nobody's for a minute.
create function rowlock.await_claims(instance bigint) returns void language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp as $$
begin
  perform rowlock.require_worker(i.queue) from rowlock.instance i where i.id = $1;
  perform 1 from rowlock.instance i where i.id = $1 for no key update;
end $$;

-- The payloads of claimed tasks: of those that a lease with this token holds. Planned anew with the ids in it,
-- so that it locks only the partitions that hold them (R18).
-- VOLATILE, so that the second statement has a snapshot of its own: the first may wait for a cleanup that empties the partition, and sees nothing then.
create function rowlock.fetch(token bigint, ids bigint[])
returns table (id bigint, type text, payload text, max_attempts smallint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare held bigint[] := array(
  select u.id from unnest($2) u(id)
  intersect select g.id
      from rowlock.lease l, unnest(l.firsts, l.ns) r(f, n), generate_series(r.f, r.f + r.n - 1) g(id)
          where l.token = $1);
begin
  return query execute 'select t.id, t.type, t.payload::text, t.max_attempts from rowlock.task t where t.id = any ($1)' using held;
  if exists (select 1 from rowlock.task_kept) then
    return query select t.id, t.type, t.payload::text, t.max_attempts from rowlock.task_kept t
        where t.id = any (held);
  end if;
end $$;
