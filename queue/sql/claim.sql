-- Candidates are read unlocked and cut by a running sum; only those are locked (R2). A row taken in part keeps its k, and so its place.
-- One series for both loops: of two, the planner chooses which is the outer one, and a limit would then cut by shard instead of by priority.
-- Sent again after a lost answer with the same token, it answers with the lease it made (R1).
create or replace function rowlock.claim(instance bigint, want int, watermarks bigint[], start int, token bigint)
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
create or replace function rowlock.await_claims(instance bigint) returns void language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp as $$
begin
  perform rowlock.require_worker(i.queue) from rowlock.instance i where i.id = $1;
  perform 1 from rowlock.instance i where i.id = $1 for no key update;
end $$;
