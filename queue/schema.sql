-- The schema after all migrations, to be read: written by `make schema`, compared by a test. Without partitions.

CREATE SCHEMA rowlock;

CREATE FUNCTION rowlock.allocate(queue integer) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
      insert into rowlock.allocation (number, queue, instance, workers) values (nextval('rowlock.allocation_seq'), $1, h.instance, target);
    end if;
  end loop;
  return true;
end $_$;

CREATE FUNCTION rowlock.as_json(payloads text[]) RETURNS json[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare bad record;
begin
  return payloads::json[];
exception when data_exception or statement_too_complex then
  for bad in select * from unnest(payloads) with ordinality p(p, o) loop
    begin
      perform bad.p::json;
    exception when data_exception or statement_too_complex then
      raise exception 'payload % of % is not JSON', bad.o, cardinality(payloads) using errcode = 'RL005', hint = 'A text within JSON has double quotes: "hello", or to_json(''hello''::text).';
    end;
  end loop;
end $$;

CREATE FUNCTION rowlock.as_json(payload text) RETURNS json
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return payload::json;
exception
  when data_exception then
    raise exception 'the payload is not JSON' using errcode = 'RL005',
        hint = 'A text within JSON has double quotes: "hello", or to_json(''hello''::text).';
  when statement_too_complex then
    raise exception 'the payload is nested too deeply' using errcode = 'RL005',
        hint = 'Postgres reads some thousand levels (max_stack_depth).';
end $$;

CREATE FUNCTION rowlock.as_options(options text) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return options::jsonb;
exception when data_exception or statement_too_complex then
  raise exception 'options must be a JSON object' using errcode = 'RL005',
      hint = 'Leave them out, or pass for example {"priority": 0}.';
end $$;

CREATE FUNCTION rowlock.as_payloads(payloads json) RETURNS json[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if json_typeof(payloads) <> 'array' then
    raise exception 'the payloads are no array' using errcode = 'RL005',
      hint = 'Pass a JSON array, [{"order": 1}, {"order": 2}]; rowlock.enqueue takes one task alone.';
  end if;
  return case when payloads is not null then array(
    select e.value from json_array_elements(payloads) with ordinality e(value, o) order by e.o) end;
end $$;

CREATE FUNCTION rowlock.as_payloads(payloads text) RETURNS json[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if ltrim(payloads, E' \t\n\r') not like '{%' then return rowlock.as_payloads(rowlock.as_json(payloads)); end if;
  return rowlock.as_json(payloads::text[]);
exception when data_exception then
  raise exception 'the payloads are no array' using errcode = 'RL005',
    hint = 'Pass a JSON array, [{"order": 1}, {"order": 2}]; rowlock.enqueue takes one task alone.';
end $$;

CREATE FUNCTION rowlock.audit() RETURNS TABLE(queue text, enqueued bigint, completed bigint, dead bigint, cancelled bigint, open bigint, untraced bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
  with trace as (
    select d.id, 'open' s from rowlock.delayed d
    union all select g, 'open' from rowlock.ready r, generate_series(r.id, r.id + r.n - 1) g
    union all select g, 'open' from rowlock.lease l, unnest(l.firsts, l.ns) u(f, n), generate_series(u.f, u.f + u.n - 1) g where not exists (select 1 from unnest(l.settled) z where z = g)
    union all select d.id, 'dead' from rowlock.dead d
    union all select g, case r.state when 1 then 'completed' when 2 then 'dead' else 'cancelled' end from rowlock.receipt r, unnest(r.firsts, r.ns) u(f, n), generate_series(u.f, u.f + u.n - 1) g)
  select q.name, count(t.id), count(*) filter (where c.s = 'completed'), count(*) filter (where c.s = 'dead'), count(*) filter (where c.s = 'cancelled'),
         count(*) filter (where c.s = 'open'), count(t.id) filter (where c.s is null)
  from rowlock.queue q left join rowlock.every_task t on t.queue = q.id left join trace c on c.id = t.id
  where not q.guarded or rowlock.may('reader', q.id) group by q.name order by q.name
$$;

CREATE FUNCTION rowlock.await_claims(instance bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
  perform 1 from rowlock.instance i where i.id = $1 for no key update;
end $_$;

CREATE FUNCTION rowlock.backlog() RETURNS TABLE(queue integer, available bigint, scheduled bigint, retryable bigint, later bigint, oldest integer)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare v_ready real := rowlock.sample_percent('rowlock.ready'); v_delayed real := rowlock.sample_percent('rowlock.delayed'); most int;
begin
  select greatest(least(20000 / greatest(count(*), 1), 1000), 50) into most from rowlock.queue;
  return query
    select q.id, coalesce(case when c.more is null then s.n when c.more then greatest(c.n, s.n)
        else c.n end, 0), coalesce(d.scheduled, 0), coalesce(d.retryable, 0), coalesce(d.later, 0),
            coalesce(c.oldest, s.oldest)
    from rowlock.queue q
    left join (select r.queue, (sum(r.n) * 100 / v_ready)::bigint n, min(r.since) oldest from rowlock.ready r tablesample system (v_ready) repeatable (0) group by r.queue) s on s.queue = q.id
    left join lateral (
      select sum(x.n)::bigint n, min(x.oldest) oldest, bool_or(x.rows = most) more
      from coalesce(rowlock.published_lows(q.id), array_fill(0::bigint, array[16])) lows, generate_series(0, 15) p, lateral (
        select sum(y.n) n, min(y.since) oldest, count(*) as rows from (
          select r.n, r.since from rowlock.ready r where r.queue = q.id and r.shard = (p & 3)::smallint and r.lane = 0 and r.priority = (p >> 2)::smallint and r.k >= lows[p + 1]
          order by r.k limit most) y) x) c on v_ready < 100
    left join (select d.queue, (count(*) filter (where d.waits = 0) * 100 / v_delayed)::bigint scheduled,
        (count(*) filter (where d.waits = 1) * 100 / v_delayed)::bigint retryable,
                      (count(*) filter (where d.due > now() + rowlock.later_after()) * 100 / v_delayed)::bigint later
               from rowlock.delayed d tablesample system (v_delayed) repeatable (0) group by d.queue) d on d.queue = q.id;
end $$;

CREATE FUNCTION rowlock.beat(instance bigint, held integer, allocated integer, allocation bigint, wants integer, lows bigint[], sleeps boolean, service_ms real) RETURNS TABLE(gone boolean, allocation_number bigint, workers integer, paused boolean, generation bigint, newest_k bigint, least_ks bigint[], canceled bigint[], peers integer, noted_k bigint, noted_xid bigint, xmin bigint, allocation_missed boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare v_queue int; v_live int; v_behind bigint; v_noted bigint; v_missed boolean;
begin
  perform rowlock.demand_read_committed();
  -- A note for the exact watermark, as in rowlock.care(): k first, then the xid, which the lock draws.
  select last_value + is_called::int into v_noted from rowlock.k_seq;
  -- Until this beat is committed nobody ends the instance.
  select i.queue into v_queue from rowlock.instance i where i.id = $1 and i.ended_at is null
      for key share skip locked;
  if not found and not rowlock.ends($1) then
    return query select true, 0::bigint, 0, false, 0::bigint, 0::bigint, '{}'::bigint[], '{}'::bigint[], 1,
        0::bigint, 0::bigint, 0::bigint, null::boolean; return;
  end if;
  perform rowlock.demand_worker(v_queue);
  -- A failover may rewind k_seq below where claims start: they would not see what gets such a k. A low far
  -- above it is none of ours.
  select max(x) - s.last_value into v_behind from unnest($6) x, rowlock.k_seq s group by s.last_value;
  if v_behind > rowlock.furthest_low() or cardinality($6) is distinct from 16
      or array_position($6, null) is not null then
    raise exception 'the watermarks of instance % are no watermarks of this queue', $1
        using errcode = 'RL005',
      hint = 'The sequence of k may have been taken back by a failover: end the instance, and join again.';
  end if;
  -- By the clock that never waits: a transaction that was begun long ago would give its beat an old time
  -- (R4).
  insert into rowlock.beat (n, at, instance, queue, held, allocated, allocation, wants, service_ms, lows)
    values (nextval('rowlock.beat_seq'), clock_timestamp(), $1, v_queue, $2, $3, $4, $5, $8, $6);
  if v_behind > 0 then perform nextval('rowlock.k_seq') from generate_series(1, least(v_behind, 10000));
      end if;
  -- About four passes a second for the whole queue, however many instances beat (a full read in each beat would be quadratic).
  select count(*) into v_live from rowlock.instance i where i.queue = v_queue and i.ended_at is null;
  if random() * v_live < 4 then v_missed := not rowlock.allocate(v_queue); end if;
  if $7 then
    update rowlock.queue q set bell_until = now() + interval '1 minute' where q.id = v_queue and q.bell_until < now() + interval '5 seconds';
  end if;
  return query
    select false, coalesce(a.number, $4), coalesce(a.workers, $3), q.paused, q.generation,
           (select last_value from rowlock.k_seq), rowlock.least_k(v_queue, $6),
           array(select c.id from rowlock.cancel_request c join rowlock.lease l on l.instance = $1
                 where exists (select 1 from unnest(l.firsts, l.ns) u(f, n) where c.id >= u.f and c.id < u.f + u.n) and c.id <> all (l.settled) limit 1000),
           v_live, v_noted, pg_current_xact_id()::text::bigint,
               pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
           v_missed
    from rowlock.queue q
    left join lateral (select x.number, x.workers from rowlock.allocation x where x.instance = $1 and x.number > $4 and x.at > now() - interval '1 minute' order by x.number desc limit 1) a on true
    where q.id = v_queue;
end $_$;

CREATE FUNCTION rowlock.caller() RETURNS name
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select coalesce(nullif(current_setting('role', true), 'none')::name, session_user)
$$;

CREATE FUNCTION rowlock.cancel(id bigint) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare t record; r rowlock.ready; d rowlock.delayed; k bigint;
begin
  perform rowlock.demand_read_committed();
  select x.queue, x.priority into t from rowlock.every_task x where x.id = $1;
  if not found then return null; end if;
  if exists (select 1 from rowlock.queue q where q.id = t.queue and q.guarded
      and not rowlock.may('producer', q.id)) then
    perform rowlock.refuse_right('producer', (select q.name from rowlock.queue q where q.id = t.queue));
  end if;
  insert into rowlock.cancel_request (id) values ($1) on conflict do nothing;
  for turn in 1 .. 3 loop
    delete from rowlock.delayed x where x.id = $1 returning * into d;
    if found then
      perform rowlock.write_receipt(t.queue, null, 3::smallint, array[$1], array[d.attempt]);
      delete from rowlock.cancel_request c where c.id = $1; return 'cancelled';
    end if;
    if exists (select 1 from rowlock.lease l, unnest(l.firsts, l.ns) u(f, n) where $1 >= u.f and $1 < u.f + u.n and $1 <> all (l.settled)) then return 'requested'; end if;
    select x.* into r from rowlock.find_ready(t.queue, t.priority, $1) y
      join rowlock.ready x on x.queue = y.queue and x.shard = y.shard and x.lane = y.lane and x.priority = y.priority and x.k = y.k for update of x;
    if found and $1 >= r.id and $1 < r.id + r.n then
      -- The range loses the task: what lies before it keeps the row's place, what lies behind it gets a new k.
      if $1 > r.id then
        update rowlock.ready x set n = $1 - r.id where x.queue = r.queue and x.shard = r.shard and x.lane = r.lane and x.priority = r.priority and x.k = r.k;
      else
        delete from rowlock.ready x where x.queue = r.queue and x.shard = r.shard and x.lane = r.lane and x.priority = r.priority and x.k = r.k;
      end if;
      if $1 < r.id + r.n - 1 then
        k := nextval('rowlock.k_seq');
        insert into rowlock.ready (queue, shard, lane, priority, since, k, id, n, attempt, fresh) values (r.queue, k & 3, r.lane, r.priority, r.since, k, $1 + 1, r.id + r.n - 1 - $1, r.attempt, r.fresh);
      end if;
      perform rowlock.write_receipt(t.queue, null, 3::smallint, array[$1], array[r.attempt]);
      delete from rowlock.cancel_request c where c.id = $1; return 'cancelled';
    end if;
    -- One statement sees a task in exactly one place; between those above it may have moved.
    exit when rowlock.task_state($1) in ('completed', 'dead', 'cancelled');
  end loop;
  delete from rowlock.cancel_request c where c.id = $1;
  return 'finished';
end $_$;

CREATE FUNCTION rowlock.cancel_all(ids bigint[]) RETURNS TABLE(id bigint, outcome text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_column
begin
  for id in select distinct u.id from unnest($1) u(id) order by 1 loop
    outcome := rowlock.cancel(id);
    return next;
  end loop;
end $_$;

CREATE FUNCTION rowlock.care(low timestamp with time zone, most integer, tidies boolean, looks boolean) RETURNS TABLE(moved integer, more boolean, next timestamp with time zone, k bigint, xid bigint, xmin bigint, at timestamp with time zone, instances bigint[], beats bigint[])
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare v_k bigint; v_at timestamptz;
begin
  select s.last_value + s.is_called::int, clock_timestamp() into v_k, v_at from rowlock.k_seq s;
  if $3 then perform rowlock.tidy(); end if;
  return query select p.*, v_k, pg_current_xact_id()::text::bigint, pg_snapshot_xmin(pg_current_snapshot())::text::bigint, v_at, l.* from rowlock.promote($1, $2) p,
    (select array_agg(y.instance), array_agg(y.beat) from rowlock.pulses() y where $4) l;
end $_$;

CREATE TABLE rowlock.queue (
    id integer NOT NULL,
    name text NOT NULL,
    owner text DEFAULT ''::text NOT NULL,
    generation bigint DEFAULT 0 NOT NULL,
    policy json NOT NULL,
    max_attempts smallint NOT NULL,
    total_workers integer NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    backlog_limit bigint NOT NULL,
    payload_limit integer NOT NULL,
    backlog_full boolean DEFAULT false NOT NULL,
    later_full boolean DEFAULT false NOT NULL,
    guarded boolean DEFAULT false NOT NULL,
    room_until integer DEFAULT 0 NOT NULL,
    bell_until timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    range_size smallint DEFAULT 128 NOT NULL,
    keep_completed interval NOT NULL,
    keep_dead interval NOT NULL,
    keep_cancelled interval NOT NULL,
    CONSTRAINT queue_backlog_limit_check CHECK ((backlog_limit > 0)),
    CONSTRAINT queue_max_attempts_check CHECK (((max_attempts >= 1) AND (max_attempts <= 1000))),
    CONSTRAINT queue_name_check CHECK ((name ~ '^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$'::text)),
    CONSTRAINT queue_payload_limit_check CHECK ((payload_limit > 0)),
    CONSTRAINT queue_range_size_check CHECK (((range_size >= 1) AND (range_size <= 256))),
    CONSTRAINT queue_total_workers_check CHECK (((total_workers >= 0) AND (total_workers <= 10000)))
);

CREATE FUNCTION rowlock.check_added(q rowlock.queue, setting text, added bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare noted text[] := string_to_array(current_setting(setting, true),
    ' '); xid text := pg_current_xact_id()::text;
begin
  if noted[1] is distinct from xid then perform set_config(setting, xid || ' ' || added, true);
  elsif added - noted[2]::bigint >= q.backlog_limit then perform rowlock.refuse_full(q);
  end if;
end $$;

CREATE FUNCTION rowlock.check_options(options jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare bad text;
begin
  if jsonb_typeof(options) is distinct from 'object' then
    raise exception 'options must be a JSON object' using errcode = 'RL005', hint = 'Leave them out, or pass for example {"priority": 0}.';
  end if;
  select key into bad from jsonb_object_keys(options) key where key not in ('priority', 'run_at', 'delay', 'max_attempts', 'bell') limit 1;
  if found then
    raise exception 'unknown option "%"', bad using errcode = 'RL002', hint = 'Options are priority, run_at, delay, max_attempts and bell.';
  end if;
  if options ? 'run_at' and options ? 'delay' then
    raise exception 'run_at and delay exclude each other' using errcode = 'RL005', hint = 'Give one of them.';
  end if;
  if options ? 'priority' and (options->>'priority') !~ '^[0-3]$' then
    raise exception 'priority must be 0, 1, 2 or 3' using errcode = 'RL005', hint = '0 is claimed first; the default is 1.';
  end if;
  if options ? 'max_attempts' and not ((options->>'max_attempts') ~ '^[0-9]{1,4}$' and (options->>'max_attempts')::int between 1 and 1000) then
    raise exception 'max_attempts must be a whole number from 1 to 1000' using errcode = 'RL005', hint = 'Leave it out for the queue''s own.';
  end if;
  if options ? 'bell' and jsonb_typeof(options->'bell') <> 'boolean' then
    raise exception 'bell must be true or false' using errcode = 'RL005', hint = 'false enqueues without NOTIFY, for PREPARE TRANSACTION.';
  end if;
end $_$;

CREATE FUNCTION rowlock.claim(instance bigint, want integer, lows bigint[], start integer, token bigint) RETURNS TABLE(firsts bigint[], ns smallint[], attempts smallint[], priorities smallint[], contended boolean, newest_k bigint, least_ks bigint[])
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare
  v_queue int; v_guarded boolean; looked int; taken bigint := 0; v_newest bigint;
  l_prios smallint[]; l_places tid[]; l_ids bigint[]; l_ns smallint[]; l_attempts smallint[];
begin
  perform rowlock.demand_read_committed();
  if not exists (select 1 from rowlock.instance i where i.id = $1 and i.ended_at is null) then
    raise exception 'instance % is gone', $1 using errcode = 'RL006', hint = 'Join again.';
  end if;
  if exists (select 1 from rowlock.lease l where l.token = $5) then
    return query select l.firsts, l.ns, l.attempts, l.priorities, false, 0::bigint, '{}'::bigint[] from rowlock.lease l where l.token = $5 and l.instance = $1; return;
  end if;
  select i.queue, q.guarded into v_queue, v_guarded from rowlock.instance i
      join rowlock.queue q on q.id = i.queue
    where i.id = $1 and not q.paused and not i.drains;
  if not found then return query select '{}'::bigint[], '{}'::smallint[], '{}'::smallint[], '{}'::smallint[], false, 0::bigint, '{}'::bigint[]; return; end if;
  if v_guarded then perform rowlock.demand_worker(v_queue); end if;
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
    if not found and not rowlock.ends($1) then
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
end $_$;

CREATE FUNCTION rowlock.clear_queue(queue integer) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
declare cancelled bigint;
begin
  with ready as (delete from rowlock.ready r where r.queue = $1 returning r.id, r.n, r.attempt),
  delayed as (delete from rowlock.delayed d where d.queue = $1 returning d.id, d.attempt),
  lease as (delete from rowlock.lease l where l.queue = $1 returning l.firsts, l.ns, l.attempts, l.settled),
  unfinished as (
    select id, n, attempt from ready union all select id, 1::smallint, attempt from delayed
    union all select g, 1::smallint, u.attempt from lease l, unnest(l.firsts, l.ns, l.attempts) u(f, n, attempt), generate_series(u.f, u.f + u.n - 1) g where g <> all (l.settled)),
  written as (
    insert into rowlock.receipt (queue, state, firsts, ns, attempts) select $1, 3, array_agg(o.id), array_agg(o.n), array_agg(o.attempt) from unfinished o having count(*) > 0)
  select coalesce(sum(o.n), 0) into cancelled from unfinished o;
  with dead as (delete from rowlock.dead d where d.queue = $1 returning d.id, d.attempt)
  insert into rowlock.receipt (queue, state, firsts, ns, attempts) select $1, 2, array_agg(d.id), array_agg(1::smallint), array_agg(d.attempt) from dead d having count(*) > 0;
  return cancelled;
end $_$;

CREATE TABLE rowlock.ready (
    queue integer NOT NULL,
    shard smallint NOT NULL,
    lane smallint DEFAULT 0 NOT NULL,
    priority smallint NOT NULL,
    since integer DEFAULT ((date_part('epoch'::text, now()) - (1704067200)::double precision))::integer NOT NULL,
    k bigint NOT NULL,
    id bigint NOT NULL,
    n smallint NOT NULL,
    attempt smallint NOT NULL,
    fresh boolean NOT NULL,
    ring boolean DEFAULT true NOT NULL
)
WITH (fillfactor='90', vacuum_truncate=off, autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='10000', autovacuum_vacuum_insert_scale_factor='0', autovacuum_vacuum_insert_threshold='1000000', autovacuum_vacuum_cost_delay='0', autovacuum_analyze_scale_factor='0', autovacuum_analyze_threshold='1000000');

CREATE FUNCTION rowlock.commit_late(r rowlock.ready) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
  update rowlock.ready y set k = nextval('rowlock.k_seq')
    where y.queue = r.queue and y.shard = r.shard and y.lane = r.lane and y.priority = r.priority and y.k = r.k;
  return current_setting('rowlock.bell', true) is distinct from 'off'
    and exists (select 1 from rowlock.queue q where q.id = r.queue and q.bell_until > clock_timestamp());
end $$;

CREATE FUNCTION rowlock.declare_queue(name text, owner text, generation bigint, policy json, max_attempts integer, total_workers integer, paused boolean, backlog_limit bigint, payload_limit integer, keep_completed interval, keep_dead interval, keep_cancelled interval, adopts text DEFAULT NULL::text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_column
declare v rowlock.queue;
begin
  -- It becomes a part of commands that people are told to run.
  if $2 !~ '^[-a-z0-9./ ]{1,200}$' then
    raise exception 'this cannot be the owner of queue "%"', $1 using errcode = 'RL005', hint = 'Use up to 200 of a-z, 0-9, "-", ".", "/" and spaces.';
  end if;
  select * into v from rowlock.queue q where q.name = $1 for update;
  if found and v.owner <> $2 and v.owner is distinct from $13 then
    raise exception 'queue "%" belongs to %', $1, v.owner using errcode = 'RL008', hint = 'Choose another queueName, or adopt the queue.';
  end if;
  if not found then
    insert into rowlock.queue (name, owner, generation, policy, max_attempts, total_workers, paused,
        backlog_limit, payload_limit, keep_completed, keep_dead, keep_cancelled, room_until, guarded)
      values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, rowlock.room_until(), exists (select 1
          from rowlock.access a where a.queue <> 0)) on conflict (name) do nothing returning * into v;
    -- Here, so that nobody waits for somebody else's first time.
    insert into rowlock.mutex (duty, queue) select duty, v.id from generate_series(5, 6) duty
        where v.id is not null on conflict do nothing;
    if v.id is null then return rowlock.declare_queue($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);
        end if;
  elsif (v.owner, v.generation, v.policy::text, v.max_attempts, v.total_workers, v.paused, v.backlog_limit, v.payload_limit, v.keep_completed, v.keep_dead, v.keep_cancelled)
      is distinct from ($2, $3, $4::text, $5, $6, $7, $8, $9, $10, $11, $12) then
    update rowlock.queue q set owner = $2, generation = $3, policy = $4, max_attempts = $5, total_workers = $6, paused = $7, backlog_limit = $8, payload_limit = $9,
      keep_completed = $10, keep_dead = $11, keep_cancelled = $12 where q.id = v.id;
  end if;
  return v.id;
end $_$;

CREATE FUNCTION rowlock.delete_queue(queue text, force boolean DEFAULT false) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '1s'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare v rowlock.queue; i record; living bigint; cancelled bigint := 0;
begin
  perform rowlock.demand_read_committed();
  select * into v from rowlock.queue q where q.name = $1;
  if not found then perform rowlock.refuse_unknown_queue($1); end if;
  select count(*) into living from rowlock.instance x where x.queue = v.id and x.ended_at is null;
  if living > 0 and $2 is not true then
    raise exception 'queue "%" has % instances', $1, living using errcode = 'RL009', hint = 'Delete its TaskQueue and wait until they have left; force => true ends them.';
  end if;
  begin
    for i in select x.id from rowlock.instance x where x.queue = v.id and x.ended_at is null order by x.id loop
      perform 1 from rowlock.instance x where x.id = i.id for update;
      update rowlock.instance x set ended_at = now(), gone = true where x.id = i.id and x.ended_at is null;
    end loop;
    -- Most of it before the lock, which waits for every transaction that enqueued or moved something, and keeps new ones waiting meanwhile.
    if $2 then cancelled := rowlock.clear_queue(v.id); end if;
    lock table rowlock.queue in access exclusive mode;
  exception when lock_not_available then
    raise exception 'queue "%" is being used', $1 using errcode = 'RL009', hint = 'A transaction that enqueued or a statement of an instance is open: try again when it has ended.';
  end;
  if $2 is not true and (exists (select 1 from rowlock.ready r where r.queue = v.id) or exists (select 1 from rowlock.delayed d where d.queue = v.id)
      or exists (select 1 from rowlock.lease l where l.queue = v.id)) then
    raise exception 'queue "%" has unfinished tasks', $1 using errcode = 'RL009', hint = 'Let them be done; force => true cancels them all.';
  end if;
  cancelled := cancelled + rowlock.clear_queue(v.id);
  delete from rowlock.cancel_request c using rowlock.every_task t where t.id = c.id and t.queue = v.id;
  delete from rowlock.task_kept t where t.queue = v.id;
  delete from rowlock.mutex m where m.queue = v.id;
  delete from rowlock.queue q where q.id = v.id;
  return cancelled;
end $_$;

CREATE FUNCTION rowlock.demand_read_committed() RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'this verb needs READ COMMITTED' using errcode = 'RL007', hint = 'Begin the transaction with ISOLATION LEVEL READ COMMITTED.';
  end if;
end $$;

CREATE FUNCTION rowlock.demand_worker(queue integer) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare v_name text;
begin
  select q.name into v_name from rowlock.queue q where q.id = $1 and q.guarded;
  if found and not rowlock.may('worker', $1) then perform rowlock.refuse_right('worker', v_name); end if;
end $_$;

CREATE FUNCTION rowlock.drain(instance bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
  perform rowlock.demand_worker(i.queue) from rowlock.instance i where i.id = $1;
  update rowlock.instance i set drains = true where i.id = $1 and i.ended_at is null and not i.drains;
end $_$;

CREATE FUNCTION rowlock.due_of(options jsonb) RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "DateStyle" TO 'ISO, YMD'
    SET "TimeZone" TO 'UTC'
    SET "IntervalStyle" TO 'postgres'
    AS $_$
declare delay interval; due timestamptz;
begin
  if options ? 'delay' then
    begin
      delay := (options->>'delay')::interval;
    exception when data_exception then
      raise exception 'delay is not an interval' using errcode = 'RL005', hint = 'For example "15 seconds" or "PT15S".';
    end;
    if delay < interval '0' then
      raise exception 'delay must not be negative' using errcode = 'RL005', hint = 'Leave it out to run the task now.';
    end if;
    begin
      -- Of a transaction that is open for a while, from this moment on.
      due := clock_timestamp() + delay;
    exception when data_exception then
      due := 'infinity';
    end;
  elsif options ? 'run_at' then
    -- Without an offset it would be another moment in each session's time zone; "tomorrow" another one each
    -- day.
    if (options->>'run_at') !~ ('^[0-9]{4,5}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?'
        || ' ?(Z|[+-][0-9]{2}(:?[0-9]{2})?)$') then
      raise exception 'run_at is not a time with an offset from UTC' using errcode = 'RL005',
          hint = 'For example "2030-01-31T08:00:00Z" or "2030-01-31T09:00:00+01:00".';
    end if;
    begin
      due := greatest((options->>'run_at')::timestamptz, now());
    exception when data_exception then
      raise exception 'run_at is not a time' using errcode = 'RL005', hint = 'For example "2030-01-31T08:00:00Z".';
    end;
  end if;
  -- Clients know no infinity, and few a year with five digits.
  if due > now() + interval '100 years' then
    raise exception 'the task would be due in more than 100 years' using errcode = 'RL005',
        hint = 'The latest possible time is 100 years from now.';
  end if;
  return case when due > clock_timestamp() then due end;
end $_$;

CREATE FUNCTION rowlock.ends(instance bigint) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
  if exists (select 1 from rowlock.instance i where i.id = $1 and i.ended_at is null) then
    raise exception 'instance % is being ended', instance using errcode = 'lock_not_available', hint = 'Ask again.';
  end if;
  return false;
end $_$;

CREATE FUNCTION rowlock.enqueue(queue text, type text, payload json, options json) RETURNS bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue($1, $2, $3, $4::pg_catalog.jsonb) $_$;

CREATE FUNCTION rowlock.enqueue(queue text, type text, payload json, options jsonb DEFAULT '{}'::jsonb) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  q rowlock.queue; prio smallint := 1; due timestamptz; attempts smallint; v_k bigint;
  v_id bigint := ((floor(date_part('epoch', clock_timestamp()))::bigint - 1704067200) << 31) | ((nextval('rowlock.chunk_seq') & 8388607) << 8);
begin
  select * into q from rowlock.queue where name = $1;
  if not found then perform rowlock.refuse_unknown_queue($1); end if;
  if q.guarded and not rowlock.may('producer', q.id) then perform rowlock.refuse_right('producer', q.name);
      end if;
  if (length($2) between 1 and 200 and $2 !~ '[[:cntrl:]]') is not true then
      perform rowlock.refuse_type(coalesce($2, '')); end if;
  if payload is null then perform rowlock.refuse_null('payload'); end if;
  if octet_length(payload::text) > q.payload_limit then
    perform rowlock.refuse_payload(q, octet_length(payload::text));
  end if;
  if q.backlog_full then
    perform rowlock.refuse_full(q);
  end if;
  -- What a transaction has enqueued itself is in no flag yet.
  if pg_stat_get_xact_tuples_inserted('rowlock.ready'::regclass)
      + pg_stat_get_xact_tuples_inserted('rowlock.delayed'::regclass) >= q.backlog_limit then
    perform rowlock.check_added(q, 'rowlock.added',
      pg_stat_get_xact_tuples_inserted('rowlock.ready'::regclass)
        + pg_stat_get_xact_tuples_inserted('rowlock.delayed'::regclass));
  end if;
  if v_id >> 31 >= q.room_until then perform rowlock.make_room(); end if;
  if options <> '{}' then
    perform rowlock.check_options(options);
    prio := coalesce((options->>'priority')::smallint, prio);
    attempts := (options->>'max_attempts')::smallint;
    due := rowlock.due_of(options);
    if q.later_full and due > now() + rowlock.later_after() then perform rowlock.refuse_later(q); end if;
    if (options->>'bell')::boolean is false then perform set_config('rowlock.bell', 'off', true); q.bell_until := '-infinity'; end if;
  end if;
  -- The task first: the transaction has its xid before it draws k, which the exact watermark relies on (R6).
  insert into rowlock.task (id, queue, priority, max_attempts, type, payload) values (v_id, q.id, prio, attempts, $2, $3);
  if due is null then
    v_k := nextval('rowlock.k_seq');
    insert into rowlock.ready (queue, shard, priority, since, k, id, n, attempt, fresh, ring) values (q.id, v_k & 3, prio, (v_id >> 31)::int, v_k, v_id, 1, 0, true, q.bell_until > now());
  else
    insert into rowlock.delayed (id, queue, priority, attempt, run_at, due) values (v_id, q.id, prio, 0, due, due);
  end if;
  return v_id;
end $_$;

CREATE FUNCTION rowlock.enqueue(queue text, type text, payload json, options text) RETURNS bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue($1, $2, $3, rowlock.as_options($4)) $_$;

CREATE FUNCTION rowlock.enqueue(queue text, type text, payload jsonb, options json) RETURNS bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue($1, $2, $3::pg_catalog.json, $4::pg_catalog.jsonb) $_$;

CREATE FUNCTION rowlock.enqueue(queue text, type text, payload jsonb, options jsonb DEFAULT '{}'::jsonb) RETURNS bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue($1, $2, $3::pg_catalog.json, $4) $_$;

CREATE FUNCTION rowlock.enqueue(queue text, type text, payload jsonb, options text) RETURNS bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue($1, $2, $3::pg_catalog.json, rowlock.as_options($4)) $_$;

CREATE FUNCTION rowlock.enqueue(queue text, type text, payload text, options json) RETURNS bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue($1, $2, rowlock.as_json($3), $4::pg_catalog.jsonb) $_$;

CREATE FUNCTION rowlock.enqueue(queue text, type text, payload text, options jsonb DEFAULT '{}'::jsonb) RETURNS bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue($1, $2, rowlock.as_json($3), $4) $_$;

CREATE FUNCTION rowlock.enqueue(queue text, type text, payload text, options text) RETURNS bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue($1, $2, rowlock.as_json($3), rowlock.as_options($4)) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads json[], options json) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, $3, $4::pg_catalog.jsonb) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads json[], options jsonb DEFAULT '{}'::jsonb) RETURNS SETOF bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  q rowlock.queue; prio smallint := 1; due timestamptz; attempts smallint; n int := cardinality(payloads); size int;
  bases bigint[]; largest int; missing bigint; added bigint;
  second bigint := (floor(date_part('epoch', clock_timestamp()))::bigint - 1704067200) << 31;
begin
  select * into q from rowlock.queue where name = $1;
  if not found then perform rowlock.refuse_unknown_queue($1); end if;
  if q.guarded and not rowlock.may('producer', q.id) then perform rowlock.refuse_right('producer', q.name);
      end if;
  if (length($2) between 1 and 200 and $2 !~ '[[:cntrl:]]') is not true then
      perform rowlock.refuse_type(coalesce($2, '')); end if;
  if n > rowlock.enqueue_many_limit() then
    raise exception '% payloads in one call: at most % are taken', n, rowlock.enqueue_many_limit() using errcode = 'RL005', hint = 'Call it again for the rest, in the same transaction.';
  end if;
  if n is null then perform rowlock.refuse_null('array of payloads'); end if;
  select max(octet_length(p::text)), min(o) filter (where p is null) into largest, missing from unnest(payloads) with ordinality p(p, o);
  if missing is not null then perform rowlock.refuse_null(format('payload %s of %s', missing, n)); end if;
  if largest > q.payload_limit then
    perform rowlock.refuse_payload(q, largest);
  end if;
  if q.backlog_full or n > q.backlog_limit then
    perform rowlock.refuse_full(q);
  end if;
  if second >> 31 >= q.room_until then perform rowlock.make_room(); end if;
  options := coalesce(options, '{}');
  perform rowlock.check_options(options);
  prio := coalesce((options->>'priority')::smallint, prio);
  attempts := (options->>'max_attempts')::smallint;
  due := rowlock.due_of(options);
  if q.later_full and due > now() + rowlock.later_after() then perform rowlock.refuse_later(q); end if;
  if (options->>'bell')::boolean is false then perform set_config('rowlock.bell', 'off', true); q.bell_until := '-infinity'; end if;
  size := q.range_size;
  bases := array(select second | ((nextval('rowlock.chunk_seq') & 8388607) << 8) from generate_series(1, (n + size - 1) / size));
  insert into rowlock.task (id, queue, priority, max_attempts, type, payload)
    select bases[(p.o - 1) / size + 1] + (p.o - 1) % size, q.id, prio, attempts, $2, p.p from unnest(payloads) with ordinality p(p, o);
  added := pg_stat_get_xact_tuples_inserted((select t.tableoid from rowlock.task t where t.id = bases[1]));
  if added > q.backlog_limit then perform rowlock.check_added(q, 'rowlock.added_many', added); end if;
  if due is null then
    insert into rowlock.ready (queue, shard, priority, k, id, n, attempt, fresh, ring)
      select q.id, b.k & 3, prio, b.k, b.base, least(size, n - (b.o - 1) * size), 0, true, q.bell_until > now()
      from (select u.base, u.o, nextval('rowlock.k_seq') k from unnest(bases) with ordinality u(base, o) order by u.o) b;
  else
    insert into rowlock.delayed (id, queue, priority, attempt, run_at, due)
      select bases[(o - 1) / size + 1] + (o - 1) % size, q.id, prio, 0, due, due from generate_series(1, n) o;
  end if;
  return query select bases[(o - 1) / size + 1] + (o - 1) % size from generate_series(1, n) o;
end $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads json[], options text) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, $3, rowlock.as_options($4)) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads jsonb[], options json) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, $3::pg_catalog.json[], $4::pg_catalog.jsonb) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads jsonb[], options jsonb DEFAULT '{}'::jsonb) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, $3::pg_catalog.json[], $4) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads jsonb[], options text) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, $3::pg_catalog.json[], rowlock.as_options($4)) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads text[], options json) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, rowlock.as_json($3), $4::pg_catalog.jsonb) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads text[], options jsonb DEFAULT '{}'::jsonb) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, rowlock.as_json($3), $4) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads text[], options text) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, rowlock.as_json($3), rowlock.as_options($4)) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads json, options json) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, rowlock.as_payloads($3), $4::pg_catalog.jsonb) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads json, options jsonb DEFAULT '{}'::jsonb) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, rowlock.as_payloads($3), $4) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads json, options text) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, rowlock.as_payloads($3), rowlock.as_options($4)) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads jsonb, options json) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, rowlock.as_payloads($3::pg_catalog.json), $4::pg_catalog.jsonb) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads jsonb, options jsonb DEFAULT '{}'::jsonb) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, rowlock.as_payloads($3::pg_catalog.json), $4) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads jsonb, options text) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, rowlock.as_payloads($3::pg_catalog.json), rowlock.as_options($4)) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads text, options json) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, rowlock.as_payloads($3), $4::pg_catalog.jsonb) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads text, options jsonb DEFAULT '{}'::jsonb) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, rowlock.as_payloads($3), $4) $_$;

CREATE FUNCTION rowlock.enqueue_many(queue text, type text, payloads text, options text) RETURNS SETOF bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue_many($1, $2, rowlock.as_payloads($3), rowlock.as_options($4)) $_$;

CREATE FUNCTION rowlock.enqueue_many_limit() RETURNS integer
    LANGUAGE sql IMMUTABLE
    RETURN 100000;

CREATE FUNCTION rowlock.extend_partitions(ahead interval DEFAULT '3 days'::interval) RETURNS double precision
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '100ms'
    SET "DateStyle" TO 'ISO, YMD'
    SET "TimeZone" TO 'UTC'
    AS $_$
declare
  parent text; width interval; lo timestamptz; hi timestamptz; child text; hours double precision := 'infinity';
begin
  if not rowlock.try_mutex(1, 0) then return null; end if;
  if ahead > interval '31 days' then
    raise exception 'partitions are made at most 31 days ahead' using errcode = 'RL005',
        hint = 'Each is a table: three days, the default, are enough.';
  end if;
  foreach parent in array array['task', 'receipt', 'result', 'failure', 'beat', 'allocation'] loop
    width := case when parent in ('beat', 'allocation') then interval '6 hours' else rowlock.partition_width() end;
    select to_timestamp(max(substring(c.relname from '_([0-9]+)$')::bigint)) into lo
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = format('rowlock.%I', parent)::regclass;
    -- The first partition reaches back two days: a clock that steps back finds its place.
    if lo is null then lo := date_trunc('hour', now()) - interval '2 days'; hi := date_trunc('hour', now()) + width;
    else hi := lo + width; end if;
    while lo < now() + ahead loop
      -- Nobody cared for longer than partitions were made ahead: one takes in all that time.
      hi := greatest(hi, date_trunc('hour', now()) + width);
      child := format('%s_%s', parent, floor(date_part('epoch', hi))::bigint);
      execute format('create table rowlock.%I (like rowlock.%I including defaults including constraints)', child, parent);
      if parent = 'task' then
        execute format('alter table rowlock.task attach partition rowlock.%I for values from (%s) to (%s)', child, rowlock.id_at(lo), rowlock.id_at(hi));
      else
        execute format('alter table rowlock.%I attach partition rowlock.%I for values from (%L) to (%L)', parent, child, lo, hi);
      end if;
      lo := hi; hi := hi + width;
    end loop;
    hours := least(hours, date_part('epoch', lo - now()) / 3600);
  end loop;
  -- For enqueue, which makes partitions itself where nobody has. A row that somebody changes is left for the
  -- next time.
  update rowlock.queue q set room_until = rowlock.room_until() where q.id in (
    select x.id from rowlock.queue x where x.room_until <> rowlock.room_until()
        for no key update skip locked);
  return hours;
end $_$;

CREATE FUNCTION rowlock.failures(id bigint) RETURNS TABLE(at timestamp with time zone, attempt smallint, instance text, error text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
  select f.at, f.attempt, coalesce(i.name, ''), f.error
  from (select at, id, attempt, instance, error from rowlock.failure where id = $1 union all select at, id, attempt, instance, error from rowlock.failure_kept where id = $1) f
  join rowlock.every_task t on t.id = $1 join rowlock.queue q on q.id = t.queue and (not q.guarded
      or rowlock.may('reader', q.id))
  left join rowlock.instance i on i.id = f.instance order by f.at, f.attempt
$_$;

CREATE FUNCTION rowlock."fetch"(token bigint, ids bigint[]) RETURNS TABLE(id bigint, type text, payload text, max_attempts smallint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
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
end $_$;

CREATE FUNCTION rowlock.find_ready(queue integer, priority smallint, id bigint) RETURNS SETOF rowlock.ready
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare lo bigint; hi bigint; middle bigint; seen record; lows bigint[] := coalesce(rowlock.published_lows($1), array_fill(0::bigint, array[16]));
begin
  for s in 0 .. 3 loop
    lo := lows[$2 * 4 + s + 1];
    select r.k into hi from rowlock.ready r where r.queue = $1 and r.shard = s::smallint and r.lane = 0 and r.priority = $2 and r.k >= lo order by r.k desc limit 1;
    continue when not found;
    -- As near as 4096 chunks: of those enqueued at the same time some come earlier than an older one.
    while hi - lo > 256 loop
      middle := lo + (hi - lo) / 2;
      select r.k, r.id into seen from rowlock.ready r where r.queue = $1 and r.shard = s::smallint and r.lane = 0 and r.priority = $2 and r.k >= middle order by r.k limit 1;
      if seen.id < $3 - (4096 << 8) then lo := seen.k; else hi := middle; end if;
    end loop;
    return query select x.* from (
        select r.* from rowlock.ready r where r.queue = $1 and r.shard = s::smallint and r.lane = 0 and r.priority = $2 and r.k >= lo order by r.k limit 4096) x
      where $3 >= x.id and $3 < x.id + x.n limit 1;
    if found then return; end if;
  end loop;
  return query select r.* from rowlock.ready r where r.queue = $1 and r.priority = $2 and r.id <= $3 and r.id > $3 - 256 and $3 < r.id + r.n limit 1;
end $_$;

CREATE FUNCTION rowlock.furthest_low() RETURNS bigint
    LANGUAGE sql IMMUTABLE
    RETURN 1000000;

CREATE FUNCTION rowlock.grant_role(role name, duty text, queues text[] DEFAULT NULL::text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_column
declare unknown text;
begin
  if $2 is null or $2 not in ('producer', 'worker', 'reader') then
    raise exception 'unknown duty "%"', $2 using errcode = 'RL005',
        hint = 'Duties are producer, worker and reader.';
  end if;
  if not exists (select 1 from pg_roles r where r.rolname = $1) then
    raise exception 'there is no role "%"', $1 using errcode = 'RL005',
        hint = format('Create it first: create role %I login;', $1);
  end if;
  select u.name into unknown from unnest($3) u(name) where not exists (select 1 from rowlock.queue q
      where q.name = u.name) limit 1;
  if found then perform rowlock.refuse_unknown_queue(unknown); end if;
  delete from rowlock.access a where a.role = $1 and a.duty = $2;
  if $3 is null then insert into rowlock.access values ($1, $2, 0);
  else insert into rowlock.access select distinct $1, $2, q.id from rowlock.queue q where q.name = any ($3);
      end if;
  perform rowlock.renew_grants();
end $_$;

CREATE FUNCTION rowlock.hand_back(instance bigint, queue integer, token bigint) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
declare u record;
begin
  select * into u from rowlock.unsettled($3);
  if u.ids is not null then
    perform rowlock.record($2, $1, array_fill(1, array[cardinality(u.ids)]), u.ids,
      (select array_agg(case when c.id is null then 5 else 6 end::smallint order by x.p) from unnest(u.ids) with ordinality x(id, p) left join rowlock.cancel_request c on c.id = x.id),
      u.attempts, u.priorities, '{0}', '{}');
  end if;
  delete from rowlock.lease x where x.token = $3;
  return coalesce(cardinality(u.ids), 0);
end $_$;

CREATE FUNCTION rowlock.hand_back_strays(instance bigint, known bigint[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
declare l record; back int := 0;
begin
  perform rowlock.demand_read_committed();
  for l in select x.token, x.queue from rowlock.lease x
      where x.instance = $1 and x.at < now() - interval '1 minute' and x.token <> all ($2) order by x.token for update loop
    back := back + rowlock.hand_back($1, l.queue, l.token);
  end loop;
  return back;
end $_$;

CREATE FUNCTION rowlock.has_room() RETURNS boolean
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select rowlock.room_until() > date_part('epoch', clock_timestamp()) - 1704067200::float8
$$;

CREATE FUNCTION rowlock.holding(queue integer) RETURNS TABLE(instance bigint, drains boolean, wants integer, granted integer, holds integer, at_most integer)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
  select i.id, i.drains, coalesce(least(b.wants, i.capacity), 0),
         case when b.n is null then 0 when a.number > b.allocation then a.workers else b.allocated end,
         h.holds, case when b.at < now() - interval '5 seconds' then greatest(h.holds, i.capacity) else h.holds end
  from rowlock.instance i
  left join lateral (select x.* from rowlock.beat x where x.instance = i.id and x.at > now() - interval '1 minute' order by x.n desc limit 1) b on true
  left join lateral (select max(x.number) number, max(x.workers) highest, (array_agg(x.workers order by x.number desc))[1] workers
                     from rowlock.allocation x where x.instance = i.id and x.number > b.allocation and x.at > now() - interval '1 minute') a on true
  cross join lateral (select case when b.n is null then i.capacity when a.number > b.allocation then greatest(b.held, b.allocated, a.highest) else greatest(b.held, b.allocated) end holds) h
  where i.queue = $1 and i.ended_at is null
$_$;

CREATE FUNCTION rowlock.id_at(t timestamp with time zone) RETURNS bigint
    LANGUAGE sql IMMUTABLE
    RETURN (((floor(date_part('epoch'::text, t)))::bigint - 1704067200) << 31);

CREATE FUNCTION rowlock.id_time(i bigint) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE
    RETURN to_timestamp((((i >> 31) + 1704067200))::double precision);

CREATE FUNCTION rowlock.interruption_limit() RETURNS integer
    LANGUAGE sql IMMUTABLE
    RETURN 10;

CREATE FUNCTION rowlock.is_silent(instance bigint, beat bigint) RETURNS boolean
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
  select not exists (select 1 from rowlock.beat b where b.instance = $1 and b.n = $2
      and b.at > clock_timestamp() - rowlock.rescue_after())
    or exists (select 1 from rowlock.instance i, lateral (
      select 1 from rowlock.beat x where x.instance = i.id and x.n > $2
        and x.at between clock_timestamp() - interval '1 minute'
            and clock_timestamp() - rowlock.rescue_after() order by x.n desc limit 1) later
      where i.ended_at is null)
$_$;

CREATE TABLE rowlock.instance (
    id bigint NOT NULL,
    queue integer NOT NULL,
    name text NOT NULL,
    capacity integer NOT NULL,
    joined_at timestamp with time zone DEFAULT now() NOT NULL,
    drains boolean DEFAULT false NOT NULL,
    ended_at timestamp with time zone,
    gone boolean DEFAULT false NOT NULL,
    CONSTRAINT instance_capacity_check CHECK (((capacity >= 1) AND (capacity <= 10000)))
);

CREATE FUNCTION rowlock."join"(queue text, name text, capacity integer) RETURNS rowlock.instance
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare q rowlock.queue; i rowlock.instance;
begin
  select * into q from rowlock.queue r where r.name = $1;
  if not found then perform rowlock.refuse_unknown_queue($1); end if;
  perform rowlock.demand_worker(q.id);
  if (length($2) between 1 and 200 and $2 !~ '[[:cntrl:]]') is not true then
    raise exception 'the name of an instance has 1 to 200 printable characters' using errcode = 'RL005',
        hint = 'It is for people: a pod''s name, for example.';
  end if;
  insert into rowlock.instance (id, queue, name, capacity) values ((floor(random() * 2097152)::bigint << 32) | (nextval('rowlock.instance_seq') & 4294967295), q.id, $2, $3) returning * into i;
  insert into rowlock.beat (n, at, instance, queue, held, allocated, allocation, wants)
      values (nextval('rowlock.beat_seq'), clock_timestamp(), i.id, q.id, 0, 0, 0, 0);
  return i;
end $_$;

CREATE FUNCTION rowlock.later_after() RETURNS interval
    LANGUAGE sql IMMUTABLE
    RETURN '24:00:00'::interval;

CREATE FUNCTION rowlock.least_k(queue integer, lows bigint[]) RETURNS bigint[]
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
  select array_agg(f.k order by p) from generate_series(0, 15) p left join lateral (
    select r.k from rowlock.ready r where r.queue = $1 and r.shard = (p & 3)::smallint and r.lane = 0 and r.priority = (p >> 2)::smallint and r.k >= $2[p + 1] order by r.k limit 1) f on true
$_$;

CREATE FUNCTION rowlock.leave(instance bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
declare l record; back bigint := 0;
begin
  perform rowlock.demand_read_committed();
  perform rowlock.demand_worker(i.queue) from rowlock.instance i where i.id = $1;
  perform 1 from rowlock.instance i where i.id = $1 and i.ended_at is null for update;
  if not found then return 0; end if;
  for l in select x.token, x.queue from rowlock.lease x where x.instance = $1 order by x.token for update loop
    back := back + rowlock.hand_back($1, l.queue, l.token);
  end loop;
  update rowlock.instance i set ended_at = now() where i.id = $1;
  return back;
end $_$;

CREATE FUNCTION rowlock.lose(queue integer, instance bigint, name text, drains boolean, ids bigint[], attempts smallint[], priorities smallint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare outcomes smallint[]; used smallint[]; lost text := format('lease lost: instance %s stopped beating', $3);
begin
  select array_agg(case when c.id is not null then 6 when x.attempt + x.costs >= m.max_attempts and x.costs = 1 then 3 else 5 end::smallint order by x.p),
         array_agg(x.costs::smallint order by x.p) into outcomes, used
  from (select u.id, u.attempt, u.p, case when $4 and (select count(*) from rowlock.failure f where f.id = u.id and f.attempt = 0) < rowlock.interruption_limit() then 0 else 1 end costs
        from unnest($5, $6) with ordinality u(id, attempt, p)) x
  left join rowlock.max_attempts($1, $5) m on m.id = x.id left join rowlock.cancel_request c on c.id = x.id;
  insert into rowlock.failure (id, attempt, instance, error)
    select x.id, (x.attempt + 1) * x.costs, $2, case x.costs when 1 then lost else format('interrupted: instance %s was ended before it had drained; no attempt was used', $3) end
    from unnest($5, $6, outcomes, used) x(id, attempt, outcome, costs) where x.outcome = 5;
  perform rowlock.record($1, $2, array_fill(1, array[cardinality($5)]), $5, outcomes,
    (select array_agg((case x.outcome when 5 then x.attempt + x.costs else x.attempt end)::smallint order by x.p) from unnest($6, outcomes, used) with ordinality x(attempt, outcome, costs, p)),
    $7, '{0}', array[lost]);
end $_$;

CREATE FUNCTION rowlock.make_room() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
begin
  if rowlock.has_room() then return; end if;
  begin
    perform 1 from rowlock.mutex m where m.duty = 1 and m.queue = 0 for update;
    if not rowlock.has_room() then perform rowlock.extend_partitions(); end if;
  exception when lock_not_available then null;
  end;
  if not rowlock.has_room() then
    raise exception 'there is no partition for new tasks: nothing has cared for this database since %',
        to_timestamp(rowlock.room_until() + 1704067200) - interval '3 days'
      using errcode = 'RL010',
          hint = 'Start an instance or the operator, or run: select rowlock.extend_partitions(); as the owner of the database.';
  end if;
end $$;

CREATE FUNCTION rowlock.max_attempts(queue integer, ids bigint[]) RETURNS TABLE(id bigint, max_attempts smallint)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
  select i, coalesce((select t.max_attempts from rowlock.task t where t.id = i), (select t.max_attempts from rowlock.task_kept t where t.id = i), q.max_attempts)
  from unnest($2) i, rowlock.queue q where q.id = $1
$_$;

CREATE FUNCTION rowlock.may(duty text, queue integer) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare who name := rowlock.caller();
begin
  return pg_has_role(who, (select n.nspowner from pg_namespace n where n.nspname = 'rowlock'), 'usage')
      or exists (
    select 1 from rowlock.access a join pg_roles r on r.rolname = a.role
    where a.queue in (0, $2) and ($1 is null or a.duty = $1) and pg_has_role(who, r.oid, 'usage'));
end $_$;

CREATE FUNCTION rowlock.mutex_holders() RETURNS TABLE(duty smallint, queue integer, pid integer, usename text, application text, since timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select m.duty, m.queue, l.pid, a.usename::text, a.application_name, a.xact_start
  from rowlock.mutex m join pg_locks l on l.locktype = 'transactionid' and l.mode = 'ExclusiveLock'
      and l.granted and l.transactionid::text = m.xmax::text
  left join pg_stat_activity a on a.pid = l.pid
  where l.pid is distinct from pg_backend_pid()
$$;

CREATE FUNCTION rowlock.on_delayed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
  if new.due < clock_timestamp() then
    update rowlock.delayed set due = clock_timestamp() where id = new.id;
  end if;
  return null;
end $$;

CREATE FUNCTION rowlock.on_ready() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare v_context text;
begin
  if clock_timestamp() - now() > interval '50 milliseconds' then
    new.ring := rowlock.commit_late(new);
  end if;
  if new.ring and pg_notification_queue_usage() < 0.5 then
    -- One notifier per database at a time (R12), and never into a queue that fills up: that would fail the producer's commit (R11). Whoever set constraints
    -- immediate is here within its own call, long before its commit perhaps: it would keep the lock from all others until then.
    get diagnostics v_context = pg_context;
    if position(chr(10) in v_context) > 0 or rowlock.try_mutex(0, 0) then
      perform pg_notify('rowlock', new.queue::text);
    end if;
  end if;
  return null;
end $$;

CREATE FUNCTION rowlock.partition_width() RETURNS interval
    LANGUAGE sql STABLE
    RETURN (SELECT GREATEST('01:00:00'::interval, date_trunc('hour'::text, (COALESCE(max(GREATEST(queue.keep_completed, queue.keep_cancelled)), '24:00:00'::interval) / (8)::double precision))) AS "greatest" FROM rowlock.queue);

CREATE FUNCTION rowlock.policy(queue integer) RETURNS TABLE(generation bigint, policy json, max_attempts smallint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  select q.generation, q.policy, q.max_attempts from rowlock.queue q where q.id = $1
$_$;

CREATE FUNCTION rowlock.promote(low timestamp with time zone, most integer) RETURNS TABLE(moved integer, more boolean, next timestamp with time zone)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare q record; v_moved int := 0; v_ids bigint[];
begin
  perform rowlock.demand_read_committed();
  if not rowlock.try_mutex(2, 0) then return; end if;
  v_ids := array(select d.id from rowlock.delayed d where d.due >= $1 and d.due <= now() order by d.due, d.id limit $2 for update skip locked);
  for q in
    with gone as (delete from rowlock.delayed d where d.id = any (v_ids) returning d.*)
    select g.queue, c.id is not null as cancelled, array_agg(g.id order by g.due, g.id) ids, array_agg(g.attempt order by g.due, g.id) attempts, array_agg(g.priority order by g.due, g.id) priorities
    from gone g left join rowlock.cancel_request c on c.id = g.id group by 1, 2
  loop
    if q.cancelled then
      perform rowlock.write_receipt(q.queue, null, 3::smallint, q.ids, q.attempts);
      delete from rowlock.cancel_request c where c.id = any (q.ids);
    else perform rowlock.requeue(q.queue, q.ids, q.attempts, q.priorities); end if;
    v_moved := v_moved + cardinality(q.ids);
  end loop;
  return query select v_moved, v_moved >= $2, (select d.due from rowlock.delayed d where d.due >= $1 order by d.due limit 1);
end $_$;

CREATE FUNCTION rowlock.prune_dead(most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare n int;
begin
  if not rowlock.try_mutex(4, 0) then return 0; end if;
  -- A receipt stays behind, so that the task of a partition that is still there has a state.
  with old as (delete from rowlock.dead d where d.id in (select x.id from rowlock.dead x join rowlock.queue q on q.id = x.queue where x.at < now() - q.keep_dead order by x.at limit $1 for update of x skip locked) returning d.id, d.queue, d.attempt)
  insert into rowlock.receipt (queue, state, firsts, ns, attempts) select queue, 2, array_agg(id), array_agg(1::smallint), array_agg(attempt) from old group by queue;
  -- The unfinished ones are listed once: ranges looked through for every kept task would take hours where many are kept.
  with finished as (
    select t.id from rowlock.task_kept t where not exists (select 1 from rowlock.dead d where d.id = t.id)
    except (
      select d.id from rowlock.delayed d
      union all select g from rowlock.ready r, generate_series(r.id, r.id + r.n - 1) g where r.id <= (select max(t.id) from rowlock.task_kept t)
      union all select g from rowlock.lease l, unnest(l.firsts, l.ns) u(f, n), generate_series(u.f, u.f + u.n - 1) g where g <> all (l.settled))
    limit $1)
  delete from rowlock.task_kept t using finished f where t.id = f.id;
  get diagnostics n = row_count;
  delete from rowlock.failure_kept f where not exists (select 1 from rowlock.task_kept t where t.id = f.id);
  return n;
end $_$;

CREATE FUNCTION rowlock.prune_rest() RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    SET jit TO 'off'
    AS $_$
declare p record; done text[] := '{}'; oldest timestamptz; keep interval; unused boolean;
begin
  if not rowlock.try_mutex(1, 0) then return done; end if;
  -- Detached, but whoever did it was gone before it could drop the table.
  for p in select c.relname part from pg_class c where c.relnamespace = 'rowlock'::regnamespace and c.relkind = 'r' and not c.relispartition
      and c.relname ~ '^(task|receipt|result|failure|beat|allocation)_[0-9]+$' loop
    execute format('lock table rowlock.%I in access exclusive mode', p.part);
    execute format('select not exists (select 1 from rowlock.%I)', p.part) into unused;
    if unused then execute format('drop table rowlock.%I', p.part); end if;
  end loop;
  select coalesce(greatest(max(keep_completed), max(keep_cancelled)), interval '1 day') into keep from rowlock.queue;
  -- A task is younger than the upper bound of the partition before its own; what was settled earlier belongs to no task that is left.
  select to_timestamp(min(substring(c.relname from '_([0-9]+)$')::bigint)) - 2 * rowlock.partition_width() into oldest
    from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'rowlock.task'::regclass;
  for p in select c.relname part, b.relname parent, to_timestamp(substring(c.relname from '_([0-9]+)$')::bigint) hi
      from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class b on b.oid = i.inhparent
      where i.inhparent in ('rowlock.receipt'::regclass, 'rowlock.result'::regclass, 'rowlock.failure'::regclass, 'rowlock.beat'::regclass, 'rowlock.allocation'::regclass)
      order by i.inhdetachpending desc, 3 loop
    continue when p.hi > case when p.parent in ('beat', 'allocation') then now() - interval '1 hour' else least(oldest, now() - keep) end;
    begin
      execute format('lock table rowlock.%I in access exclusive mode', p.part);
    exception when lock_not_available then
      continue;   -- somebody reads this one: the others need not wait for that
    end;
    if p.parent = 'failure' then
      execute format('insert into rowlock.failure_kept (at, id, attempt, instance, error) select f.at, f.id, f.attempt, f.instance, f.error from rowlock.%I f
        where f.id in (select t.id from rowlock.task_kept t)', p.part);
    end if;
    execute format('truncate rowlock.%I', p.part);
    done := done || (p.parent || ' ' || p.part);
  end loop;
  return done;
end $_$;

CREATE FUNCTION rowlock.prune_task() RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    SET jit TO 'off'
    AS $_$
declare part text; lo bigint; hi bigint; keep interval;
begin
  perform rowlock.demand_read_committed();
  if not rowlock.try_mutex(1, 0) then return null; end if;
  select coalesce(greatest(max(keep_completed), max(keep_cancelled)), interval '1 day') into keep from rowlock.queue;
  select c.relname, substring(c.relname from '_([0-9]+)$')::bigint into part, hi from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'rowlock.task'::regclass order by i.inhdetachpending desc, 2 limit 1;
  if part is null or to_timestamp(hi) > now() - keep then return null; end if;
  -- Nobody adds to it any more, and its tasks are read until the rest is kept elsewhere, however many that are.
  execute format('lock table rowlock.%I in share mode', part);
  hi := (hi - 1704067200) << 31;
  execute format('insert into rowlock.task_kept select t.* from rowlock.%I t where t.id in (
      select g from rowlock.ready r, generate_series(r.id, r.id + r.n - 1) g where r.id < %2$s
      union all select g from rowlock.lease l, unnest(l.firsts, l.ns) u(f, n), generate_series(u.f, u.f + u.n - 1) g where g < %2$s and g <> all (l.settled)
      union all select d.id from rowlock.delayed d where d.id < %2$s union all select d.id from rowlock.dead d where d.id < %2$s) on conflict do nothing', part, hi);
  execute format('lock table rowlock.%I in access exclusive mode', part);
  execute format('truncate rowlock.%I', part);
  return part;
end $_$;

CREATE FUNCTION rowlock.published_lows(queue integer) RETURNS bigint[]
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
  select array_agg(y.low order by y.o) from (
    select u.o, min(least(u.low, (select s.last_value from rowlock.k_seq s))) low
        from rowlock.instance i, lateral (
      select x.lows from rowlock.beat x where x.instance = i.id and x.lows is not null
          and x.at > now() - interval '1 minute' order by x.n desc limit 1) b,
      unnest(b.lows) with ordinality u(low, o)
    where i.queue = $1 and coalesce(i.ended_at > now() - interval '1 minute', true) group by u.o) y
$_$;

CREATE FUNCTION rowlock.pulses() RETURNS TABLE(instance bigint, beat bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
  select i.id, coalesce((select b.n from rowlock.beat b where b.instance = i.id order by b.n desc limit 1), 0) from rowlock.instance i where i.ended_at is null
$$;

CREATE FUNCTION rowlock.reaches(queue integer, backlog_limit bigint) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  select coalesce((select sum(r.n) from (select x.n from rowlock.ready x where x.queue = $1 limit $2) r), 0)
    + (select count(*) from (select 1 from rowlock.delayed d where d.queue = $1
        and d.due <= now() + rowlock.later_after() limit $2) d) >= $2
$_$;

CREATE FUNCTION rowlock.record(queue integer, instance bigint, o integer[], ids bigint[], outcomes smallint[], attempts smallint[], priorities smallint[], delays_ms bigint[], texts text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare part bigint[]; used smallint[]; prios smallint[];
begin
  select array_agg(x.id), array_agg((x.attempt + 1)::smallint) into part, used from unnest($4, $5, $6) x(id, outcome, attempt) where x.outcome = 1;
  if part is not null then
    perform rowlock.write_receipt($1, $2, 1::smallint, part, used);
    if cardinality($9) > 0 then
      insert into rowlock.result (id, body) select x.id, ($9)[x.o] from unnest($3, $4, $5) x(o, id, outcome) where x.outcome = 1 and ($9)[x.o] is not null;
    end if;
  end if;
  -- A request to cancel what was finished first has nothing left to do.
  if exists (select 1 from rowlock.cancel_request) then
    delete from rowlock.cancel_request c using unnest($4, $5) x(id, outcome) where c.id = x.id and x.outcome in (1, 3, 6);
  end if;
  if cardinality(part) = cardinality(ids) then return; end if;
  insert into rowlock.failure (id, attempt, instance, error)
    select x.id, x.attempt + 1, $2, coalesce(($9)[x.o], 'no error was given') from unnest($3, $4, $5, $6) x(o, id, outcome, attempt) where x.outcome in (2, 3);
  insert into rowlock.dead (id, queue, priority, attempt)
    select x.id, $1, x.priority, x.attempt + 1 from unnest($4, $5, $6, $7) x(id, outcome, attempt, priority) where x.outcome = 3;
  insert into rowlock.delayed (id, queue, priority, attempt, waits, run_at, due)
    select x.id, $1, x.priority, x.attempt + (x.outcome = 2)::int, 1, d.at, d.at
    from unnest($3, $4, $5, $6, $7) x(o, id, outcome, attempt, priority), lateral (select now() + least(greatest(($8)[x.o], 0), 3155760000000) * interval '1 millisecond' as at) d where x.outcome in (2, 4);
  select array_agg(x.id), array_agg(x.attempt), array_agg(x.priority) into part, used, prios from unnest($4, $5, $6, $7) x(id, outcome, attempt, priority) where x.outcome = 5;
  if part is not null then perform rowlock.requeue($1, part, used, prios); end if;
  select array_agg(x.id), array_agg(x.attempt) into part, used from unnest($4, $5, $6) x(id, outcome, attempt) where x.outcome = 6;
  if part is not null then perform rowlock.write_receipt($1, $2, 3::smallint, part, used); end if;
end $_$;

CREATE FUNCTION rowlock.redrive(queue text, ids bigint[]) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare q record; n bigint := 0;
begin
  perform rowlock.demand_read_committed();
  if $1 is null and $2 is null then
    raise exception 'neither a queue nor ids were given' using errcode = 'RL005', hint = 'Name the queue whose dead tasks are to run again, or list their ids.';
  end if;
  if $1 is not null and not exists (select 1 from rowlock.queue y where y.name = $1) then perform rowlock.refuse_unknown_queue($1); end if;
  for q in
    with back as (delete from rowlock.dead d where d.id in (
        select x.id from rowlock.dead x join rowlock.queue y on y.id = x.queue where ($1 is null or y.name = $1) and ($2 is null or x.id = any ($2)) order by x.id limit 10000 for update of x skip locked) returning d.*)
    select b.queue, array_agg(b.id order by b.id) ids, array_agg(0::smallint) attempts, array_agg(b.priority order by b.id) priorities from back b group by b.queue
  loop
    perform rowlock.requeue(q.queue, q.ids, q.attempts, q.priorities); n := n + cardinality(q.ids);
    -- A request that crossed the last attempt's end was for that one.
    delete from rowlock.cancel_request c where c.id = any (q.ids);
  end loop;
  return n;
end $_$;

CREATE FUNCTION rowlock.refuse_full(q rowlock.queue) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'queue "%" is full: its backlog reached limits.backlog (%)', q.name, q.backlog_limit
    using errcode = 'RL004', hint = 'Enqueue again later, add workers, or raise limits.backlog of the TaskQueue.';
end $$;

CREATE FUNCTION rowlock.refuse_later(q rowlock.queue) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'queue "%" has its limit of tasks that are due in more than a day (limits.backlog: %)',
      q.name, q.backlog_limit
    using errcode = 'RL004',
        hint = 'Enqueue again later, or raise limits.backlog of the TaskQueue; those that are due sooner are taken.';
end $$;

CREATE FUNCTION rowlock.refuse_null(what text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'the % is null', what using errcode = 'RL005', hint = case when what like 'array%' then 'No task at all is an empty array.' else 'A task without data has the payload {}.' end;
end $$;

CREATE FUNCTION rowlock.refuse_payload(q rowlock.queue, bytes integer) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'payload of % bytes is larger than limits.payloadBytes (%) of queue "%"', bytes, q.payload_limit, q.name
    using errcode = 'RL003', hint = 'Store it elsewhere and enqueue a reference, or raise limits.payloadBytes of the TaskQueue.';
end $$;

CREATE FUNCTION rowlock.refuse_right(duty text, queue text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'the role "%" is no % of queue "%"', rowlock.caller(), duty, queue using errcode = 'RL011',
    hint = format('The owner of the database can run: select rowlock.grant_role(%L, %L, array[%L]);',
        rowlock.caller(), duty, queue);
end $$;

CREATE FUNCTION rowlock.refuse_type(type text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'the type of a task has 1 to 200 printable characters' using errcode = 'RL005',
    hint = format('It names what the handler does, for example "send-invoice"; data belongs in the payload.'
      ' This one has %s characters.', length(type));
end $$;

CREATE FUNCTION rowlock.refuse_unknown_queue(queue text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'unknown queue "%"', queue using errcode = 'RL001',
    hint = coalesce('Queues of this database: ' || (select string_agg(q.name, ', ' order by q.name)
        from rowlock.queue q where not q.guarded or rowlock.may(null, q.id)) || '.',
                    case when exists (select 1 from rowlock.queue) then 'There is none that you may use.'
                        else 'This database has no queue yet: apply a TaskQueue.' end);
end $$;

CREATE FUNCTION rowlock.renew_grants() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare g record;
begin
  lock table rowlock.access in share row exclusive mode;
  for g in select distinct r.rolname, f.function from rowlock.access a join pg_roles r on r.rolname = a.role
      join rowlock.rights() f on f.duty = a.duty join pg_proc p on p.oid = f.function
      where not exists (select 1 from aclexplode(p.proacl) x where x.grantee = r.oid) loop
    execute format('grant execute on function %s to %I', g.function, g.rolname);
  end loop;
  for g in select distinct r.rolname from rowlock.access a join pg_roles r on r.rolname = a.role
      where not exists (select 1 from pg_namespace n, aclexplode(n.nspacl) x where n.nspname = 'rowlock'
          and x.grantee = r.oid) loop
    execute format('grant usage on schema rowlock to %I', g.rolname);
    -- Every command first checks the schema's version.
    execute format('grant select on rowlock.migration to %I', g.rolname);
  end loop;
  update rowlock.queue q set guarded = not q.guarded where q.guarded <> exists (select 1 from rowlock.access a
      where a.queue <> 0);
end $$;

CREATE FUNCTION rowlock.requeue(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
begin
  insert into rowlock.ready (queue, shard, priority, k, id, n, attempt, fresh, ring)
  select $1, z.k & 3, z.priority, z.k, z.id, z.n, z.attempt, false, coalesce((select q.bell_until > now() from rowlock.queue q where q.id = $1), false)
  from (select nextval('rowlock.k_seq') k, y.* from (
    select min(x.id) id, count(*) n, x.attempt, x.priority from (
      select u.*, u.id - row_number() over (partition by u.attempt, u.priority order by u.id) run
      from unnest($2, $3, $4) u(id, attempt, priority)) x
    group by x.attempt, x.priority, x.run, x.id >> 8 order by 1) y) z;
end $_$;

CREATE FUNCTION rowlock.rescue(instance bigint, beat bigint) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare l record; u record; rescued int := 0; v_name text; v_queue int; v_drains boolean;
begin
  perform rowlock.demand_read_committed();
  -- First without the lock, which would tell an instance that lives that it is gone; then with it.
  if coalesce((select b.n from rowlock.beat b where b.instance = $1 order by b.n desc limit 1), 0) <> $2 then return null; end if;
  if not rowlock.is_silent($1, $2) then return null; end if;
  perform 1 from rowlock.instance i where i.id = $1 and i.ended_at is null for update skip locked;
  if not found then return null; end if;
  if coalesce((select b.n from rowlock.beat b where b.instance = $1 order by b.n desc limit 1), 0) <> $2 then return null; end if;
  update rowlock.instance i set ended_at = now(), gone = true where i.id = $1 and i.ended_at is null returning i.name, i.queue, i.drains into v_name, v_queue, v_drains;
  if not found then return null; end if;
  for l in select x.token from rowlock.lease x where x.instance = $1 order by x.token for update loop
    select * into u from rowlock.unsettled(l.token);
    if u.ids is not null then
      perform rowlock.lose(v_queue, $1, v_name, v_drains, u.ids, u.attempts, u.priorities);
      rescued := rescued + cardinality(u.ids);
    end if;
    delete from rowlock.lease x where x.token = l.token;
  end loop;
  return rescued;
end $_$;

CREATE FUNCTION rowlock.rescue_after() RETURNS interval
    LANGUAGE sql IMMUTABLE
    RETURN '00:00:12'::interval;

CREATE FUNCTION rowlock.revoke_role(role name, duty text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_column
declare f regprocedure;
begin
  delete from rowlock.access a where a.role = $1 and ($2 is null or a.duty = $2);
  for f in select x.function from rowlock.rights() x group by x.function
      having not bool_or(exists (select 1 from rowlock.access a where a.role = $1 and a.duty = x.duty)) loop
    execute format('revoke execute on function %s from %I', f, $1);
  end loop;
  if not exists (select 1 from rowlock.access a where a.role = $1) then
    execute format('revoke select on rowlock.migration from %I', $1);
    execute format('revoke usage on schema rowlock from %I', $1);
  end if;
  perform rowlock.renew_grants();
end $_$;

CREATE FUNCTION rowlock.rights() RETURNS TABLE(duty text, function regprocedure)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select d.duty, p.oid::regprocedure from (values
    ('producer', '{enqueue,enqueue_many,as_json,as_options,as_payloads,cancel,cancel_all,task_state}'::text[]),
    ('worker', '{join,policy,published_lows,beat,claim,await_claims,fetch,settle,drain,leave,hand_back_strays,care,least_k,sweep,rescue,
                 mutex_holders,extend_partitions,prune_dead,task_state}'),
    ('reader', '{statistics,story,failures,tasks,audit,task_state}')) d(duty, names)
  join pg_proc p on p.proname = any (d.names) and p.pronamespace = 'rowlock'::regnamespace
$$;

CREATE FUNCTION rowlock.room_until() RETURNS integer
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  select coalesce((max(substring(c.relname from '_([0-9]+)$')::bigint) - 1704067200)::int, 0)
  from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'rowlock.task'::regclass
$_$;

CREATE FUNCTION rowlock.sample_percent(what regclass) RETURNS real
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN LEAST((100)::double precision, (((512 * 100))::double precision / (GREATEST((pg_relation_size(what) / (current_setting('block_size'::text))::integer), (1)::bigint))::real));

CREATE FUNCTION rowlock.settle(instance bigint, tokens bigint[], ids bigint[], outcomes smallint[], delays_ms bigint[], texts text[]) RETURNS smallint[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare
  answers smallint[] := array_fill(4::smallint, array[cardinality(ids)]);
  v_cancels boolean := exists (select 1 from rowlock.cancel_request);
  v_queue int; o int[]; k_ids bigint[]; k_tokens bigint[]; k_outcomes smallint[]; k_attempts smallint[]; k_priorities smallint[]; i int; limits bigint[]; maxima smallint[];
begin
  perform rowlock.demand_read_committed();
  perform 1 from rowlock.lease l where l.token = any ($2) and l.instance = $1 order by l.token for update;
  -- Whoever would end the instance now waits for these leases; whoever did before has taken them, and marked
  -- it in the same transaction.
  select x.queue into v_queue from rowlock.instance x where x.id = $1 and x.ended_at is null;
  if not found then return answers; end if;
  -- What is held and not settled, each once.
  -- Held, less settled, by one grouping: an anti-join is planned as a nested loop, a thousand times a thousand.
  with held as materialized (
    select y.token, y.id, max(y.attempt) attempt, max(y.priority) priority from (
      select l.token, g.id, u.attempt, u.priority
      from rowlock.lease l, unnest(l.firsts, l.ns, l.attempts, l.priorities) u(f, n, attempt, priority), generate_series(u.f, u.f + u.n - 1) g(id)
      where l.token = any ($2) and l.instance = $1
      union all select l.token, d.id, null, null from rowlock.lease l, unnest(l.settled) d(id) where l.token = any ($2) and l.instance = $1) y
    group by y.token, y.id having count(*) = count(y.attempt))
  select array_agg(z.o), array_agg(z.id), array_agg(z.token), array_agg(z.outcome), array_agg(z.attempt), array_agg(z.priority)
    into o, k_ids, k_tokens, k_outcomes, k_attempts, k_priorities
  from (
    select distinct on (h.token, h.id) s.o::int o, h.id, h.token, case when c.id is not null and s.outcome <> 1 then 6::smallint else s.outcome end outcome, h.attempt, h.priority
    from unnest($2, $3, $4) with ordinality s(token, id, outcome, o)
    join held h on h.token = s.token and h.id = s.id
    left join rowlock.cancel_request c on v_cancels and c.id = s.id
    order by h.token, h.id, s.o) z;
  if k_ids is not null then
    if 2 = any (k_outcomes) then
      -- Attempts used up: what the instance calls a retry is dead.
      select array_agg(case when x.outcome = 2 and x.attempt + 1 >= m.max_attempts then 3::smallint else x.outcome end order by x.p) into k_outcomes
      from unnest(k_ids, k_outcomes, k_attempts) with ordinality x(id, outcome, attempt, p)
      left join rowlock.max_attempts(v_queue, k_ids) m on m.id = x.id and x.outcome = 2;
    end if;
    perform rowlock.record(v_queue, $1, o, k_ids, k_outcomes, k_attempts, k_priorities, $5, $6);
    delete from rowlock.lease l using (select t, count(*) n from unnest(k_tokens) t group by t) x
      where l.token = any (k_tokens) and l.token = x.t and cardinality(l.settled) + x.n >= (select sum(n) from unnest(l.ns) n);
    update rowlock.lease l set settled = l.settled || x.ids from (select t, array_agg(id) ids from unnest(k_tokens, k_ids) u(t, id) group by t) x where l.token = any (k_tokens) and l.token = x.t;
    if cardinality(o) = cardinality(ids) and 1 = all (k_outcomes) then answers := array_fill(1::smallint, array[cardinality(ids)]);
    else
      for i in 1 .. cardinality(o) loop
        answers[o[i]] := case k_outcomes[i] when 3 then 2 when 6 then 3 else 1 end;
      end loop;
    end if;
  end if;
  if 4 = any (answers) then
    with before as materialized (
      select g id from rowlock.receipt r, unnest(r.firsts, r.ns) u(f, n), generate_series(u.f, u.f + u.n - 1) g where r.at > now() - interval '1 minute' and r.instance = $1
      union select f.id from rowlock.failure f where f.id = any ($3) and f.instance = $1 and f.at > now() - interval '1 minute'
      union select d.id from rowlock.lease l, unnest(l.settled) d(id) where l.token = any ($2) and l.instance = $1)
    select array_agg(case when a.a = 4 and b.id is not null then 1::smallint else a.a end order by a.p) into answers
    from unnest(answers, $3) with ordinality a(a, id, p) left join before b on b.id = a.id;
  end if;
  return answers;
end $_$;

CREATE FUNCTION rowlock.statistics() RETURNS TABLE(queue integer, name text, paused boolean, total_workers integer, available bigint, scheduled bigint, retryable bigint, due_soon bigint, running bigint, dead bigint, oldest_seconds double precision, completed bigint, arrivals bigint, instances bigint, allocated bigint, busy bigint, service_ms double precision)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
  select q.id, q.name, q.paused, q.total_workers, coalesce(r.available, 0), coalesce(r.scheduled, 0), coalesce(r.retryable, 0), coalesce(d.soon, 0),
         coalesce(l.n, 0), coalesce(x.n, 0), case when r.oldest is not null then greatest(date_part('epoch', clock_timestamp()) - 1704067200 - r.oldest, 0) end, coalesce(c.n, 0), coalesce(a.n, 0),
         coalesce(i.n, 0), coalesce(i.allocated, 0), coalesce(i.held, 0), i.service_ms
  from rowlock.queue q
  left join rowlock.backlog() r on r.queue = q.id
  -- Due within five seconds, of at most 20,000 looked at.
  left join (select d.queue, count(*) soon from (select d.queue from rowlock.delayed d where d.due < now() + interval '5 seconds' order by d.due limit 20000) d group by d.queue) d on d.queue = q.id
  left join (select l.queue, sum((select sum(u) from unnest(l.ns) u) - cardinality(l.settled))::bigint n from rowlock.lease l group by l.queue) l on l.queue = q.id
  left join (select d.queue, (count(*) * 100 / rowlock.sample_percent('rowlock.dead'))::bigint n
             from rowlock.dead d tablesample system (rowlock.sample_percent('rowlock.dead')) repeatable (0) group by d.queue) x on x.queue = q.id
  left join (select r.queue, sum((select sum(u) from unnest(r.ns) u))::bigint n from rowlock.receipt r where r.at > now() - interval '60 seconds' and r.state = 1 group by r.queue) c on c.queue = q.id
  -- Enqueued in the last ten seconds, of at most 100,000 looked at.
  left join (select t.queue, count(*) n from (select t.queue from rowlock.task t where t.id >= rowlock.id_at(now() - interval '10 seconds') order by t.id desc limit 100000) t group by t.queue) a on a.queue = q.id
  left join (select i.queue, count(*) n, sum(b.allocated) allocated, sum(b.held) held, avg(b.service_ms) service_ms from rowlock.instance i,
                    lateral (select b.allocated, b.held, b.service_ms from rowlock.beat b where b.instance = i.id and b.at > now() - interval '1 minute' order by b.n desc limit 1) b
             where i.ended_at is null group by i.queue) i on i.queue = q.id
  where not q.guarded or rowlock.may('reader', q.id)
  order by q.name
$$;

CREATE FUNCTION rowlock.story(id bigint) RETURNS TABLE(queue text, type text, state text, priority smallint, attempt integer, max_attempts smallint, enqueued_at timestamp with time zone, due_at timestamp with time zone, finished_at timestamp with time zone, instance text, payload text, result text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
  select q.name, t.type, s.state, t.priority,
    coalesce((select d.attempt from rowlock.delayed d where d.id = $1), (select d.attempt from rowlock.dead d where d.id = $1), l.attempt, c.attempt,
             case when s.state = 'available' then (select r.attempt from rowlock.find_ready(t.queue, t.priority, $1) r) end, 0)::int,
    coalesce(t.max_attempts, q.max_attempts), rowlock.id_time($1), (select d.due from rowlock.delayed d where d.id = $1),
    coalesce(c.at, (select d.at from rowlock.dead d where d.id = $1)),
    (select i.name from rowlock.instance i where i.id = coalesce(l.instance, c.instance)), t.payload::text,
    (select x.body from rowlock.result x where x.id = $1 order by x.at desc limit 1)
  from rowlock.every_task t join rowlock.queue q on q.id = t.queue
  cross join lateral (select rowlock.task_state($1) state) s
  left join lateral (select l.instance, u.attempt from rowlock.lease l, unnest(l.firsts, l.ns, l.attempts) u(f, n, attempt) where $1 >= u.f and $1 < u.f + u.n and $1 <> all (l.settled) limit 1) l on true
  left join lateral (select r.at, r.instance, u.attempt from rowlock.receipt r, unnest(r.firsts, r.ns, r.attempts) u(f, n, attempt)
    where s.state in ('completed', 'cancelled', 'dead') and r.at >= rowlock.id_time($1) - interval '1 day' and $1 >= u.f and $1 < u.f + u.n limit 1) c on true
  where t.id = $1 and (not q.guarded or rowlock.may('reader', q.id))
$_$;

CREATE FUNCTION rowlock.sweep(queue integer, exact bigint[], quick bigint[], most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare r record; swept int := 0;
begin
  perform rowlock.demand_read_committed();
  perform rowlock.demand_worker($1);
  if not rowlock.try_mutex(6, $1) then return null; end if;
  for r in
    select x.* from generate_series(0, 3) p, generate_series(0, 3) s, lateral (
      select r.shard, r.priority, r.k from rowlock.ready r where r.queue = $1 and r.shard = s::smallint and r.lane = 0 and r.priority = p::smallint
        and r.k >= $2[p * 4 + s + 1] and r.k < $3[p * 4 + s + 1] order by r.k limit least($4, 10000)
            for update skip locked) x limit least($4, 10000)
  loop
    update rowlock.ready y set k = nextval('rowlock.k_seq') where y.queue = $1 and y.shard = r.shard and y.lane = 0 and y.priority = r.priority and y.k = r.k;
    swept := swept + 1;
  end loop;
  return swept;
end $_$;

CREATE FUNCTION rowlock.task_state(id bigint) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
  select coalesce(
    (select case d.waits when 0 then 'scheduled' else 'retryable' end from rowlock.delayed d where d.id = $1),
    (select 'running' from rowlock.lease l, unnest(l.firsts, l.ns) u(f, n) where $1 >= u.f and $1 < u.f + u.n and $1 <> all (l.settled) limit 1),
    (select 'available' from rowlock.find_ready(t.queue, t.priority, $1)),
    (select 'dead' from rowlock.dead d where d.id = $1),
    (select case r.state when 1 then 'completed' when 2 then 'dead' else 'cancelled' end from rowlock.receipt r, unnest(r.firsts, r.ns) u(f, n)
       where r.at >= rowlock.id_time($1) - interval '1 day' and $1 >= u.f and $1 < u.f + u.n limit 1),
    'untraced')
  from rowlock.every_task t where t.id = $1 and not exists (select 1 from rowlock.queue q where q.id = t.queue
      and q.guarded and not rowlock.may(null, q.id))
$_$;

CREATE FUNCTION rowlock.tasks(queue text, state text, after bigint, most integer) RETURNS TABLE(id bigint, queue_name text, type text, attempt integer, at timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
  select x.id, q.name, (select t.type from rowlock.every_task t where t.id = x.id limit 1), x.attempt::int, x.at from (
    select d.id, d.queue, d.attempt, d.at from rowlock.dead d where $2 = 'dead'
    union all select d.id, d.queue, d.attempt, d.due from rowlock.delayed d where $2 = case d.waits when 0 then 'scheduled' else 'retryable' end
    union all select g, r.queue, r.attempt, rowlock.id_time(g) from rowlock.ready r, generate_series(r.id, r.id + r.n - 1) g where $2 = 'available'
    union all select g, l.queue, u.attempt, l.at from rowlock.lease l, unnest(l.firsts, l.ns, l.attempts) u(f, n, attempt), generate_series(u.f, u.f + u.n - 1) g where $2 = 'running' and g <> all (l.settled)
    union all select g, r.queue, u.attempt, r.at from rowlock.receipt r, unnest(r.firsts, r.ns, r.attempts) u(f, n, attempt), generate_series(u.f, u.f + u.n - 1) g
      where $2 in ('completed', 'cancelled') and r.state = case $2 when 'completed' then 1 else 3 end and r.at > now() - interval '1 day') x
  join rowlock.queue q on q.id = x.queue
  where (not q.guarded or rowlock.may('reader', q.id)) and ($1 is null or q.name = $1)
      and x.id > coalesce($3, 0) order by x.id limit $4
$_$;

CREATE FUNCTION rowlock.tidy() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare v record;
begin
  if not rowlock.try_mutex(3, 0) then return; end if;
  for v in
    -- An estimate may be far off where rows lie together: no producer is refused for that, so what it says is counted.
    select x.queue, case when q.backlog_full then x.n >= q.backlog_limit * 0.95
             when x.n >= q.backlog_limit then rowlock.reaches(q.id, q.backlog_limit)
                 else false end backlog_full,
           -- Tasks of next year have a limit of their own, of the same size: they keep nobody from enqueuing
           -- what is due today.
           x.later >= case when q.later_full then q.backlog_limit * 0.95 else q.backlog_limit end later_full
    from (select y.*, y.available + y.scheduled + y.retryable - y.later n from rowlock.backlog() y) x
        join rowlock.queue q on q.id = x.queue
  loop
    update rowlock.queue y set backlog_full = v.backlog_full, later_full = v.later_full
      where y.id = v.queue and (y.backlog_full, y.later_full) <> (v.backlog_full, v.later_full);
  end loop;
  delete from rowlock.instance i where i.ended_at < now() - interval '7 days' and not exists (select 1 from rowlock.lease l where l.instance = i.id);
end $$;

CREATE FUNCTION rowlock.try_mutex(duty integer, queue integer) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $_$
begin
  perform 1 from rowlock.mutex m where m.duty = $1 and m.queue = $2 for update skip locked;
  if found then return true; end if;
  if exists (select 1 from rowlock.mutex m where m.duty = $1 and m.queue = $2) then return false; end if;
  -- A queue that was not declared by rowlock.declare_queue.
  insert into rowlock.mutex (duty, queue) values ($1, $2) on conflict do nothing;
  return found;
end $_$;

CREATE FUNCTION rowlock.unsettled(token bigint) RETURNS TABLE(ids bigint[], attempts smallint[], priorities smallint[])
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
  select array_agg(g.id), array_agg(u.attempt), array_agg(u.priority)
  from rowlock.lease l, unnest(l.firsts, l.ns, l.attempts, l.priorities) u(f, n, attempt, priority), generate_series(u.f, u.f + u.n - 1) g(id)
  where l.token = $1 and g.id <> all (l.settled)
$_$;

CREATE FUNCTION rowlock.write_receipt(queue integer, instance bigint, state smallint, ids bigint[], attempts smallint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
begin
  insert into rowlock.receipt (queue, instance, state, firsts, ns, attempts)
  select $1, $2, $3, array_agg(y.id order by y.id), array_agg(y.n order by y.id), array_agg(y.attempt order by y.id) from (
    select min(x.id) id, count(*)::smallint n, x.attempt from (
      select u.*, u.id - row_number() over (partition by u.attempt order by u.id) run from unnest($4, $5) u(id, attempt)) x
    group by x.attempt, x.run) y having count(*) > 0;
end $_$;

CREATE TABLE rowlock.access (
    role name NOT NULL,
    duty text NOT NULL,
    queue integer NOT NULL,
    CONSTRAINT access_duty_check CHECK ((duty = ANY (ARRAY['producer'::text, 'worker'::text, 'reader'::text])))
);

CREATE TABLE rowlock.allocation (
    number bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    queue integer NOT NULL,
    instance bigint NOT NULL,
    workers integer NOT NULL,
    CONSTRAINT allocation_workers_check CHECK ((workers >= 0))
)
PARTITION BY RANGE (at);

CREATE SEQUENCE rowlock.allocation_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE rowlock.beat (
    n bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    instance bigint NOT NULL,
    queue integer NOT NULL,
    held integer NOT NULL,
    allocated integer NOT NULL,
    allocation bigint NOT NULL,
    wants integer NOT NULL,
    service_ms real,
    lows bigint[]
)
PARTITION BY RANGE (at);

CREATE SEQUENCE rowlock.beat_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE rowlock.cancel_request (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE SEQUENCE rowlock.chunk_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE rowlock.dead (
    id bigint NOT NULL,
    queue integer NOT NULL,
    priority smallint NOT NULL,
    attempt smallint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE rowlock.delayed (
    id bigint NOT NULL,
    queue integer NOT NULL,
    priority smallint NOT NULL,
    attempt smallint NOT NULL,
    waits smallint DEFAULT 0 NOT NULL,
    run_at timestamp with time zone NOT NULL,
    due timestamp with time zone NOT NULL
)
WITH (vacuum_truncate=off, autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='10000', autovacuum_vacuum_cost_delay='0');

CREATE TABLE rowlock.task (
    id bigint NOT NULL,
    queue integer NOT NULL,
    priority smallint NOT NULL,
    max_attempts smallint,
    type text NOT NULL,
    payload json NOT NULL
)
PARTITION BY RANGE (id);

CREATE TABLE rowlock.task_kept (
    id bigint NOT NULL,
    queue integer NOT NULL,
    priority smallint NOT NULL,
    max_attempts smallint,
    type text NOT NULL,
    payload json NOT NULL
);

CREATE VIEW rowlock.every_task AS
 SELECT task.id,
    task.queue,
    task.priority,
    task.max_attempts,
    task.type,
    task.payload
   FROM rowlock.task
UNION ALL
 SELECT task_kept.id,
    task_kept.queue,
    task_kept.priority,
    task_kept.max_attempts,
    task_kept.type,
    task_kept.payload
   FROM rowlock.task_kept;

CREATE TABLE rowlock.failure (
    at timestamp with time zone DEFAULT now() NOT NULL,
    id bigint NOT NULL,
    attempt smallint NOT NULL,
    instance bigint,
    error text NOT NULL
)
PARTITION BY RANGE (at);

CREATE TABLE rowlock.failure_kept (
    n bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    id bigint NOT NULL,
    attempt smallint NOT NULL,
    instance bigint,
    error text NOT NULL
);

ALTER TABLE rowlock.failure_kept ALTER COLUMN n ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME rowlock.failure_kept_n_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE SEQUENCE rowlock.instance_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE SEQUENCE rowlock.k_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE rowlock.lease (
    token bigint NOT NULL,
    instance bigint NOT NULL,
    queue integer NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    firsts bigint[] NOT NULL,
    ns smallint[] NOT NULL,
    attempts smallint[] NOT NULL,
    priorities smallint[] NOT NULL,
    settled bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    CONSTRAINT lease_check CHECK (((cardinality(firsts) > 0) AND (cardinality(firsts) = cardinality(ns)) AND (cardinality(ns) = cardinality(attempts)) AND (cardinality(attempts) = cardinality(priorities))))
)
WITH (fillfactor='70', vacuum_truncate=off, autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_cost_delay='0');

CREATE TABLE rowlock.migration (
    version integer NOT NULL,
    name text NOT NULL,
    compatible_from integer NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE rowlock.mutex (
    duty smallint NOT NULL,
    queue integer NOT NULL
);

ALTER TABLE rowlock.queue ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME rowlock.queue_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE rowlock.receipt (
    at timestamp with time zone DEFAULT now() NOT NULL,
    queue integer NOT NULL,
    instance bigint,
    state smallint NOT NULL,
    firsts bigint[] NOT NULL,
    ns smallint[] NOT NULL,
    attempts smallint[] NOT NULL,
    CONSTRAINT receipt_state_check CHECK ((state = ANY (ARRAY[1, 2, 3])))
)
PARTITION BY RANGE (at);

CREATE TABLE rowlock.result (
    at timestamp with time zone DEFAULT now() NOT NULL,
    id bigint NOT NULL,
    body text NOT NULL
)
PARTITION BY RANGE (at);

ALTER TABLE ONLY rowlock.access
    ADD CONSTRAINT access_pkey PRIMARY KEY (role, duty, queue);

ALTER TABLE ONLY rowlock.cancel_request
    ADD CONSTRAINT cancel_request_pkey PRIMARY KEY (id);

ALTER TABLE ONLY rowlock.dead
    ADD CONSTRAINT dead_pkey PRIMARY KEY (id);

ALTER TABLE ONLY rowlock.delayed
    ADD CONSTRAINT delayed_pkey PRIMARY KEY (id);

ALTER TABLE ONLY rowlock.failure_kept
    ADD CONSTRAINT failure_kept_pkey PRIMARY KEY (n);

ALTER TABLE ONLY rowlock.instance
    ADD CONSTRAINT instance_pkey PRIMARY KEY (id);

ALTER TABLE ONLY rowlock.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (token);

ALTER TABLE ONLY rowlock.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (version);

ALTER TABLE ONLY rowlock.mutex
    ADD CONSTRAINT mutex_pkey PRIMARY KEY (duty, queue);

ALTER TABLE ONLY rowlock.queue
    ADD CONSTRAINT queue_name_key UNIQUE (name);

ALTER TABLE ONLY rowlock.queue
    ADD CONSTRAINT queue_pkey PRIMARY KEY (id);

ALTER TABLE ONLY rowlock.ready
    ADD CONSTRAINT ready_pkey PRIMARY KEY (queue, shard, lane, priority, k);

ALTER TABLE ONLY rowlock.task_kept
    ADD CONSTRAINT task_kept_pkey PRIMARY KEY (id);

ALTER TABLE ONLY rowlock.task
    ADD CONSTRAINT task_pkey PRIMARY KEY (id);

CREATE INDEX allocation_newest ON ONLY rowlock.allocation USING btree (instance, number DESC);

CREATE INDEX beat_newest ON ONLY rowlock.beat USING btree (instance, n DESC);

CREATE INDEX dead_queue ON rowlock.dead USING btree (queue, id);

CREATE INDEX delayed_due ON rowlock.delayed USING btree (due, id);

CREATE INDEX failure_id ON ONLY rowlock.failure USING btree (id);

CREATE INDEX failure_kept_id ON rowlock.failure_kept USING btree (id);

CREATE INDEX instance_live ON rowlock.instance USING btree (queue, id) WHERE (ended_at IS NULL);

CREATE INDEX lease_instance ON rowlock.lease USING btree (instance);

CREATE INDEX receipt_at ON ONLY rowlock.receipt USING brin (at);

CREATE INDEX result_id ON ONLY rowlock.result USING btree (id);

CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON rowlock.delayed DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rowlock.on_delayed();

CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON rowlock.ready DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rowlock.on_ready();

REVOKE ALL ON FUNCTION rowlock.allocate(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.as_json(payloads text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.as_json(payload text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.as_options(options text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.as_payloads(payloads json) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.as_payloads(payloads text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.audit() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.await_claims(instance bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.backlog() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.beat(instance bigint, held integer, allocated integer, allocation bigint, wants integer, lows bigint[], sleeps boolean, service_ms real) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.caller() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.cancel(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.cancel_all(ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.care(low timestamp with time zone, most integer, tidies boolean, looks boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.check_added(q rowlock.queue, setting text, added bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.check_options(options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.claim(instance bigint, want integer, lows bigint[], start integer, token bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.clear_queue(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.commit_late(r rowlock.ready) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.declare_queue(name text, owner text, generation bigint, policy json, max_attempts integer, total_workers integer, paused boolean, backlog_limit bigint, payload_limit integer, keep_completed interval, keep_dead interval, keep_cancelled interval, adopts text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.delete_queue(queue text, force boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.demand_read_committed() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.demand_worker(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.drain(instance bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.due_of(options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.ends(instance bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue(queue text, type text, payload json, options json) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue(queue text, type text, payload json, options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue(queue text, type text, payload json, options text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue(queue text, type text, payload jsonb, options json) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue(queue text, type text, payload jsonb, options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue(queue text, type text, payload jsonb, options text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue(queue text, type text, payload text, options json) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue(queue text, type text, payload text, options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue(queue text, type text, payload text, options text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads json[], options json) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads json[], options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads json[], options text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads jsonb[], options json) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads jsonb[], options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads jsonb[], options text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads text[], options json) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads text[], options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads text[], options text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads json, options json) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads json, options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads json, options text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads jsonb, options json) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads jsonb, options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads jsonb, options text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads text, options json) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads text, options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many(queue text, type text, payloads text, options text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enqueue_many_limit() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.extend_partitions(ahead interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.failures(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock."fetch"(token bigint, ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.find_ready(queue integer, priority smallint, id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.furthest_low() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.grant_role(role name, duty text, queues text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.hand_back(instance bigint, queue integer, token bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.hand_back_strays(instance bigint, known bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.has_room() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.holding(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.id_at(t timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.id_time(i bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.interruption_limit() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.is_silent(instance bigint, beat bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock."join"(queue text, name text, capacity integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.later_after() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.least_k(queue integer, lows bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.leave(instance bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.lose(queue integer, instance bigint, name text, drains boolean, ids bigint[], attempts smallint[], priorities smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.make_room() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.max_attempts(queue integer, ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.may(duty text, queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.mutex_holders() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.on_delayed() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.on_ready() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.partition_width() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.policy(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.promote(low timestamp with time zone, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.prune_dead(most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.prune_rest() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.prune_task() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.published_lows(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.pulses() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.reaches(queue integer, backlog_limit bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.record(queue integer, instance bigint, o integer[], ids bigint[], outcomes smallint[], attempts smallint[], priorities smallint[], delays_ms bigint[], texts text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.redrive(queue text, ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_full(q rowlock.queue) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_later(q rowlock.queue) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_null(what text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_payload(q rowlock.queue, bytes integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_right(duty text, queue text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_type(type text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_unknown_queue(queue text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.renew_grants() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.requeue(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.rescue(instance bigint, beat bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.rescue_after() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.revoke_role(role name, duty text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.rights() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.room_until() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.sample_percent(what regclass) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.settle(instance bigint, tokens bigint[], ids bigint[], outcomes smallint[], delays_ms bigint[], texts text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.statistics() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.story(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.sweep(queue integer, exact bigint[], quick bigint[], most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.task_state(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.tasks(queue text, state text, after bigint, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.tidy() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.try_mutex(duty integer, queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.unsettled(token bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.write_receipt(queue integer, instance bigint, state smallint, ids bigint[], attempts smallint[]) FROM PUBLIC;
