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
      insert into rowlock.allocation (number, queue, instance, slots) values (nextval('rowlock.allocation_seq'), $1, h.instance, target);
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
  where not q.restricted or rowlock.has_permission('reader', q.id) group by q.name order by q.name
$$;

CREATE FUNCTION rowlock.available_page(queue text, after bigint, most integer) RETURNS TABLE(id bigint, name text, attempt integer, at timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $_$
#variable_conflict use_column
declare
  p smallint := -1; v_k bigint := 0; newest bigint := (select s.last_value from rowlock.k_seq s);
  v_queues int[]; v_names text[]; v_watermarks bigint[]; v_left int := $3; n int;
begin
  if $2 is not null then
    select t.priority, coalesce(r.k, (newest & ~4294967295::bigint) + t.k_low + 2147483648, 0) into p, v_k
      from rowlock.every_task t left join lateral rowlock.find_ready(t.queue, t.priority, $2, t.k_low) r on true where t.id = $2;
  end if;
  select array_agg(q.id), array_agg(q.name), array_agg(coalesce(rowlock.published_watermarks(q.id), array_fill(0::bigint, array[16])))
    into v_queues, v_names, v_watermarks
    from rowlock.queue q where ($1 is null or q.name = $1) and (not q.restricted or rowlock.has_permission('reader', q.id));
  -- One priority after the other: most pages end in the first that has any.
  for v_p in greatest(p, 0) .. 3 loop
    return query
      select g, v_names[x.i], x.attempt::int, to_timestamp(x.since::bigint + 1704067200)
      from (select i.i, r.* from generate_subscripts(v_queues, 1) i(i), generate_series(0, 3) s, lateral (
          select y.* from rowlock.ready y where y.queue = v_queues[i.i] and y.shard = s::smallint and y.lane = 0 and y.priority = v_p::smallint
            and y.k >= greatest(v_watermarks[i.i][v_p * 4 + s + 1], case when v_p = p then v_k end) order by y.k limit v_left) r) x,
        generate_series(x.id, x.id + x.n - 1) g
      where (x.priority, x.k, g) > (p, v_k, coalesce($2, 0)) order by x.k, g limit v_left;
    get diagnostics n = row_count;
    v_left := v_left - n;
    exit when v_left <= 0;
  end loop;
end $_$;

CREATE FUNCTION rowlock.await_claims(instance bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
  perform rowlock.require_worker(i.queue) from rowlock.instance i where i.id = $1;
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
      from coalesce(rowlock.published_watermarks(q.id), array_fill(0::bigint, array[16])) watermarks, generate_series(0, 15) p, lateral (
        select sum(y.n) n, min(y.since) oldest, count(*) as rows from (
          select r.n, r.since from rowlock.ready r where r.queue = q.id and r.shard = (p & 3)::smallint and r.lane = 0 and r.priority = (p >> 2)::smallint and r.k >= watermarks[p + 1]
          order by r.k limit most) y) x) c on v_ready < 100
    left join (select d.queue, (count(*) filter (where d.waits = 0) * 100 / v_delayed)::bigint scheduled,
        (count(*) filter (where d.waits = 1) * 100 / v_delayed)::bigint retryable,
                      (count(*) filter (where d.due > now() + rowlock.later_after()) * 100 / v_delayed)::bigint later
               from rowlock.delayed d tablesample system (v_delayed) repeatable (0) group by d.queue) d on d.queue = q.id;
end $$;

CREATE FUNCTION rowlock.backlog_reaches(queue integer, backlog_limit bigint) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  select coalesce((select sum(r.n) from (select x.n from rowlock.ready x where x.queue = $1 limit $2) r), 0)
    + (select count(*) from (select 1 from rowlock.delayed d where d.queue = $1
        and d.due <= now() + rowlock.later_after() limit $2) d) >= $2
$_$;

CREATE FUNCTION rowlock.begin_maintenance(cleanup boolean) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
  -- Only the owner may detach and drop.
  if $1 and not pg_has_role(session_user, (select c.relowner from pg_class c where c.oid = 'rowlock.task'::regclass), 'usage') then return false; end if;
  update rowlock.maintenance m set
    next_partitions_at = case when $1 then m.next_partitions_at else now() + interval '5 minutes' end,
    next_cleanup_at = case when $1 then now() + interval '5 minutes' else m.next_cleanup_at end,
    steady_since = case when rowlock.is_step(m.seen_at) then now() else m.steady_since end,
    seen_at = now()
  where m.one_row = (
    select x.one_row from rowlock.maintenance x
    where case when $1 then x.next_cleanup_at else x.next_partitions_at end not between now() and now() + interval '5 minutes' for update skip locked);
  return found;
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
    SET plan_cache_mode TO 'force_generic_plan'
    AS $_$
#variable_conflict use_column
declare t record; v_attempt smallint;
begin
  perform rowlock.require_read_committed();
  select x.queue, x.priority, x.k_low into t from rowlock.every_task x where x.id = $1;
  if not found then return null; end if;
  if exists (select 1 from rowlock.queue q where q.id = t.queue and q.restricted
      and not rowlock.has_permission('producer', q.id)) then
    perform rowlock.refuse_permission('producer', (select q.name from rowlock.queue q where q.id = t.queue));
  end if;
  if rowlock.state_of($1, t.queue, t.priority, t.k_low) in ('completed', 'dead', 'cancelled') then return 'finished'; end if;
  insert into rowlock.cancel_request (id) values ($1) on conflict do nothing;
  for turn in 1 .. 3 loop
    case rowlock.state_of($1, t.queue, t.priority, t.k_low)
      when 'scheduled', 'retryable' then
        delete from rowlock.delayed x where x.id = $1 returning x.attempt into v_attempt;
      when 'available' then v_attempt := rowlock.take_ready(t.queue, t.priority, $1, t.k_low);
      when 'running' then return 'requested';
      else
        delete from rowlock.cancel_request c where c.id = $1;
        return 'finished';
    end case;
    if v_attempt is not null then
      perform rowlock.write_receipt(t.queue, null, 3::smallint, array[$1], array[v_attempt]);
      delete from rowlock.cancel_request c where c.id = $1;
      return 'cancelled';
    end if;
    -- It moved between the two looks.
  end loop;
  return 'requested';
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
    restricted boolean DEFAULT false NOT NULL,
    partitions_until integer DEFAULT 0 NOT NULL,
    notify_until timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    range_size smallint DEFAULT 128 NOT NULL,
    keep_completed interval NOT NULL,
    keep_dead interval NOT NULL,
    keep_cancelled interval NOT NULL,
    max_delay interval DEFAULT '365 days'::interval NOT NULL,
    watermarks bigint[],
    lows_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
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
  elsif added - noted[2]::bigint >= q.backlog_limit then
    -- It may have been other queues' tasks: counted, and again only after as many more.
    if rowlock.backlog_reaches(q.id, q.backlog_limit) then perform rowlock.refuse_full(q); end if;
    perform set_config(setting, xid || ' ' || added, true);
  end if;
end $$;

CREATE FUNCTION rowlock.check_ending(instance bigint) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
  if exists (select 1 from rowlock.instance i where i.id = $1 and i.ended_at is null) then
    raise exception 'instance % is being ended', instance using errcode = 'lock_not_available', hint = 'Ask again.';
  end if;
  return false;
end $_$;

CREATE FUNCTION rowlock.check_options(options jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare bad text;
begin
  if jsonb_typeof(options) is distinct from 'object' then
    raise exception 'options must be a JSON object' using errcode = 'RL005', hint = 'Leave them out, or pass for example {"priority": 0}.';
  end if;
  select key into bad from jsonb_object_keys(options) key where key not in ('priority', 'run_at', 'delay', 'max_attempts', 'notify') limit 1;
  if found then
    raise exception 'unknown option "%"', bad using errcode = 'RL002', hint = 'Options are priority, run_at, delay, max_attempts and notify.';
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
  if options ? 'notify' and jsonb_typeof(options->'notify') <> 'boolean' then
    raise exception 'notify must be true or false' using errcode = 'RL005', hint = 'false enqueues without NOTIFY, for PREPARE TRANSACTION.';
  end if;
end $_$;

CREATE FUNCTION rowlock.chunk_of(id bigint) RETURNS integer
    LANGUAGE sql IMMUTABLE
    RETURN ((((id >> 8) & (1073741823)::bigint))::integer + 1);

CREATE FUNCTION rowlock.claim(instance bigint, want integer, watermarks bigint[], start integer, token bigint) RETURNS TABLE(firsts bigint[], ns smallint[], attempts smallint[], priorities smallint[], contended boolean, newest_k bigint, least_ks bigint[])
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
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
    insert into rowlock.receipt (queue, state, firsts, ns, attempts) select $1, 3, array_agg(o.id order by o.id), array_agg(o.n order by o.id), array_agg(o.attempt order by o.id) from unfinished o having count(*) > 0)
  select coalesce(sum(o.n), 0) into cancelled from unfinished o;
  with dead as (delete from rowlock.dead d where d.queue = $1 returning d.id, d.attempt)
  insert into rowlock.receipt (queue, state, firsts, ns, attempts) select $1, 2, array_agg(d.id order by d.id), array_agg(1::smallint), array_agg(d.attempt order by d.id) from dead d having count(*) > 0;
  return cancelled;
end $_$;

CREATE FUNCTION rowlock.clock_is_steady() RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select m.steady_since <= now() - interval '1 hour' and not rowlock.is_step(m.seen_at) from rowlock.maintenance m
$$;

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
    notify boolean DEFAULT true NOT NULL,
    moved integer DEFAULT 0 NOT NULL
)
WITH (fillfactor='90', vacuum_truncate=off, autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='10000', autovacuum_vacuum_insert_scale_factor='0', autovacuum_vacuum_insert_threshold='1000000', autovacuum_vacuum_cost_delay='0', autovacuum_analyze_scale_factor='0', autovacuum_analyze_threshold='1000000');

CREATE FUNCTION rowlock.commit_late(r rowlock.ready) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
  update rowlock.ready y set k = nextval('rowlock.k_seq'), fresh = false, moved = rowlock.chunk_of(y.id)
    where y.queue = r.queue and y.shard = r.shard and y.lane = r.lane and y.priority = r.priority and y.k = r.k;
  return current_setting('rowlock.notify', true) is distinct from 'off'
    and exists (select 1 from rowlock.queue q where q.id = r.queue and q.notify_until > clock_timestamp());
end $$;

CREATE FUNCTION rowlock.copy_unexpired_tasks(part text, lo bigint, hi bigint, most integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
declare n int;
begin
  -- The lateral look takes each task by its id: a join would read the whole partition.
  execute format($q$
    with wanted as (
      (select d.id, null::timestamptz at from rowlock.delayed d
        where d.id >= $1 and d.id < $2 and not exists (select 1 from rowlock.task_kept k where k.id = d.id) order by d.id limit $3)
      union all (select d.id, null from rowlock.dead d
        where d.id >= $1 and d.id < $2 and not exists (select 1 from rowlock.task_kept k where k.id = d.id) order by d.id limit $3)
      union all select g, null from rowlock.ready r, generate_series(greatest(r.id, $1), least(r.id + r.n, $2) - 1) g where r.id < $2 and r.id + r.n > $1
      union all select g, null from rowlock.lease l, unnest(l.firsts, l.ns) u(f, n), generate_series(greatest(u.f, $1), least(u.f + u.n, $2) - 1) g
        where g <> all (l.settled)
      union all select g, r.at from rowlock.queue q, rowlock.receipt r, unnest(r.firsts, r.ns) u(f, n),
          generate_series(greatest(u.f, $1), least(u.f + u.n, $2) - 1) g
        where r.queue = q.id and r.state in (1, 3) and r.firsts[1] > $1 - 8589934592 and r.firsts[1] < $2
          and r.at > now() - case r.state when 1 then q.keep_completed else q.keep_cancelled end
          and r.at > now() - (select greatest(max(x.keep_completed), max(x.keep_cancelled)) from rowlock.queue x))
    insert into rowlock.task_kept (id, queue, k_low, priority, max_attempts, type, payload, finished_at)
    select t.*, w.at from (
        select x.id, max(x.at) at from wanted x
        where not exists (select 1 from rowlock.task_kept k where k.id = x.id and k.id >= $1 and k.id < $2) group by x.id order by x.id limit $3) w,
      lateral (select y.* from rowlock.%I y where y.id = w.id offset 0) t
    on conflict do nothing$q$, part) using lo, hi, most;
  get diagnostics n = row_count;
  return n;
end $_$;

CREATE FUNCTION rowlock.declare_queue(name text, owner text, generation bigint, policy json, max_attempts integer, total_workers integer, paused boolean, backlog_limit bigint, payload_limit integer, keep_completed interval, keep_dead interval, keep_cancelled interval, max_delay interval, adopts text DEFAULT NULL::text) RETURNS integer
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
  if found and v.owner <> $2 and v.owner is distinct from $14 then
    raise exception 'queue "%" belongs to %', $1, v.owner using errcode = 'RL008', hint = 'Choose another queueName, or adopt the queue.';
  end if;
  if not found then
    -- Until a grant under way has ended: it would not see this queue, and leave it unrestricted.
    lock table rowlock.access in share mode;
    insert into rowlock.queue (name, owner, generation, policy, max_attempts, total_workers, paused,
        backlog_limit, payload_limit, keep_completed, keep_dead, keep_cancelled, max_delay, partitions_until, restricted)
      values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, rowlock.partitions_until(), exists (select 1
          from rowlock.access a where a.queue <> 0)) on conflict (name) do nothing returning * into v;
    -- Here, so that nobody waits for somebody else's first time.
    insert into rowlock.mutex (operation, queue) select operation, v.id from generate_series(5, 6) operation
        where v.id is not null on conflict do nothing;
    if v.id is null then return rowlock.declare_queue($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14);
        end if;
  elsif (v.owner, v.generation, v.policy::text, v.max_attempts, v.total_workers, v.paused, v.backlog_limit, v.payload_limit, v.keep_completed, v.keep_dead, v.keep_cancelled, v.max_delay)
      is distinct from ($2, $3, $4::text, $5, $6, $7, $8, $9, $10, $11, $12, $13) then
    update rowlock.queue q set owner = $2, generation = $3, policy = $4, max_attempts = $5, total_workers = $6, paused = $7, backlog_limit = $8, payload_limit = $9,
      keep_completed = $10, keep_dead = $11, keep_cancelled = $12, max_delay = $13 where q.id = v.id;
  end if;
  return v.id;
end $_$;

CREATE FUNCTION rowlock.delete_expired_tasks(most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
declare q record; gone bigint[]; kept bigint[]; n int := 0;
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(4, 0) then return 0; end if;
  if not rowlock.clock_is_steady() then return 0; end if;
  for q in
    with old as (
      delete from rowlock.dead d where d.id in (
        select x.id from rowlock.queue y, lateral (
          select z.id from rowlock.dead z where z.queue = y.id and z.at < now() - y.keep_dead order by z.at limit $1 for update skip locked) x limit $1)
      returning d.id, d.queue, d.attempt)
    select o.queue, array_agg(o.id) ids, array_agg(o.attempt) attempts from old o group by o.queue
  loop
    -- A receipt stays behind, so that the task of a partition that is still there has a state.
    perform rowlock.write_receipt(q.queue, null, 2::smallint, q.ids, q.attempts);
    gone := gone || q.ids; n := n + cardinality(q.ids);
  end loop;
  kept := array(
    select x.id from rowlock.queue y, lateral (
      select k.id from rowlock.task_kept k where k.queue = y.id and k.finished_at < now() - greatest(y.keep_completed, y.keep_cancelled)
      order by k.finished_at limit $1) x limit $1);
  delete from rowlock.task_kept k where k.id = any (gone || kept);
  delete from rowlock.task_error_kept f where f.id = any (gone || kept);
  return n + cardinality(kept);
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
  perform rowlock.require_read_committed();
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
  delete from rowlock.snooze s using rowlock.every_task t where t.id = s.id and t.queue = v.id;
  delete from rowlock.task_kept t where t.queue = v.id;
  delete from rowlock.mutex m where m.queue = v.id;
  delete from rowlock.queue q where q.id = v.id;
  return cancelled;
end $_$;

CREATE FUNCTION rowlock.describe_task(id bigint) RETURNS TABLE(queue text, type text, state text, priority smallint, attempt integer, max_attempts smallint, enqueued_at timestamp with time zone, due_at timestamp with time zone, finished_at timestamp with time zone, instance text, payload text, result text, snoozes integer, first_snoozed_at timestamp with time zone, snoozed_at timestamp with time zone)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $_$
#variable_conflict use_column
declare t record; v_state text; v_attempt int; v_due timestamptz; v_at timestamptz; v_instance bigint; v_result text;
begin
  select x.* into t from rowlock.every_task x where x.id = $1;
  if not found or exists (select 1 from rowlock.queue q where q.id = t.queue and q.restricted and not rowlock.has_permission('reader', q.id)) then return; end if;
  v_state := rowlock.state_of($1, t.queue, t.priority, t.k_low);
  case v_state
    when 'scheduled', 'retryable' then select d.attempt, d.due into v_attempt, v_due from rowlock.delayed d where d.id = $1;
    when 'available' then select r.attempt into v_attempt from rowlock.find_ready(t.queue, t.priority, $1, t.k_low) r;
    when 'running' then select l.attempt, l.instance into v_attempt, v_instance from rowlock.find_lease($1) l;
    else
      select d.attempt, d.at into v_attempt, v_at from rowlock.dead d where d.id = $1;
      if not found then select r.attempt, r.at, r.instance into v_attempt, v_at, v_instance from rowlock.find_receipt(t.queue, $1) r; end if;
  end case;
  -- What is completed has its result from that moment.
  if v_state = 'completed' then select y.value into v_result from rowlock.result y where y.id = $1 and y.at = v_at; end if;
  return query
    select q.name, t.type, v_state, t.priority, coalesce(v_attempt, 0), coalesce(t.max_attempts, q.max_attempts), rowlock.id_time($1), v_due, v_at,
           (select i.name from rowlock.instance i where i.id = v_instance), t.payload::text, v_result, coalesce(s.times, 0), s.first_at, s.at
    from rowlock.queue q left join rowlock.snooze s on s.id = $1 where q.id = t.queue;
end $_$;

CREATE FUNCTION rowlock.drain(instance bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
  perform rowlock.require_worker(i.queue) from rowlock.instance i where i.id = $1;
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

CREATE FUNCTION rowlock.empty_other_partitions() RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    SET jit TO 'off'
    AS $_$
declare p record; done text[] := '{}'; unused boolean;
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(1, 0) then return done; end if;
  -- Detached, but whoever did it was gone before it could drop the table.
  for p in select c.relname part from pg_class c where c.relnamespace = 'rowlock'::regnamespace and c.relkind = 'r' and not c.relispartition
      and c.relname ~ '^(task|receipt|result|task_error|heartbeat|allocation)_[0-9]+$' loop
    begin
      execute format('lock table rowlock.%I in access exclusive mode', p.part);
      execute format('select not exists (select 1 from rowlock.%I)', p.part) into unused;
      if unused then execute format('drop table rowlock.%I', p.part); end if;
    exception
      when lock_not_available then null;
      when others then raise warning 'table % cannot be dropped: %', p.part, sqlerrm;
    end;
  end loop;
  if not rowlock.clock_is_steady() then return done; end if;
  for p in select * from rowlock.expired_partitions() loop
    begin
      execute format('lock table rowlock.%I in access exclusive mode', p.part);
      if p.parent = 'task_error' then
        execute format('select not exists (select 1 from rowlock.%I f where f.id in (select t.id from rowlock.task_kept t))', p.part) into unused;
        continue when not unused;   -- rowlock.move_kept_errors has not come to its end
      end if;
      execute format('truncate rowlock.%I', p.part);
      done := done || (p.parent || ' ' || p.part);
    exception
      when lock_not_available then null;   -- somebody reads this one: the others need not wait for that
      when others then raise warning 'partition % cannot be emptied: %', p.part, sqlerrm;
    end;
  end loop;
  return done;
end $_$;

CREATE FUNCTION rowlock.empty_task_partition(most integer DEFAULT 5000) RETURNS TABLE(part text, more boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    SET jit TO 'off'
    AS $_$
declare v_part text; v_lo bigint; v_hi bigint; keep interval; last bigint;
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(1, 0) then return; end if;
  if not rowlock.clock_is_steady() then return; end if;
  select coalesce(greatest(max(keep_completed), max(keep_cancelled)), interval '1 day') into keep from rowlock.queue;
  select p.part, rowlock.id_at(p.lo), rowlock.id_at(p.hi) into v_part, v_lo, v_hi from rowlock.partitions_of('task') p order by p.detaches desc, p.hi limit 1;
  -- Ten minutes more, so that what is done at once is not copied because it was enqueued in the last second.
  if v_part is null or rowlock.id_time(v_hi) > now() - keep - interval '10 minutes' then return; end if;
  select max(k.id) into last from rowlock.task_kept k where k.id >= v_lo and k.id < v_hi;
  if rowlock.copy_unexpired_tasks(v_part, greatest(last + 1, v_lo), v_hi, $1) > 0 then return query select null::text, true; return; end if;
  begin
    execute format('lock table rowlock.%I in access exclusive mode', v_part);
    raise exception using errcode = 'RL000';
  exception
    when sqlstate 'RL000' then null;   -- it can be had, and is given back for now
    when lock_not_available then return;
  end;
  -- Nobody adds to it any more, and its tasks are read until the rest is kept elsewhere, however many that are.
  execute format('lock table rowlock.%I in share mode', v_part);
  if rowlock.copy_unexpired_tasks(v_part, v_lo, v_hi, $1) >= $1 then return query select null::text, true; return; end if;
  execute format('lock table rowlock.%I in access exclusive mode', v_part);
  execute format('truncate rowlock.%I', v_part);
  return query select v_part, false;
exception when lock_not_available then
  return;   -- somebody came between
end $_$;

CREATE FUNCTION rowlock.end_maintenance(cleanup boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
  update rowlock.maintenance m set
    next_partitions_at = case when $1 then m.next_partitions_at else now() + interval '1 minute' end,
    next_cleanup_at = case when $1 then now() + interval '1 minute' else m.next_cleanup_at end;
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
  if q.restricted and not rowlock.has_permission('producer', q.id) then perform rowlock.refuse_permission('producer', q.name);
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
  if v_id >> 31 >= q.partitions_until then perform rowlock.make_partitions(); end if;
  if options <> '{}' then
    perform rowlock.check_options(options);
    prio := coalesce((options->>'priority')::smallint, prio);
    attempts := (options->>'max_attempts')::smallint;
    due := rowlock.due_of(options);
    if due > now() + q.max_delay then perform rowlock.refuse_delay(q); end if;
    if q.later_full and due > now() + rowlock.later_after() then perform rowlock.refuse_later(q); end if;
    if (options->>'notify')::boolean is false then perform set_config('rowlock.notify', 'off', true); q.notify_until := '-infinity'; end if;
  end if;
  -- The transaction has its xid before it draws k, which the exact watermark relies on (R6).
  if due is null then v_k := case when pg_current_xact_id() is not null then nextval('rowlock.k_seq') end; end if;
  insert into rowlock.task (id, queue, k_low, priority, max_attempts, type, payload)
    values (v_id, q.id, ((v_k & 4294967295) - 2147483648)::int, prio, attempts, $2, $3);
  if due is null then
    insert into rowlock.ready (queue, shard, priority, since, k, id, n, attempt, fresh, notify) values (q.id, v_k & 3, prio, (v_id >> 31)::int, v_k, v_id, 1, 0, true, q.notify_until > now());
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
  bases bigint[]; largest int; missing bigint; added bigint; ks bigint[];
  second bigint := (floor(date_part('epoch', clock_timestamp()))::bigint - 1704067200) << 31;
begin
  select * into q from rowlock.queue where name = $1;
  if not found then perform rowlock.refuse_unknown_queue($1); end if;
  if q.restricted and not rowlock.has_permission('producer', q.id) then perform rowlock.refuse_permission('producer', q.name);
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
  if second >> 31 >= q.partitions_until then perform rowlock.make_partitions(); end if;
  options := coalesce(options, '{}');
  perform rowlock.check_options(options);
  prio := coalesce((options->>'priority')::smallint, prio);
  attempts := (options->>'max_attempts')::smallint;
  due := rowlock.due_of(options);
  if due > now() + q.max_delay then perform rowlock.refuse_delay(q); end if;
  if q.later_full and due > now() + rowlock.later_after() then perform rowlock.refuse_later(q); end if;
  if (options->>'notify')::boolean is false then perform set_config('rowlock.notify', 'off', true); q.notify_until := '-infinity'; end if;
  size := q.range_size;
  bases := array(select second | ((nextval('rowlock.chunk_seq') & 8388607) << 8) from generate_series(1, (n + size - 1) / size));
  -- The transaction has its xid before it draws k, which the exact watermark relies on (R6).
  if due is null and pg_current_xact_id() is not null then
    ks := array(select nextval('rowlock.k_seq') from generate_series(1, (n + size - 1) / size));
  end if;
  insert into rowlock.task (id, queue, k_low, priority, max_attempts, type, payload)
    select bases[(p.o - 1) / size + 1] + (p.o - 1) % size, q.id, ((ks[(p.o - 1) / size + 1] & 4294967295) - 2147483648)::int, prio, attempts, $2, p.p
    from unnest(payloads) with ordinality p(p, o);
  added := pg_stat_get_xact_tuples_inserted((select t.tableoid from rowlock.task t where t.id = bases[1]));
  if added > q.backlog_limit then perform rowlock.check_added(q, 'rowlock.added_many', added); end if;
  if due is null then
    insert into rowlock.ready (queue, shard, priority, k, id, n, attempt, fresh, notify)
      select q.id, b.k & 3, prio, b.k, b.base, least(size, n - (b.o - 1) * size), 0, true, q.notify_until > now()
      from unnest(bases, ks) with ordinality b(base, k, o);
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

CREATE FUNCTION rowlock.expired_partitions() RETURNS TABLE(parent text, part text, hi timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare keep interval; oldest timestamptz;
begin
  select coalesce(greatest(max(keep_completed), max(keep_cancelled)), interval '1 day') into keep from rowlock.queue;
  -- A task is younger than the upper bound of the partition before its own; what was settled earlier belongs to no task that is left.
  select min(p.hi) - 2 * rowlock.partition_width() into oldest from rowlock.partitions_of('task') p;
  return query
    select t.parent, p.part, p.hi from unnest(array['receipt', 'result', 'task_error', 'heartbeat', 'allocation']) t(parent), rowlock.partitions_of(t.parent) p
    where p.hi <= case when t.parent in ('heartbeat', 'allocation') then now() - interval '1 hour' else least(oldest, now() - keep) end
      -- What is kept has a receipt, and its result: it goes first.
      and (t.parent not in ('receipt', 'result') or not exists (select 1 from rowlock.task_kept k where k.finished_at < p.hi))
    order by p.detaches desc, p.hi;
end $$;

CREATE FUNCTION rowlock.extend_partitions(ahead interval DEFAULT '3 days'::interval) RETURNS double precision
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '100ms'
    SET "DateStyle" TO 'ISO, YMD'
    SET "TimeZone" TO 'UTC'
    AS $_$
declare
  parent text; width interval; lo timestamptz; hi timestamptz; hours double precision := 'infinity';
begin
  if not rowlock.try_mutex(1, 0) then return null; end if;
  if ahead > interval '31 days' then
    raise exception 'partitions are made at most 31 days ahead' using errcode = 'RL005',
        hint = 'Each is a table: three days, the default, are enough.';
  end if;
  foreach parent in array array['task', 'receipt', 'result', 'task_error', 'heartbeat', 'allocation'] loop
    perform rowlock.fill_partition_gap(parent);
    width := case when parent in ('heartbeat', 'allocation') then interval '6 hours' else rowlock.partition_width() end;
    select to_timestamp(max(substring(c.relname from '_([0-9]+)$')::bigint)) into lo
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = format('rowlock.%I', parent)::regclass;
    -- The first partition reaches back two days: a clock that steps back finds its place.
    if lo is null then lo := date_trunc('hour', now()) - interval '2 days'; hi := date_trunc('hour', now()) + width;
    else hi := lo + width; end if;
    while lo < now() + ahead loop
      -- Nobody maintained it for longer than partitions were made ahead: one takes in all that time.
      hi := greatest(hi, date_trunc('hour', now()) + width);
      perform rowlock.make_partition(parent, lo, hi);
      lo := hi; hi := hi + width;
    end loop;
    hours := least(hours, date_part('epoch', lo - now()) / 3600);
  end loop;
  -- For enqueue, which makes partitions itself where nobody has. A row that somebody changes is left for the
  -- next time.
  update rowlock.queue q set partitions_until = rowlock.partitions_until() where q.id in (
    select x.id from rowlock.queue x where x.partitions_until <> rowlock.partitions_until()
        for no key update skip locked);
  return hours;
end $_$;

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

CREATE FUNCTION rowlock.fill_partition_gap(parent text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare ends timestamptz; begins timestamptz;
begin
  if exists (select 1 from rowlock.partitions_of(parent) p where p.lo <= now() and now() < p.hi) then return; end if;
  select max(p.hi) filter (where p.hi <= now()), min(p.lo) filter (where p.lo > now()) into ends, begins from rowlock.partitions_of(parent) p;
  if begins is null then return; end if;
  perform rowlock.make_partition(parent, coalesce(ends, date_trunc('hour', now()) - interval '2 days'), begins);
end $$;

CREATE FUNCTION rowlock.find_lease(id bigint) RETURNS TABLE(instance bigint, attempt smallint)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
  select l.instance, u.attempt from rowlock.lease l, unnest(l.firsts, l.ns, l.attempts) u(f, n, attempt)
  where $1 >= u.f and $1 < u.f + u.n and $1 <> all (l.settled) limit 1
$_$;

CREATE FUNCTION rowlock.find_ready(queue integer, priority smallint, id bigint, k_low integer) RETURNS SETOF rowlock.ready
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $_$
#variable_conflict use_column
declare v_k bigint := $4::bigint + 2147483648; newest bigint := (select s.last_value from rowlock.k_seq s);
begin
  v_k := v_k + (newest & ~4294967295::bigint);
  for turn in 1 .. 2 loop
    return query select r.* from rowlock.ready r
      where r.queue = $1 and r.shard = (v_k & 3)::smallint and r.lane = 0 and r.priority = $2 and r.k = v_k and r.fresh and $3 >= r.id and $3 < r.id + r.n;
    if found then return; end if;
    exit when v_k <= newest or v_k is null;
    v_k := v_k - 4294967296;
  end loop;
  return query select r.* from rowlock.ready r where r.moved = rowlock.chunk_of($3) and r.moved <> 0 and not r.fresh and $3 >= r.id and $3 < r.id + r.n and r.queue = $1
    limit 1;
end $_$;

CREATE FUNCTION rowlock.find_receipt(queue integer, id bigint) RETURNS TABLE(at timestamp with time zone, instance bigint, state smallint, attempt smallint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $_$
#variable_conflict use_column
declare enqueued timestamptz := rowlock.id_time($2); bounds timestamptz[];
begin
  bounds := array[enqueued - interval '1 minute', enqueued + interval '1 hour', enqueued - interval '1 day', greatest(now(), enqueued) + interval '1 minute', '-infinity', 'infinity'];
  for turn in 0 .. 2 loop
    return query select r.at, r.instance, r.state, u.attempt from rowlock.receipt r, unnest(r.firsts, r.ns, r.attempts) u(f, n, attempt)
      where r.queue = $1 and r.firsts[1] > $2 - 8589934592 and r.firsts[1] <= $2 and (r.firsts[array_upper(r.firsts, 1)] + r.ns[array_upper(r.ns, 1)]) > $2
        and r.at >= bounds[2 * turn + 1] and r.at < bounds[2 * turn + 2] and $2 >= u.f and $2 < u.f + u.n limit 1;
    if found then return; end if;
  end loop;
end $_$;

CREATE FUNCTION rowlock.finished_page(queue text, state smallint, after bigint, most integer) RETURNS TABLE(id bigint, name text, attempt integer, at timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $_$
#variable_conflict use_column
declare newest timestamptz := now() + interval '1 minute'; v_id bigint;
begin
  if $3 is not null then
    select r.at, $3 into newest, v_id from rowlock.every_task t, lateral rowlock.find_receipt(t.queue, $3) r where t.id = $3;
  end if;
  return query
    select g, x.name, u.attempt::int, x.at
    from (select q.name, y.* from rowlock.queue q, lateral (
        select r.at, r.firsts, r.ns, r.attempts from rowlock.receipt r
        where r.queue = q.id and r.state = $2 and r.at > now() - interval '1 day' and r.at <= newest
          -- One transaction may have written many at one moment, which go by id: those that earlier pages showed are none.
          and (v_id is null or r.at < newest or r.firsts[array_upper(r.firsts, 1)] + r.ns[array_upper(r.ns, 1)] > v_id + 1)
        order by r.at desc fetch first ($4) rows with ties) y
        where ($1 is null or q.name = $1) and (not q.restricted or rowlock.has_permission('reader', q.id))) x, unnest(x.firsts, x.ns, x.attempts) u(f, n, attempt), generate_series(u.f, u.f + u.n - 1) g
    where v_id is null or x.at < newest or g > v_id
    order by x.at desc, g limit $4;
end $_$;

CREATE FUNCTION rowlock.grant_role(role name, permission text, queues text[] DEFAULT NULL::text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_column
declare unknown text;
begin
  if $2 is null or $2 not in ('producer', 'worker', 'reader') then
    raise exception 'unknown permission "%"', $2 using errcode = 'RL005',
        hint = 'Permissions are producer, worker and reader.';
  end if;
  if not exists (select 1 from pg_roles r where r.rolname = $1) then
    raise exception 'there is no role "%"', $1 using errcode = 'RL005',
        hint = format('Create it first: create role %I login;', $1);
  end if;
  if cardinality($3) = 0 then
    raise exception 'no queue was named' using errcode = 'RL005', hint = 'rowlock.revoke_role takes a permission back.';
  end if;
  select u.name into unknown from unnest($3) u(name) where not exists (select 1 from rowlock.queue q
      where q.name = u.name) limit 1;
  if found then perform rowlock.refuse_unknown_queue(unknown); end if;
  delete from rowlock.access a where a.role = $1 and a.permission = $2;
  if $3 is null then insert into rowlock.access values ($1, $2, 0);
  else insert into rowlock.access select distinct $1, $2, q.id from rowlock.queue q where q.name = any ($3);
      end if;
  perform rowlock.renew_grants();
end $_$;

CREATE FUNCTION rowlock.has_partition() RETURNS boolean
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select rowlock.partitions_until() > date_part('epoch', clock_timestamp()) - 1704067200::float8
$$;

CREATE FUNCTION rowlock.has_permission(permission text, queue integer) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare who name := rowlock.caller();
begin
  return pg_has_role(who, (select n.nspowner from pg_namespace n where n.nspname = 'rowlock'), 'usage')
      or exists (
    select 1 from rowlock.access a join pg_roles r on r.rolname = a.role
    where a.queue in (0, $2) and ($1 is null or a.permission = $1) and pg_has_role(who, r.oid, 'usage'));
end $_$;

CREATE FUNCTION rowlock.heartbeat(instance bigint, held integer, allocated integer, allocation bigint, wants integer, watermarks bigint[], idle boolean, service_ms real) RETURNS TABLE(gone boolean, allocation_number bigint, slots integer, paused boolean, generation bigint, newest_k bigint, least_ks bigint[], canceled bigint[], peers integer, noted_k bigint, noted_xid bigint, xmin bigint, allocation_missed boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
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
end $_$;

CREATE FUNCTION rowlock.holding(queue integer) RETURNS TABLE(instance bigint, drains boolean, wants integer, granted integer, holds integer, at_most integer)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
  select i.id, i.drains, coalesce(least(b.wants, i.capacity), 0),
         case when b.n is null then 0 when a.number > b.allocation then a.slots else b.allocated end,
         h.holds, case when b.at < now() - interval '5 seconds' then greatest(h.holds, i.capacity) else h.holds end
  from rowlock.instance i
  left join lateral (select x.* from rowlock.heartbeat x where x.instance = i.id and x.at > now() - interval '1 minute' order by x.n desc limit 1) b on true
  left join lateral (select max(x.number) number, max(x.slots) highest, (array_agg(x.slots order by x.number desc))[1] slots
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

CREATE FUNCTION rowlock.is_silent(instance bigint, heartbeat bigint) RETURNS boolean
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
  select not exists (select 1 from rowlock.heartbeat b where b.instance = $1 and b.n = $2
      and b.at > clock_timestamp() - rowlock.rescue_after())
    or exists (select 1 from rowlock.instance i, lateral (
      select 1 from rowlock.heartbeat x where x.instance = i.id and x.n > $2
        and x.at between clock_timestamp() - interval '1 minute'
            and clock_timestamp() - rowlock.rescue_after() order by x.n desc limit 1) later
      where i.ended_at is null)
$_$;

CREATE FUNCTION rowlock.is_step(seen_at timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  select now() not between $1 - interval '1 minute' and $1 + interval '1 hour'
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
  perform rowlock.require_worker(q.id);
  if (length($2) between 1 and 200 and $2 !~ '[[:cntrl:]]') is not true then
    raise exception 'the name of an instance has 1 to 200 printable characters' using errcode = 'RL005',
        hint = 'It is for people: a pod''s name, for example.';
  end if;
  insert into rowlock.instance (id, queue, name, capacity) values ((floor(random() * 2097152)::bigint << 32) | (nextval('rowlock.instance_seq') & 4294967295), q.id, $2, $3) returning * into i;
  insert into rowlock.heartbeat (n, at, instance, queue, held, allocated, allocation, wants)
      values (nextval('rowlock.heartbeat_seq'), clock_timestamp(), i.id, q.id, 0, 0, 0, 0);
  return i;
end $_$;

CREATE FUNCTION rowlock.keep_watermarks() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION rowlock.later_after() RETURNS interval
    LANGUAGE sql IMMUTABLE
    RETURN '24:00:00'::interval;

CREATE FUNCTION rowlock.least_k(queue integer, watermarks bigint[]) RETURNS bigint[]
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
  perform rowlock.require_read_committed();
  perform rowlock.require_worker(i.queue) from rowlock.instance i where i.id = $1;
  perform 1 from rowlock.instance i where i.id = $1 and i.ended_at is null for update;
  if not found then return 0; end if;
  for l in select x.token, x.queue from rowlock.lease x where x.instance = $1 order by x.token for update loop
    back := back + rowlock.release_lease($1, l.queue, l.token);
  end loop;
  update rowlock.instance i set ended_at = now() where i.id = $1;
  return back;
end $_$;

CREATE FUNCTION rowlock.list_tasks(queue text, state text, after bigint, most integer) RETURNS TABLE(id bigint, queue_name text, type text, attempt integer, at timestamp with time zone)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $_$
#variable_conflict use_column
begin
  return query
    select x.id, x.name, coalesce((select t.type from rowlock.task t where t.id = x.id), (select t.type from rowlock.task_kept t where t.id = x.id)), x.attempt, x.at
    from (
      select row_number() over () o, y.* from (
        select * from rowlock.waiting_page($1, $2, $3, $4) where $2 in ('scheduled', 'retryable', 'dead', 'running')
        union all select * from rowlock.available_page($1, $3, $4) where $2 = 'available'
        union all select * from rowlock.finished_page($1, case $2 when 'completed' then 1 else 3 end::smallint, $3, $4) where $2 in ('completed', 'cancelled')) y) x
    order by x.o;
end $_$;

CREATE FUNCTION rowlock.lose_tasks(queue integer, instance bigint, name text, drains boolean, ids bigint[], attempts smallint[], priorities smallint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare outcomes smallint[]; used smallint[]; lost text := format('lease lost: instance %s stopped sending heartbeats', $3);
begin
  select array_agg(case when c.id is not null then 6 when x.attempt + x.costs >= m.max_attempts and x.costs = 1 then 3 else 5 end::smallint order by x.p),
         array_agg(x.costs::smallint order by x.p) into outcomes, used
  from (select u.id, u.attempt, u.p, case when $4 and (select count(*) from rowlock.task_error f where f.id = u.id and f.attempt = 0) < rowlock.interruption_limit() then 0 else 1 end costs
        from unnest($5, $6) with ordinality u(id, attempt, p)) x
  left join rowlock.max_attempts($1, $5) m on m.id = x.id left join rowlock.cancel_request c on c.id = x.id;
  insert into rowlock.task_error (id, attempt, instance, error)
    select x.id, (x.attempt + 1) * x.costs, $2, case x.costs when 1 then lost else format('interrupted: instance %s was ended before it had drained; no attempt was used', $3) end
    from unnest($5, $6, outcomes, used) x(id, attempt, outcome, costs) where x.outcome = 5;
  perform rowlock.write_outcomes($1, $2, array_fill(1, array[cardinality($5)]), $5, outcomes,
    (select array_agg((case x.outcome when 5 then x.attempt + x.costs else x.attempt end)::smallint order by x.p) from unnest($6, outcomes, used) with ordinality x(attempt, outcome, costs, p)),
    $7, '{0}', array[lost]);
end $_$;

CREATE FUNCTION rowlock.maintain(watermark timestamp with time zone, most integer, check_limits boolean, read_heartbeats boolean) RETURNS TABLE(moved integer, more boolean, next timestamp with time zone, k bigint, xid bigint, xmin bigint, at timestamp with time zone, instances bigint[], heartbeats bigint[])
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare v_k bigint; v_at timestamptz;
begin
  select s.last_value + s.is_called::int, clock_timestamp() into v_k, v_at from rowlock.k_seq s;
  if $3 then perform rowlock.update_backlog_limits(); end if;
  return query select p.*, v_k, pg_current_xact_id()::text::bigint, pg_snapshot_xmin(pg_current_snapshot())::text::bigint, v_at, l.* from rowlock.move_due($1, $2) p,
    (select array_agg(y.instance), array_agg(y.heartbeat) from rowlock.newest_heartbeats() y where $4) l;
end $_$;

CREATE FUNCTION rowlock.make_partition(parent text, lo timestamp with time zone, hi timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "DateStyle" TO 'ISO'
    SET "TimeZone" TO 'UTC'
    AS $$
declare child text := format('%s_%s', parent, floor(date_part('epoch', hi))::bigint); in_use boolean;
begin
  -- Not by a query: under REPEATABLE READ that would see neither who attached it nor what was enqueued since.
  if pg_get_partition_constraintdef(to_regclass(format('rowlock.%I', child))) is not null then
    raise exception 'another session has made the partition %', child using errcode = 'serialization_failure', hint = 'Begin the transaction again.';
  end if;
  if to_regclass(format('rowlock.%I', child)) is not null then
    execute format('select exists (select 1 from rowlock.%I)', child) into in_use;
    if not in_use then execute format('drop table rowlock.%I', child); end if;
  end if;
  execute format('create table rowlock.%I (like rowlock.%I including defaults including constraints)', child, parent);
  -- rowlock.move_kept_errors deletes from it, which a publication FOR ALL TABLES refuses otherwise (R9).
  if parent = 'task_error' then execute format('alter table rowlock.%I replica identity full', child); end if;
  if parent = 'task' then
    execute format('alter table rowlock.task attach partition rowlock.%I for values from (%s) to (%s)', child, rowlock.id_at(lo), rowlock.id_at(hi));
  else
    execute format('alter table rowlock.%I attach partition rowlock.%I for values from (%L) to (%L)', parent, child, lo, hi);
  end if;
end $$;

CREATE FUNCTION rowlock.make_partitions() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '4s'
    AS $$
declare holder text;
begin
  if rowlock.has_partition() then return; end if;
  begin
    perform 1 from rowlock.mutex m where m.operation = 1 and m.queue = 0 for update;
    if not rowlock.has_partition() then perform rowlock.extend_partitions(); end if;
  exception when lock_not_available then null;
  end;
  if not rowlock.has_partition() then
    select coalesce('process ' || h.pid, format('the prepared transaction "%s"', h.prepared)) into holder
      from rowlock.mutex_holders() h where h.permission = 1;
    if holder is not null then
      raise exception 'there is no partition for new tasks, and % holds the lock for making one', holder
        using errcode = 'RL010', hint = 'End that transaction: pg_terminate_backend, or ROLLBACK PREPARED.';
    end if;
    raise exception 'there is no partition for new tasks: nothing has maintained this database since %',
        to_timestamp(rowlock.partitions_until() + 1704067200) - interval '3 days'
      using errcode = 'RL010',
          hint = 'Start an instance or the operator, or run: select rowlock.extend_partitions(); as the owner of the database.';
  end if;
end $$;

CREATE FUNCTION rowlock.mark_finished(most integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
declare start bigint;
begin
  -- Drawn once: within the query it would be drawn for each row, and the first rows would never be the ones.
  select floor(random() * (max(k.id) - min(k.id) + 1))::bigint + min(k.id) into start from rowlock.task_kept k;
  update rowlock.task_kept k set finished_at = f.at
    from (select z.* from (
            (select x.id, x.queue from rowlock.task_kept x where x.finished_at is null and x.id >= start order by x.id limit $1)
            union all (select x.id, x.queue from rowlock.task_kept x where x.finished_at is null and x.id < start order by x.id limit $1)) z limit $1) y,
      lateral rowlock.find_receipt(y.queue, y.id) f
    where k.id = y.id and f.state in (1, 3);
end $_$;

CREATE FUNCTION rowlock.max_attempts(queue integer, ids bigint[]) RETURNS TABLE(id bigint, max_attempts smallint)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare v_ids bigint[]; v_limits smallint[]; k_ids bigint[]; k_limits smallint[];
begin
  execute 'select array_agg(t.id), array_agg(t.max_attempts) from rowlock.task t where t.id = any ($1)' into v_ids, v_limits using $2;
  if coalesce(cardinality(v_ids), 0) < cardinality($2) then
    select array_agg(t.id), array_agg(t.max_attempts) into k_ids, k_limits from rowlock.task_kept t where t.id = any ($2);
    v_ids := v_ids || k_ids; v_limits := v_limits || k_limits;
  end if;
  return query
    select i, coalesce(max(u.l), q.max_attempts) from unnest($2) i join rowlock.queue q on q.id = $1 left join unnest(v_ids, v_limits) u(id, l) on u.id = i
    group by i, q.max_attempts;
end $_$;

CREATE FUNCTION rowlock.move_due(watermark timestamp with time zone, most integer) RETURNS TABLE(moved integer, more boolean, next timestamp with time zone)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare q record; v_moved int := 0; v_ids bigint[];
begin
  perform rowlock.require_read_committed();
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
    else
      begin
        perform rowlock.requeue(q.queue, q.ids, q.attempts, q.priorities);
      exception when others then
        perform rowlock.requeue_singly(q.queue, q.ids, q.attempts, q.priorities);
      end;
    end if;
    v_moved := v_moved + cardinality(q.ids);
  end loop;
  return query select v_moved, v_moved >= $2, (select d.due from rowlock.delayed d where d.due >= $1 order by d.due limit 1);
end $_$;

CREATE FUNCTION rowlock.move_kept_errors(most integer DEFAULT 5000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    SET jit TO 'off'
    AS $_$
declare p record; n int; moved int := 0;
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(1, 0) then return 0; end if;
  if not rowlock.clock_is_steady() then return 0; end if;
  for p in select x.part from rowlock.expired_partitions() x where x.parent = 'task_error' loop
    execute format('with moved as (delete from rowlock.%1$I x where x.ctid = any (array(
        select f.ctid from rowlock.%1$I f where exists (select 1 from rowlock.task_kept t where t.id = f.id) limit $1)) returning x.*)
      insert into rowlock.task_error_kept (at, id, attempt, instance, error) select m.at, m.id, m.attempt, m.instance, m.error from moved m', p.part)
      using $1 - moved;
    get diagnostics n = row_count;
    moved := moved + n;
    exit when moved >= $1;
  end loop;
  return moved;
end $_$;

CREATE FUNCTION rowlock.move_missed(queue integer, exact bigint[], quick bigint[], most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare r record; moved_rows int := 0;
begin
  perform rowlock.require_read_committed();
  perform rowlock.require_worker($1);
  if not rowlock.try_mutex(6, $1) then return null; end if;
  for r in
    select x.* from generate_series(0, 3) p, generate_series(0, 3) s, lateral (
      select r.shard, r.priority, r.k from rowlock.ready r where r.queue = $1 and r.shard = s::smallint and r.lane = 0 and r.priority = p::smallint
        and r.k >= $2[p * 4 + s + 1] and r.k < $3[p * 4 + s + 1] order by r.k limit least($4, 10000)
            for update skip locked) x limit least($4, 10000)
  loop
    update rowlock.ready y set k = nextval('rowlock.k_seq'), fresh = false, moved = rowlock.chunk_of(y.id) where y.queue = $1 and y.shard = r.shard and y.lane = 0 and y.priority = r.priority and y.k = r.k;
    moved_rows := moved_rows + 1;
  end loop;
  return moved_rows;
end $_$;

CREATE FUNCTION rowlock.mutex_holders() RETURNS TABLE(operation smallint, queue integer, xid text, pid integer, usename text, application text, since timestamp with time zone, prepared text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select m.operation, m.queue, m.xmax::text, l.pid, coalesce(a.usename, p.owner)::text, a.application_name,
         coalesce(a.xact_start, p.prepared), p.gid
  from (select x.operation, x.queue, x.xmax from rowlock.mutex x union all select 7::smallint, 0, x.xmax from rowlock.maintenance x) m
  join pg_locks l on l.locktype = 'transactionid' and l.mode = 'ExclusiveLock'
      and l.granted and l.transactionid::text = m.xmax::text
  left join pg_stat_activity a on a.pid = l.pid
  left join pg_prepared_xacts p on l.pid is null and p.transaction::text = m.xmax::text
  where l.pid is distinct from pg_backend_pid()
$$;

CREATE FUNCTION rowlock.newest_heartbeats() RETURNS TABLE(instance bigint, heartbeat bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
  select i.id, coalesce((select b.n from rowlock.heartbeat b where b.instance = i.id order by b.n desc limit 1), 0) from rowlock.instance i where i.ended_at is null
$$;

CREATE FUNCTION rowlock.oldest_by_priority(queue integer) RETURNS integer[]
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
  select array_agg(f.since order by p) from coalesce(rowlock.published_watermarks($1), array_fill(0::bigint, array[16])) watermarks cross join generate_series(0, 3) p
  left join lateral (
    select min(y.since) since from generate_series(0, 3) s, lateral (
      select r.since from rowlock.ready r where r.queue = $1 and r.shard = s::smallint and r.lane = 0 and r.priority = p::smallint and r.k >= watermarks[p * 4 + s + 1]
      order by r.k limit 1) y) f on true
$_$;

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
  -- What was cut off a range keeps its place (rowlock.take_ready): it is the only one whose shard is not of its k, and nobody has walked past it.
  if clock_timestamp() - now() > interval '50 milliseconds' and new.shard = (new.k & 3) then
    new.notify := rowlock.commit_late(new);
  end if;
  if new.notify and pg_notification_queue_usage() < 0.5 then
    -- One notifier per database at a time (R12), and never into a queue that fills up: that would fail the producer's commit (R11). Whoever set constraints
    -- immediate is here within its own call, long before its commit perhaps: it would keep the lock from all others until then.
    get diagnostics v_context = pg_context;
    if position(chr(10) in v_context) > 0 or rowlock.try_mutex(0, 0) then
      perform pg_notify('rowlock', new.queue::text);
    end if;
  end if;
  return null;
end $$;

CREATE FUNCTION rowlock.partition_statistics() RETURNS TABLE(left_seconds double precision, oldest_seconds double precision)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with parts as materialized (
    select t.parent, p.lo, p.hi from unnest(array['task', 'receipt', 'result', 'task_error', 'heartbeat', 'allocation']) t(parent), rowlock.partitions_of(t.parent) p
    where not p.detaches),
  last as (
    select x.parent, min(x.hi) hi from parts x
    where x.hi > now() and not exists (select 1 from parts y where y.parent = x.parent and y.lo = x.hi) group by x.parent),
  until as (
    select case when exists (select 1 from parts x where x.parent = l.parent and x.lo <= now() and now() < x.hi) then l.hi end hi
    from unnest(array['task', 'receipt', 'result', 'task_error', 'heartbeat', 'allocation']) t(parent) left join last l on l.parent = t.parent)
  select case when bool_and(u.hi is not null) then date_part('epoch', min(u.hi) - now()) else -1 end,
         date_part('epoch', now() - (select min(x.hi) from parts x where x.parent = 'task')) from until u
$$;

CREATE FUNCTION rowlock.partition_width() RETURNS interval
    LANGUAGE sql STABLE
    RETURN (SELECT GREATEST('01:00:00'::interval, date_trunc('hour'::text, (COALESCE(max(GREATEST(queue.keep_completed, queue.keep_cancelled)), '24:00:00'::interval) / (8)::double precision))) AS "greatest" FROM rowlock.queue);

CREATE FUNCTION rowlock.partitions_of(parent text) RETURNS TABLE(part text, lo timestamp with time zone, hi timestamp with time zone, detaches boolean)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "DateStyle" TO 'ISO'
    SET "TimeZone" TO 'UTC'
    AS $_$
  select c.relname::text,
         case when $1 = 'task' then rowlock.id_time(b.b[1]::bigint) else b.b[1]::timestamptz end,
         case when $1 = 'task' then rowlock.id_time(b.b[2]::bigint) else b.b[2]::timestamptz end, i.inhdetachpending
  from pg_inherits i join pg_class c on c.oid = i.inhrelid,
    regexp_match(pg_get_expr(c.relpartbound, c.oid), '\(''?([^'')]+)''?\) TO \(''?([^'')]+)''?\)') b(b)
  where i.inhparent = format('rowlock.%I', $1)::regclass
$_$;

CREATE FUNCTION rowlock.partitions_until() RETURNS integer
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  select coalesce((max(substring(c.relname from '_([0-9]+)$')::bigint) - 1704067200)::int, 0)
  from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'rowlock.task'::regclass
$_$;

CREATE FUNCTION rowlock.permission_functions() RETURNS TABLE(permission text, function regprocedure)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select d.permission, p.oid::regprocedure from (values
    ('producer', '{enqueue,enqueue_many,as_json,as_options,as_payloads,cancel,cancel_all,task_state}'::text[]),
    ('worker', '{join,policy,published_watermarks,heartbeat,claim,await_claims,fetch,settle,drain,leave,release_unknown_leases,maintain,least_k,move_missed,rescue,
                 mutex_holders,extend_partitions,partition_statistics,begin_maintenance,end_maintenance,mark_finished,delete_expired_tasks,keep_watermarks,
                 task_state}'),
    ('reader', '{statistics,describe_task,task_errors,list_tasks,audit,task_state}')) d(permission, names)
  join pg_proc p on p.proname = any (d.names) and p.pronamespace = 'rowlock'::regnamespace
$$;

CREATE FUNCTION rowlock.policy(queue integer) RETURNS TABLE(generation bigint, policy json, max_attempts smallint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  select q.generation, q.policy, q.max_attempts from rowlock.queue q where q.id = $1
$_$;

CREATE FUNCTION rowlock.published_watermarks(queue integer) RETURNS bigint[]
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
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
$_$;

CREATE FUNCTION rowlock.put_last(r rowlock.ready, id bigint, n integer) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
declare v_k bigint := nextval('rowlock.k_seq');
begin
  insert into rowlock.ready (queue, shard, lane, priority, since, k, id, n, attempt, fresh, moved)
    values (r.queue, v_k & 3, r.lane, r.priority, r.since, v_k, $2, $3, r.attempt, false, rowlock.chunk_of($2));
end $_$;

CREATE FUNCTION rowlock.refuse_delay(q rowlock.queue) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "IntervalStyle" TO 'postgres'
    AS $$
begin
  raise exception 'queue "%" takes no task that is due in more than % (limits.maxDelay)', q.name,
      justify_hours(q.max_delay)
    using errcode = 'RL005', hint = 'Enqueue it later, or raise limits.maxDelay of the TaskQueue.';
end $$;

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

CREATE FUNCTION rowlock.refuse_permission(permission text, queue text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'the role "%" is no % of queue "%"', rowlock.caller(), permission, queue using errcode = 'RL011',
    hint = format('The owner of the database can run: select rowlock.grant_role(%L, %L, array[%L]);',
        rowlock.caller(), permission, queue);
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
        from rowlock.queue q where not q.restricted or rowlock.has_permission(null, q.id)) || '.',
                    case when exists (select 1 from rowlock.queue) then 'There is none that you may use.'
                        else 'This database has no queue yet: apply a TaskQueue.' end);
end $$;

CREATE FUNCTION rowlock.release_lease(instance bigint, queue integer, token bigint) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
declare u record;
begin
  select * into u from rowlock.unsettled($3);
  if u.ids is not null then
    perform rowlock.write_outcomes($2, $1, array_fill(1, array[cardinality(u.ids)]), u.ids,
      (select array_agg(case when c.id is null then 5 else 6 end::smallint order by x.p) from unnest(u.ids) with ordinality x(id, p) left join rowlock.cancel_request c on c.id = x.id),
      u.attempts, u.priorities, '{0}', '{}');
  end if;
  delete from rowlock.lease x where x.token = $3;
  return coalesce(cardinality(u.ids), 0);
end $_$;

CREATE FUNCTION rowlock.release_unknown_leases(instance bigint, known bigint[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
declare l record; back int := 0;
begin
  perform rowlock.require_read_committed();
  perform rowlock.require_worker(i.queue) from rowlock.instance i where i.id = $1;
  for l in select x.token, x.queue from rowlock.lease x
      where x.instance = $1 and x.at < now() - interval '1 minute' and x.token <> all ($2) order by x.token for update loop
    back := back + rowlock.release_lease($1, l.queue, l.token);
  end loop;
  return back;
end $_$;

CREATE FUNCTION rowlock.renew_grants() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare g record;
begin
  lock table rowlock.access in share row exclusive mode;
  -- Of roles and queues that are gone: a role of the same name would inherit them.
  delete from rowlock.access a where not exists (select 1 from pg_roles r where r.rolname = a.role)
    or (a.queue <> 0 and not exists (select 1 from rowlock.queue q where q.id = a.queue));
  for g in select distinct r.rolname, f.function from rowlock.access a join pg_roles r on r.rolname = a.role
      join rowlock.permission_functions() f on f.permission = a.permission join pg_proc p on p.oid = f.function
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
  update rowlock.queue q set restricted = not q.restricted where q.restricted <> exists (select 1 from rowlock.access a
      where a.queue <> 0);
end $$;

CREATE FUNCTION rowlock.requeue(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
begin
  insert into rowlock.ready (queue, shard, priority, k, id, n, attempt, fresh, notify, moved)
  select $1, z.k & 3, z.priority, z.k, z.id, z.n, z.attempt, false, coalesce((select q.notify_until > now() from rowlock.queue q where q.id = $1), false),
    rowlock.chunk_of(z.id)
  from (select nextval('rowlock.k_seq') k, y.* from (
    select min(x.id) id, count(*) n, x.attempt, x.priority from (
      select u.*, u.id - row_number() over (partition by u.attempt, u.priority order by u.id) run
      from unnest($2, $3, $4) u(id, attempt, priority)) x
    group by x.attempt, x.priority, x.run, x.id >> 8 order by 1) y) z;
end $_$;

CREATE FUNCTION rowlock.requeue_singly(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
begin
  for i in 1 .. cardinality($2) loop
    begin
      perform rowlock.requeue($1, ($2)[i:i], ($3)[i:i], ($4)[i:i]);
    exception when others then
      raise warning 'task % cannot be made available: %', ($2)[i], sqlerrm;
      insert into rowlock.delayed (id, queue, priority, attempt, waits, run_at, due)
        values (($2)[i], $1, ($4)[i], ($3)[i], 1, now() + interval '1 minute', now() + interval '1 minute');
    end;
  end loop;
end $_$;

CREATE FUNCTION rowlock.require_read_committed() RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'this verb needs READ COMMITTED' using errcode = 'RL007', hint = 'Begin the transaction with ISOLATION LEVEL READ COMMITTED.';
  end if;
end $$;

CREATE FUNCTION rowlock.require_worker(queue integer) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare v_name text;
begin
  select q.name into v_name from rowlock.queue q where q.id = $1 and q.restricted;
  if found and not rowlock.has_permission('worker', $1) then perform rowlock.refuse_permission('worker', v_name); end if;
end $_$;

CREATE FUNCTION rowlock.rescue(instance bigint, heartbeat bigint) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare l record; u record; rescued int := 0; v_name text; v_queue int; v_drains boolean;
begin
  perform rowlock.require_read_committed();
  -- First without the lock, which would tell an instance that lives that it is gone; then with it.
  if coalesce((select b.n from rowlock.heartbeat b where b.instance = $1 order by b.n desc limit 1), 0) <> $2 then return null; end if;
  if not rowlock.is_silent($1, $2) then return null; end if;
  perform 1 from rowlock.instance i where i.id = $1 and i.ended_at is null for update skip locked;
  if not found then return null; end if;
  if coalesce((select b.n from rowlock.heartbeat b where b.instance = $1 order by b.n desc limit 1), 0) <> $2 then return null; end if;
  update rowlock.instance i set ended_at = now(), gone = true where i.id = $1 and i.ended_at is null returning i.name, i.queue, i.drains into v_name, v_queue, v_drains;
  if not found then return null; end if;
  for l in select x.token from rowlock.lease x where x.instance = $1 order by x.token for update loop
    select * into u from rowlock.unsettled(l.token);
    if u.ids is not null then
      perform rowlock.lose_tasks(v_queue, $1, v_name, v_drains, u.ids, u.attempts, u.priorities);
      rescued := rescued + cardinality(u.ids);
    end if;
    delete from rowlock.lease x where x.token = l.token;
  end loop;
  return rescued;
end $_$;

CREATE FUNCTION rowlock.rescue_after() RETURNS interval
    LANGUAGE sql IMMUTABLE
    RETURN '00:00:12'::interval;

CREATE FUNCTION rowlock.retry(queue text, ids bigint[]) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare q record; n bigint := 0;
begin
  perform rowlock.require_read_committed();
  if $1 is null and $2 is null then
    raise exception 'neither a queue nor ids were given' using errcode = 'RL005', hint = 'Name the queue whose dead tasks are to run again, or list their ids.';
  end if;
  if $1 is not null and not exists (select 1 from rowlock.queue y where y.name = $1) then perform rowlock.refuse_unknown_queue($1); end if;
  for q in
    with back as (delete from rowlock.dead d where d.id in (
        select x.id from rowlock.dead x join rowlock.queue y on y.id = x.queue where ($1 is null or y.name = $1) and ($2 is null or x.id = any ($2)) order by x.id limit 10000 for update of x skip locked) returning d.*)
    select b.queue, array_agg(b.id order by b.id) ids, array_agg(0::smallint) attempts, array_agg(b.priority order by b.id) priorities from back b group by b.queue
  loop
    begin
      perform rowlock.requeue(q.queue, q.ids, q.attempts, q.priorities);
    exception when others then
      perform rowlock.requeue_singly(q.queue, q.ids, q.attempts, q.priorities);
    end;
    n := n + cardinality(q.ids);
    -- A request that crossed the last attempt's end was for that one.
    delete from rowlock.cancel_request c where c.id = any (q.ids);
    -- It may be put off as often as a new one.
    delete from rowlock.snooze s where s.id = any (q.ids);
  end loop;
  return n;
end $_$;

CREATE FUNCTION rowlock.revoke_role(role name, permission text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_column
declare f regprocedure;
begin
  delete from rowlock.access a where a.role = $1 and ($2 is null or a.permission = $2);
  if not exists (select 1 from pg_roles r where r.rolname = $1) then
    perform rowlock.renew_grants();
    return;
  end if;
  for f in select x.function from rowlock.permission_functions() x group by x.function
      having not bool_or(exists (select 1 from rowlock.access a where a.role = $1 and a.permission = x.permission)) loop
    execute format('revoke execute on function %s from %I', f, $1);
  end loop;
  if not exists (select 1 from rowlock.access a where a.role = $1) then
    execute format('revoke select on rowlock.migration from %I', $1);
    execute format('revoke usage on schema rowlock from %I', $1);
  end if;
  perform rowlock.renew_grants();
end $_$;

CREATE FUNCTION rowlock.running() RETURNS TABLE(queue integer, n bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
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
  v_queue int; o int[]; k_ids bigint[]; k_tokens bigint[]; k_outcomes smallint[]; k_attempts smallint[]; k_priorities smallint[]; i int; spent int[];
begin
  perform rowlock.require_read_committed();
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
    if 4 = any (k_outcomes) then
      -- Put off as often as the queue allows: what the instance calls a snooze is dead.
      select array_agg(case when s.times >= l.most then 3::smallint else x.outcome end order by x.p),
             array_agg(x.o) filter (where s.times >= l.most)
        into k_outcomes, spent
      from unnest(k_ids, k_outcomes, o) with ordinality x(id, outcome, o, p)
      cross join (select (q.policy->'retry'->>'maxSnoozes')::int most from rowlock.queue q where q.id = v_queue) l
      left join rowlock.snooze s on x.outcome = 4 and s.id = x.id;
      foreach i in array coalesce(spent, '{}') loop
        texts[i] := 'the handler put it off more often than retry.maxSnoozes allows';
      end loop;
    end if;
    perform rowlock.write_outcomes(v_queue, $1, o, k_ids, k_outcomes, k_attempts, k_priorities, $5, $6);
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
      select g id from rowlock.receipt r, unnest(r.firsts, r.ns) u(f, n), generate_series(u.f, u.f + u.n - 1) g
        where r.queue = v_queue and r.state in (1, 3) and r.at > now() - interval '1 minute' and r.instance = $1
      union select f.id from rowlock.task_error f where f.id = any ($3) and f.instance = $1 and f.at > now() - interval '1 minute'
      union select d.id from rowlock.lease l, unnest(l.settled) d(id) where l.token = any ($2) and l.instance = $1)
    select array_agg(case when a.a = 4 and b.id is not null then 1::smallint else a.a end order by a.p) into answers
    from unnest(answers, $3) with ordinality a(a, id, p) left join before b on b.id = a.id;
  end if;
  return answers;
end $_$;

CREATE FUNCTION rowlock.state_of(id bigint, queue integer, priority smallint, k_low integer) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $_$
#variable_conflict use_column
declare answer text;
begin
  select case d.waits when 0 then 'scheduled' else 'retryable' end into answer from rowlock.delayed d where d.id = $1;
  if found then return answer; end if;
  perform 1 from rowlock.dead d where d.id = $1;
  if found then return 'dead'; end if;
  perform 1 from rowlock.find_ready($2, $3, $1, $4);
  if found then return 'available'; end if;
  select case r.state when 1 then 'completed' when 2 then 'dead' else 'cancelled' end into answer from rowlock.find_receipt($2, $1) r;
  if found then return answer; end if;
  perform 1 from rowlock.find_lease($1);
  return case when found then 'running' else 'untraced' end;
end $_$;

CREATE FUNCTION rowlock.statistics() RETURNS TABLE(queue integer, name text, paused boolean, total_workers integer, available bigint, scheduled bigint, retryable bigint, due_soon bigint, running bigint, dead bigint, oldest_seconds double precision, completed bigint, arrivals bigint, instances bigint, allocated bigint, busy bigint, service_ms double precision, oldest_by_priority double precision[])
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION rowlock.take_ready(queue integer, priority smallint, id bigint, k_low integer) RETURNS smallint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $_$
#variable_conflict use_column
declare r rowlock.ready; v_before int; v_behind int; v_next bigint; v_k bigint; v_id bigint;
begin
  select x.* into r from rowlock.find_ready($1, $2, $3, $4) y
    join rowlock.ready x on x.queue = y.queue and x.shard = y.shard and x.lane = y.lane and x.priority = y.priority and x.k = y.k for update of x;
  if not found or $3 < r.id or $3 >= r.id + r.n then return null; end if;
  v_before := $3 - r.id; v_behind := r.id + r.n - 1 - $3; v_id := $3 + 1;
  if v_before > 0 and v_behind > 0 then
    v_next := r.k + 1 + ((r.shard - r.k - 1) & 3);
    select least(v_next, min(x.k)) into v_next from rowlock.ready x
      where x.queue = r.queue and x.shard = r.shard and x.lane = r.lane and x.priority = r.priority and x.k > r.k and x.k < v_next;
    if v_next - r.k > 1 then
      insert into rowlock.ready (queue, shard, lane, priority, since, k, id, n, attempt, fresh, notify, moved)
        values (r.queue, r.shard, r.lane, r.priority, r.since, r.k + (v_next - r.k) / 2, v_id, v_behind, r.attempt, false, false,
          rowlock.chunk_of(v_id))
        on conflict do nothing returning k into v_k;
    end if;
    if v_k is not null or v_before >= v_behind then
      if v_k is null then perform rowlock.put_last(r, v_id, v_behind); end if;
      v_id := r.id; v_behind := 0;
    else
      perform rowlock.put_last(r, r.id, v_before);
      v_before := 0;
    end if;
  elsif v_before > 0 then v_id := r.id;
  end if;
  if v_before + v_behind = 0 then
    delete from rowlock.ready x where x.queue = r.queue and x.shard = r.shard and x.lane = r.lane and x.priority = r.priority and x.k = r.k;
  else
    update rowlock.ready x set id = v_id, n = v_before + v_behind
      where x.queue = r.queue and x.shard = r.shard and x.lane = r.lane and x.priority = r.priority and x.k = r.k;
  end if;
  return r.attempt;
end $_$;

CREATE FUNCTION rowlock.task_errors(id bigint) RETURNS TABLE(at timestamp with time zone, attempt smallint, instance text, error text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
  select f.at, f.attempt, coalesce(i.name, ''), f.error
  from (select at, id, attempt, instance, error from rowlock.task_error where id = $1 union all select at, id, attempt, instance, error from rowlock.task_error_kept where id = $1) f
  join rowlock.every_task t on t.id = $1 join rowlock.queue q on q.id = t.queue and (not q.restricted
      or rowlock.has_permission('reader', q.id))
  left join rowlock.instance i on i.id = f.instance order by f.at, f.attempt
$_$;

CREATE FUNCTION rowlock.task_state(id bigint) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $_$
declare t record;
begin
  select x.queue, x.priority, x.k_low into t from rowlock.every_task x where x.id = $1;
  if not found or exists (select 1 from rowlock.queue q where q.id = t.queue and q.restricted and not rowlock.has_permission(null, q.id)) then return null; end if;
  return rowlock.state_of($1, t.queue, t.priority, t.k_low);
end $_$;

CREATE FUNCTION rowlock.try_mutex(operation integer, queue integer) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $_$
begin
  perform 1 from rowlock.mutex m where m.operation = $1 and m.queue = $2 for update skip locked;
  if found then return true; end if;
  if exists (select 1 from rowlock.mutex m where m.operation = $1 and m.queue = $2) then return false; end if;
  -- A queue that was not declared by rowlock.declare_queue. One that does not exist leaves no row.
  if $2 <> 0 and not exists (select 1 from rowlock.queue q where q.id = $2) then return false; end if;
  insert into rowlock.mutex (operation, queue) values ($1, $2) on conflict do nothing;
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

CREATE FUNCTION rowlock.update_backlog_limits() RETURNS void
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
             when x.n >= q.backlog_limit then rowlock.backlog_reaches(q.id, q.backlog_limit)
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
  if rowlock.clock_is_steady() then
    delete from rowlock.instance i where i.ended_at < now() - interval '7 days' and not exists (select 1 from rowlock.lease l where l.instance = i.id);
  end if;
  -- A request that crossed the end of its task is nobody's any more, and would lengthen every settlement.
  delete from rowlock.cancel_request c where c.id in (
    select x.id from rowlock.cancel_request x where x.at < now() - interval '1 minute'
      and coalesce((select rowlock.state_of(t.id, t.queue, t.priority, t.k_low) from rowlock.every_task t where t.id = x.id), '')
         not in ('scheduled', 'retryable', 'available', 'running') order by x.at limit 100);
end $$;

CREATE FUNCTION rowlock.waiting_page(queue text, state text, after bigint, most integer) RETURNS TABLE(id bigint, name text, attempt integer, at timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $_$
#variable_conflict use_column
begin
  if $2 = 'dead' then
    return query select x.id, q.name, x.attempt::int, x.at from rowlock.queue q, lateral (
      select d.id, d.attempt, d.at from rowlock.dead d where d.queue = q.id and d.id > coalesce($3, 0) order by d.id limit $4) x
      where ($1 is null or q.name = $1) and (not q.restricted or rowlock.has_permission('reader', q.id)) order by x.id limit $4;
  elsif $2 = 'running' then
    return query select g, q.name, u.attempt::int, l.at
      from rowlock.queue q join rowlock.lease l on l.queue = q.id, unnest(l.firsts, l.ns, l.attempts) u(f, n, attempt), generate_series(u.f, u.f + u.n - 1) g
      where ($1 is null or q.name = $1) and (not q.restricted or rowlock.has_permission('reader', q.id)) and g > coalesce($3, 0) and g <> all (l.settled) order by g limit $4;
  else
    return query select x.id, q.name, x.attempt::int, x.due from rowlock.queue q, lateral (
      select d.id, d.attempt, d.due from rowlock.delayed d
      where d.queue = q.id and d.waits = case $2 when 'scheduled' then 0 else 1 end::smallint and d.id > coalesce($3, 0) order by d.id limit $4) x
      where ($1 is null or q.name = $1) and (not q.restricted or rowlock.has_permission('reader', q.id)) order by x.id limit $4;
  end if;
end $_$;

CREATE FUNCTION rowlock.watermark_max_lead() RETURNS bigint
    LANGUAGE sql IMMUTABLE
    RETURN 1000000;

CREATE FUNCTION rowlock.write_outcomes(queue integer, instance bigint, o integer[], ids bigint[], outcomes smallint[], attempts smallint[], priorities smallint[], delays_ms bigint[], texts text[]) RETURNS void
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
      insert into rowlock.result (id, value) select x.id, ($9)[x.o] from unnest($3, $4, $5) x(o, id, outcome) where x.outcome = 1 and ($9)[x.o] is not null;
    end if;
  end if;
  -- A request to cancel what was finished first has nothing left to do.
  if exists (select 1 from rowlock.cancel_request) then
    delete from rowlock.cancel_request c using unnest($4, $5) x(id, outcome) where c.id = x.id and x.outcome in (1, 3, 6);
  end if;
  if cardinality(part) = cardinality(ids) then return; end if;
  insert into rowlock.task_error (id, attempt, instance, error)
    select x.id, x.attempt + 1, $2, coalesce(($9)[x.o], 'no error was given') from unnest($3, $4, $5, $6) x(o, id, outcome, attempt) where x.outcome in (2, 3);
  insert into rowlock.dead (id, queue, priority, attempt)
    select x.id, $1, x.priority, x.attempt + 1 from unnest($4, $5, $6, $7) x(id, outcome, attempt, priority) where x.outcome = 3;
  insert into rowlock.delayed (id, queue, priority, attempt, waits, run_at, due)
    select x.id, $1, x.priority, x.attempt + (x.outcome = 2)::int, 1, d.at, d.at
    from unnest($3, $4, $5, $6, $7) x(o, id, outcome, attempt, priority), lateral (select now() + least(greatest(($8)[x.o], 0), 3155760000000) * interval '1 millisecond' as at) d where x.outcome in (2, 4);
  if 4 = any ($5) then
    insert into rowlock.snooze as s (id, times, first_at, at)
      select x.id, 1, now(), now() from unnest($4, $5) x(id, outcome) where x.outcome = 4 order by x.id
      on conflict (id) do update set times = s.times + 1, at = now();
  end if;
  select array_agg(x.id), array_agg(x.attempt), array_agg(x.priority) into part, used, prios from unnest($4, $5, $6, $7) x(id, outcome, attempt, priority) where x.outcome = 5;
  if part is not null then perform rowlock.requeue($1, part, used, prios); end if;
  select array_agg(x.id), array_agg(x.attempt) into part, used from unnest($4, $5, $6) x(id, outcome, attempt) where x.outcome = 6;
  if part is not null then perform rowlock.write_receipt($1, $2, 3::smallint, part, used); end if;
end $_$;

CREATE FUNCTION rowlock.write_receipt(queue integer, instance bigint, state smallint, ids bigint[], attempts smallint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
begin
  insert into rowlock.receipt (queue, instance, state, firsts, ns, attempts)
  select $1, $2, $3, array_agg(y.id order by y.id), array_agg(y.n order by y.id), array_agg(y.attempt order by y.id) from (
    select min(x.id) id, count(*)::smallint n, x.attempt from (
      select u.*, u.id - row_number() over (partition by u.attempt order by u.id) run from unnest($4, $5) u(id, attempt)) x
    group by x.attempt, x.run, x.id >> 8) y group by y.id >> 33;
  -- Only a task older than ten minutes may be kept: see rowlock.empty_task_partition.
  if $3 <> 2 and (select min(u.id) from unnest($4) u(id)) < rowlock.id_at(now() - interval '10 minutes') then
    update rowlock.task_kept k set finished_at = now() where k.id = any ($4);
  end if;
  if pg_relation_size('rowlock.snooze') > 0 then delete from rowlock.snooze s where s.id = any ($4); end if;
end $_$;

CREATE TABLE rowlock.access (
    role name NOT NULL,
    permission text NOT NULL,
    queue integer NOT NULL,
    CONSTRAINT access_permission_check CHECK ((permission = ANY (ARRAY['producer'::text, 'worker'::text, 'reader'::text])))
);

CREATE TABLE rowlock.allocation (
    number bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    queue integer NOT NULL,
    instance bigint NOT NULL,
    slots integer NOT NULL,
    CONSTRAINT allocation_slots_check CHECK ((slots >= 0))
)
PARTITION BY RANGE (at);

CREATE SEQUENCE rowlock.allocation_seq
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
    k_low integer,
    priority smallint NOT NULL,
    max_attempts smallint,
    type text NOT NULL,
    payload json NOT NULL
)
PARTITION BY RANGE (id);

CREATE TABLE rowlock.task_kept (
    id bigint NOT NULL,
    queue integer NOT NULL,
    k_low integer,
    priority smallint NOT NULL,
    max_attempts smallint,
    type text NOT NULL,
    payload json NOT NULL,
    finished_at timestamp with time zone
);

CREATE VIEW rowlock.every_task AS
 SELECT t.id,
    t.queue,
    t.k_low,
    t.priority,
    t.max_attempts,
    t.type,
    t.payload
   FROM rowlock.task t
UNION ALL
 SELECT k.id,
    k.queue,
    k.k_low,
    k.priority,
    k.max_attempts,
    k.type,
    k.payload
   FROM rowlock.task_kept k
  WHERE (( SELECT t.id
           FROM rowlock.task t
          WHERE (t.id = k.id)) IS NULL);

CREATE TABLE rowlock.heartbeat (
    n bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    instance bigint NOT NULL,
    queue integer NOT NULL,
    held integer NOT NULL,
    allocated integer NOT NULL,
    allocation bigint NOT NULL,
    wants integer NOT NULL,
    service_ms real,
    watermarks bigint[]
)
PARTITION BY RANGE (at);

CREATE SEQUENCE rowlock.heartbeat_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

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

CREATE TABLE rowlock.maintenance (
    one_row boolean DEFAULT true NOT NULL,
    next_partitions_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    next_cleanup_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    steady_since timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    noted_k bigint DEFAULT 0 NOT NULL,
    noted_xid bigint DEFAULT 0 NOT NULL,
    noted_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    CONSTRAINT maintenance_one_row_check CHECK (one_row)
);

CREATE TABLE rowlock.migration (
    version integer NOT NULL,
    name text NOT NULL,
    compatible_from integer NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    functions text
);

CREATE TABLE rowlock.mutex (
    operation smallint NOT NULL,
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
    value text NOT NULL
)
PARTITION BY RANGE (at);

CREATE TABLE rowlock.snooze (
    id bigint NOT NULL,
    times integer NOT NULL,
    first_at timestamp with time zone NOT NULL,
    at timestamp with time zone NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_cost_delay='0');

CREATE TABLE rowlock.task_error (
    at timestamp with time zone DEFAULT now() NOT NULL,
    id bigint NOT NULL,
    attempt smallint NOT NULL,
    instance bigint,
    error text NOT NULL
)
PARTITION BY RANGE (at);

CREATE TABLE rowlock.task_error_kept (
    n bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    id bigint NOT NULL,
    attempt smallint NOT NULL,
    instance bigint,
    error text NOT NULL
);

ALTER TABLE rowlock.task_error_kept ALTER COLUMN n ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME rowlock.task_error_kept_n_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY rowlock.access
    ADD CONSTRAINT access_pkey PRIMARY KEY (role, permission, queue);

ALTER TABLE ONLY rowlock.cancel_request
    ADD CONSTRAINT cancel_request_pkey PRIMARY KEY (id);

ALTER TABLE ONLY rowlock.dead
    ADD CONSTRAINT dead_pkey PRIMARY KEY (id);

ALTER TABLE ONLY rowlock.delayed
    ADD CONSTRAINT delayed_pkey PRIMARY KEY (id);

ALTER TABLE ONLY rowlock.instance
    ADD CONSTRAINT instance_pkey PRIMARY KEY (id);

ALTER TABLE ONLY rowlock.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (token);

ALTER TABLE ONLY rowlock.maintenance
    ADD CONSTRAINT maintenance_pkey PRIMARY KEY (one_row);

ALTER TABLE ONLY rowlock.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (version);

ALTER TABLE ONLY rowlock.mutex
    ADD CONSTRAINT mutex_pkey PRIMARY KEY (operation, queue);

ALTER TABLE ONLY rowlock.queue
    ADD CONSTRAINT queue_name_key UNIQUE (name);

ALTER TABLE ONLY rowlock.queue
    ADD CONSTRAINT queue_pkey PRIMARY KEY (id);

ALTER TABLE ONLY rowlock.ready
    ADD CONSTRAINT ready_pkey PRIMARY KEY (queue, shard, lane, priority, k);

ALTER TABLE ONLY rowlock.snooze
    ADD CONSTRAINT snooze_pkey PRIMARY KEY (id);

ALTER TABLE ONLY rowlock.task_error_kept
    ADD CONSTRAINT task_error_kept_pkey PRIMARY KEY (n);

ALTER TABLE ONLY rowlock.task_kept
    ADD CONSTRAINT task_kept_pkey PRIMARY KEY (id);

ALTER TABLE ONLY rowlock.task
    ADD CONSTRAINT task_pkey PRIMARY KEY (id);

CREATE INDEX allocation_newest ON ONLY rowlock.allocation USING btree (instance, number DESC);

CREATE INDEX dead_at ON rowlock.dead USING btree (queue, at);

CREATE INDEX dead_queue ON rowlock.dead USING btree (queue, id);

CREATE INDEX delayed_due ON rowlock.delayed USING btree (due, id);

CREATE INDEX delayed_queue ON rowlock.delayed USING btree (queue, waits, id);

CREATE INDEX heartbeat_newest ON ONLY rowlock.heartbeat USING btree (instance, n DESC);

CREATE INDEX instance_live ON rowlock.instance USING btree (queue, id) WHERE (ended_at IS NULL);

CREATE INDEX lease_instance ON rowlock.lease USING btree (instance);

CREATE INDEX ready_moved ON rowlock.ready USING btree (moved) WHERE (moved <> 0);

CREATE INDEX receipt_at ON ONLY rowlock.receipt USING btree (queue, state, at);

CREATE INDEX receipt_ids ON ONLY rowlock.receipt USING btree (queue, (firsts[1]), ((firsts[array_upper(firsts, 1)] + ns[array_upper(ns, 1)])), at);

CREATE INDEX result_id ON ONLY rowlock.result USING btree (id);

CREATE INDEX task_error_id ON ONLY rowlock.task_error USING btree (id);

CREATE INDEX task_error_kept_id ON rowlock.task_error_kept USING btree (id);

CREATE INDEX task_kept_finished ON rowlock.task_kept USING btree (queue, finished_at) WHERE (finished_at IS NOT NULL);

CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON rowlock.delayed DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rowlock.on_delayed();

CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON rowlock.ready DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rowlock.on_ready();

REVOKE ALL ON FUNCTION rowlock.allocate(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.as_json(payloads text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.as_json(payload text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.as_options(options text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.as_payloads(payloads json) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.as_payloads(payloads text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.audit() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.available_page(queue text, after bigint, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.await_claims(instance bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.backlog() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.backlog_reaches(queue integer, backlog_limit bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.begin_maintenance(cleanup boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.caller() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.cancel(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.cancel_all(ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.check_added(q rowlock.queue, setting text, added bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.check_ending(instance bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.check_options(options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.chunk_of(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.claim(instance bigint, want integer, watermarks bigint[], start integer, token bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.clear_queue(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.clock_is_steady() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.commit_late(r rowlock.ready) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.copy_unexpired_tasks(part text, lo bigint, hi bigint, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.declare_queue(name text, owner text, generation bigint, policy json, max_attempts integer, total_workers integer, paused boolean, backlog_limit bigint, payload_limit integer, keep_completed interval, keep_dead interval, keep_cancelled interval, max_delay interval, adopts text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.delete_expired_tasks(most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.delete_queue(queue text, force boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.describe_task(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.drain(instance bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.due_of(options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.empty_other_partitions() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.empty_task_partition(most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.end_maintenance(cleanup boolean) FROM PUBLIC;

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

REVOKE ALL ON FUNCTION rowlock.expired_partitions() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.extend_partitions(ahead interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock."fetch"(token bigint, ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.fill_partition_gap(parent text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.find_lease(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.find_ready(queue integer, priority smallint, id bigint, k_low integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.find_receipt(queue integer, id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.finished_page(queue text, state smallint, after bigint, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.grant_role(role name, permission text, queues text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.has_partition() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.has_permission(permission text, queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.heartbeat(instance bigint, held integer, allocated integer, allocation bigint, wants integer, watermarks bigint[], idle boolean, service_ms real) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.holding(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.id_at(t timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.id_time(i bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.interruption_limit() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.is_silent(instance bigint, heartbeat bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.is_step(seen_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock."join"(queue text, name text, capacity integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.keep_watermarks() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.later_after() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.least_k(queue integer, watermarks bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.leave(instance bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.list_tasks(queue text, state text, after bigint, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.lose_tasks(queue integer, instance bigint, name text, drains boolean, ids bigint[], attempts smallint[], priorities smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.maintain(watermark timestamp with time zone, most integer, check_limits boolean, read_heartbeats boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.make_partition(parent text, lo timestamp with time zone, hi timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.make_partitions() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.mark_finished(most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.max_attempts(queue integer, ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.move_due(watermark timestamp with time zone, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.move_kept_errors(most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.move_missed(queue integer, exact bigint[], quick bigint[], most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.mutex_holders() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.newest_heartbeats() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.oldest_by_priority(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.on_delayed() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.on_ready() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.partition_statistics() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.partition_width() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.partitions_of(parent text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.partitions_until() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.permission_functions() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.policy(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.published_watermarks(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.put_last(r rowlock.ready, id bigint, n integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_delay(q rowlock.queue) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_full(q rowlock.queue) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_later(q rowlock.queue) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_null(what text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_payload(q rowlock.queue, bytes integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_permission(permission text, queue text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_type(type text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_unknown_queue(queue text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.release_lease(instance bigint, queue integer, token bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.release_unknown_leases(instance bigint, known bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.renew_grants() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.requeue(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.requeue_singly(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.require_read_committed() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.require_worker(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.rescue(instance bigint, heartbeat bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.rescue_after() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.retry(queue text, ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.revoke_role(role name, permission text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.running() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.sample_percent(what regclass) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.settle(instance bigint, tokens bigint[], ids bigint[], outcomes smallint[], delays_ms bigint[], texts text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.state_of(id bigint, queue integer, priority smallint, k_low integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.statistics() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.take_ready(queue integer, priority smallint, id bigint, k_low integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.task_errors(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.task_state(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.try_mutex(operation integer, queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.unsettled(token bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.update_backlog_limits() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.waiting_page(queue text, state text, after bigint, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.watermark_max_lead() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.write_outcomes(queue integer, instance bigint, o integer[], ids bigint[], outcomes smallint[], attempts smallint[], priorities smallint[], delays_ms bigint[], texts text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.write_receipt(queue integer, instance bigint, state smallint, ids bigint[], attempts smallint[]) FROM PUBLIC;
