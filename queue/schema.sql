-- The schema after all migrations, to be read: written by `make schema`, compared by a test. Without partitions.

CREATE SCHEMA rowlock;

CREATE FUNCTION rowlock.allocate(queue integer) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION rowlock.append_range(r rowlock.ready, id bigint, n integer) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
declare
  v_k bigint := nextval('rowlock.k_seq');
begin
  insert into rowlock.ready (
      queue, shard, lane, priority, since, k, id, n, attempt, fresh, moved
    )
    values (
      r.queue,
      v_k & 3,
      r.lane,
      r.priority,
      r.since,
      v_k,
      append_range.id,
      append_range.n,
      r.attempt,
      false,
      rowlock.chunk_of(append_range.id)
    );
end $$;

CREATE FUNCTION rowlock.arrivals(queue text, ago_seconds double precision, before bigint DEFAULT NULL::bigint, most integer DEFAULT 100000) RETURNS TABLE(next bigint, seconds bigint[], counts bigint[], scheduled bigint, kept_seconds double precision)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  v_queue int := rowlock.readable_queue(arrivals.queue);
  bound int := least(greatest(arrivals.most, 1), 100000);
begin
  return query
    with page as materialized (
      select t.id, t.queue, t.k_low
      from rowlock.task t
      where t.id >= rowlock.id_at(now() - make_interval(secs => arrivals.ago_seconds))
        and t.id < coalesce(arrivals.before, rowlock.id_at(now() + interval '1 second'))
      order by t.id desc
      limit bound
    ),
    by_second as (
      select p.id >> 31 as second, count(*) n
      from page p
      where p.queue = v_queue and p.k_low is not null
      group by p.id >> 31
    ),
    whole as (
      select
        case when count(*) = bound then min(p.id) end oldest,
        count(*) filter (where p.queue = v_queue and p.k_low is null) scheduled
      from page p
    )
    select
      whole.oldest,
      coalesce((select array_agg(b.second order by b.second) from by_second b), '{}'),
      coalesce((select array_agg(b.n::bigint order by b.second) from by_second b), '{}'),
      whole.scheduled,
      (
        select greatest(date_part('epoch', now() - min(k.lo)), 0)
        from rowlock.partitions_of('task') k
      )
    from whole;
end $$;

CREATE FUNCTION rowlock.as_json(payloads text[]) RETURNS json[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  item record;
begin
  return payloads::json[];
exception when data_exception or statement_too_complex then
  for item in
    select * from unnest(payloads) with ordinality list(payload, place)
  loop
    begin
      perform item.payload::json;
    exception when data_exception or statement_too_complex then
      raise exception 'payload % of % is not JSON', item.place, cardinality(payloads)
        using errcode = 'RL005',
          hint = 'JSON strings need double quotes: "hello", or to_json(''hello''::text).';
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
    raise exception 'the payload is not JSON'
      using errcode = 'RL005',
        hint = 'JSON strings need double quotes: "hello", or to_json(''hello''::text).';
  when statement_too_complex then
    raise exception 'the payload is nested too deeply'
      using errcode = 'RL005',
        hint = 'Postgres reads some thousand levels (max_stack_depth).';
end $$;

CREATE FUNCTION rowlock.as_options(options text) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return options::jsonb;
exception when data_exception or statement_too_complex then
  raise exception 'options must be a JSON object'
    using errcode = 'RL005',
      hint = 'Leave them out, or pass for example {"priority": 0}.';
end $$;

CREATE FUNCTION rowlock.as_payloads(payloads json) RETURNS json[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if json_typeof(payloads) <> 'array' then
    raise exception 'the payloads are not an array'
      using errcode = 'RL005',
        hint = 'Pass a JSON array, [{"order": 1}, {"order": 2}]; rowlock.enqueue takes a single'
          ' task.';
  end if;
  return case
    when payloads is not null then array(
      select list.payload
      from json_array_elements(payloads) with ordinality list(payload, place)
      order by list.place
    )
  end;
end $$;

CREATE FUNCTION rowlock.as_payloads(payloads text) RETURNS json[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if ltrim(payloads, E' \t\n\r') not like '{%' then
    return rowlock.as_payloads(rowlock.as_json(payloads));
  end if;
  return rowlock.as_json(payloads::text[]);
exception when data_exception then
  raise exception 'the payloads are not an array'
    using errcode = 'RL005',
      hint = 'Pass a JSON array, [{"order": 1}, {"order": 2}]; rowlock.enqueue takes a single'
        ' task.';
end $$;

CREATE FUNCTION rowlock.audit() RETURNS TABLE(queue text, enqueued bigint, completed bigint, dead bigint, cancelled bigint, open bigint, untraced bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
  with trace as (
    select d.id, 'open' state
    from rowlock.delayed d
    union all
    select task, 'open'
    from rowlock.ready r, generate_series(r.id, r.id + r.n - 1) task
    union all
    select task, 'open'
    from
      rowlock.lease l,
      unnest(l.firsts, l.ns) range(first_id, n),
      generate_series(range.first_id, range.first_id + range.n - 1) task
    where not exists (select 1 from unnest(l.settled) done where done = task)
    union all
    select d.id, 'dead'
    from rowlock.dead d
    union all
    select
      task,
      case r.state when 1 then 'completed' when 2 then 'dead' else 'cancelled' end
    from
      rowlock.receipt r,
      unnest(r.firsts, r.ns) range(first_id, n),
      generate_series(range.first_id, range.first_id + range.n - 1) task
  )
  select
    q.name,
    count(t.id),
    count(*) filter (where trace.state = 'completed'),
    count(*) filter (where trace.state = 'dead'),
    count(*) filter (where trace.state = 'cancelled'),
    count(*) filter (where trace.state = 'open'),
    count(t.id) filter (where trace.state is null)
  from rowlock.queue q
  left join rowlock.every_task t on t.queue = q.id
  left join trace on trace.id = t.id
  where not q.restricted or rowlock.has_permission('reader', q.id)
  group by q.name
  order by q.name
$$;

CREATE FUNCTION rowlock.available_page(queue text, after bigint, most integer) RETURNS TABLE(id bigint, name text, attempt integer, at timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  after_priority smallint := -1;
  after_k bigint := 0;
  newest bigint := (select s.last_value from rowlock.k_seq s);
  v_queues int[];
  v_names text[];
  v_watermarks bigint[];
  v_left int := available_page.most;
  n int;
begin
  if available_page.after is not null then
    select
      t.priority,
      coalesce(r.k, (newest & ~4294967295::bigint) + t.k_low + 2147483648, 0)
      into after_priority, after_k
      from rowlock.every_task t
      left join lateral
        rowlock.find_ready(t.queue, t.priority, available_page.after, t.k_low) r on true
      where t.id = available_page.after;
  end if;
  select
    array_agg(q.id),
    array_agg(q.name),
    array_agg(coalesce(rowlock.published_watermarks(q.id), array_fill(0::bigint, array[16])))
    into v_queues, v_names, v_watermarks
    from rowlock.queue q
    where (available_page.queue is null or q.name = available_page.queue)
      and (not q.restricted or rowlock.has_permission('reader', q.id));
  -- One priority after the other: most pages end in the first priority that has any tasks.
  for v_priority in greatest(after_priority, 0) .. 3 loop
    return query
      select
        task,
        v_names[range.queue_place],
        range.attempt::int,
        to_timestamp(range.since::bigint + 1704067200)
      from
        (
          select queues.queue_place, ready.*
          from
            generate_subscripts(v_queues, 1) queues(queue_place),
            generate_series(0, 3) s,
            lateral (
              select r.*
              from rowlock.ready r
              where r.queue = v_queues[queues.queue_place]
                and r.shard = s::smallint
                and r.lane = 0
                and r.priority = v_priority::smallint
                and r.k >= greatest(
                  v_watermarks[queues.queue_place][v_priority * 4 + s + 1],
                  case when v_priority = after_priority then after_k end
                )
              order by r.k
              limit v_left
            ) ready
        ) range,
        generate_series(range.id, range.id + range.n - 1) task
      where (range.priority, range.k, task)
        > (after_priority, after_k, coalesce(available_page.after, 0))
      order by range.k, task
      limit v_left;
    get diagnostics n = row_count;
    v_left := v_left - n;
    exit when v_left <= 0;
  end loop;
end $$;

CREATE FUNCTION rowlock.await_claims(instance bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform rowlock.require_worker(i.queue)
    from rowlock.instance i
    where i.id = await_claims.instance;
  perform 1
    from rowlock.instance i
    where i.id = await_claims.instance
    for no key update;
end $$;

CREATE FUNCTION rowlock.backlog() RETURNS TABLE(queue integer, available bigint, scheduled bigint, retryable bigint, far_future bigint, oldest integer)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  v_ready real := rowlock.sample_percent('rowlock.ready');
  v_delayed real := rowlock.sample_percent('rowlock.delayed');
  most int;   -- rows to count in each part
begin
  select greatest(least(20000 / greatest(count(*), 1), 1000), 50) into most from rowlock.queue;
  return query
    select
      q.id,
      coalesce(
        case
          when counted.more is null then sample.n
          when counted.more then greatest(counted.n, sample.n)
          else counted.n
        end,
        0
      ),
      coalesce(delayed.scheduled, 0),
      coalesce(delayed.retryable, 0),
      coalesce(delayed.far_future, 0),
      coalesce(counted.oldest, sample.oldest)
    from rowlock.queue q
    left join (
      select r.queue, (sum(r.n) * 100 / v_ready)::bigint n, min(r.since) oldest
      from rowlock.ready r tablesample system (v_ready) repeatable (0)
      group by r.queue
    ) sample on sample.queue = q.id
    left join lateral (
      select sum(first.n)::bigint n, min(first.oldest) oldest, bool_or(first.rows = most) more
      from
        coalesce(
          rowlock.published_watermarks(q.id),
          array_fill(0::bigint, array[16])
        ) watermarks,
        generate_series(0, 15) part,
        lateral (
          select sum(ranges.n) n, min(ranges.since) oldest, count(*) as rows
          from (
            select r.n, r.since
            from rowlock.ready r
            where r.queue = q.id
              and r.shard = (part & 3)::smallint
              and r.lane = 0
              and r.priority = (part >> 2)::smallint
              and r.k >= watermarks[part + 1]
            order by r.k
            limit most
          ) ranges
        ) first
    ) counted on v_ready < 100
    left join (
      select
        d.queue,
        (count(*) filter (where d.waits = 0) * 100 / v_delayed)::bigint scheduled,
        (count(*) filter (where d.waits = 1) * 100 / v_delayed)::bigint retryable,
        (
          count(*) filter (where d.due > now() + rowlock.far_future_after()) * 100 / v_delayed
        )::bigint far_future
      from rowlock.delayed d tablesample system (v_delayed) repeatable (0)
      group by d.queue
    ) delayed on delayed.queue = q.id;
end $$;

CREATE FUNCTION rowlock.backlog_reaches(queue integer, backlog_limit bigint) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select
    coalesce(
      (
        select sum(ready.n)
        from (
          select r.n
          from rowlock.ready r
          where r.queue = backlog_reaches.queue
          limit backlog_reaches.backlog_limit
        ) ready
      ),
      0
    ) + (
      select count(*)
      from (
        select 1
        from rowlock.delayed d
        where d.queue = backlog_reaches.queue
          and d.due <= now() + rowlock.far_future_after()
        limit backlog_reaches.backlog_limit
      ) delayed
    ) >= backlog_reaches.backlog_limit
$$;

CREATE FUNCTION rowlock.begin_maintenance(cleanup boolean) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  -- Only the owner may detach and drop.
  if cleanup and not pg_has_role(
    session_user,
    (select c.relowner from pg_class c where c.oid = 'rowlock.task'::regclass),
    'usage'
  ) then
    return false;
  end if;
  update rowlock.maintenance m
    set
      next_partitions_at = case
        when cleanup then m.next_partitions_at
        else now() + interval '5 minutes'
      end,
      next_cleanup_at = case
        when cleanup then now() + interval '5 minutes'
        else m.next_cleanup_at
      end,
      steady_since = case
        when rowlock.clock_stepped(m.seen_at) then now()
        else m.steady_since
      end,
      seen_at = now()
    where m.one_row = (
      select due.one_row
      from rowlock.maintenance due
      where case when cleanup then due.next_cleanup_at else due.next_partitions_at end
        not between now() and now() + interval '5 minutes'
      for update skip locked
    );
  return found;
end $$;

CREATE FUNCTION rowlock.calling_role() RETURNS name
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
    AS $$
#variable_conflict use_column
declare
  t record;
  v_attempt smallint;
begin
  perform rowlock.require_read_committed();
  select e.queue, e.priority, e.k_low into t from rowlock.every_task e where e.id = cancel.id;
  if not found then
    return null;
  end if;
  if exists (
    select 1
    from rowlock.queue q
    where q.id = t.queue and q.restricted and not rowlock.has_permission('producer', q.id)
  ) then
    perform rowlock.refuse_permission(
      'producer', (select q.name from rowlock.queue q where q.id = t.queue)
    );
  end if;
  if rowlock.find_state(cancel.id, t.queue, t.priority, t.k_low)
    in ('completed', 'dead', 'cancelled') then
    return 'finished';
  end if;
  insert into rowlock.cancel_request (id) values (cancel.id) on conflict do nothing;
  for turn in 1 .. 3 loop
    case rowlock.find_state(cancel.id, t.queue, t.priority, t.k_low)
      when 'scheduled', 'retryable' then
        delete from rowlock.delayed d where d.id = cancel.id returning d.attempt into v_attempt;
      when 'available' then
        v_attempt := rowlock.remove_from_range(t.queue, t.priority, cancel.id, t.k_low);
      when 'running' then
        return 'requested';
      else
        delete from rowlock.cancel_request c where c.id = cancel.id;
        return 'finished';
    end case;
    if v_attempt is not null then
      perform rowlock.write_receipt(
        t.queue, null, 3::smallint, array[cancel.id], array[v_attempt]
      );
      delete from rowlock.cancel_request c where c.id = cancel.id;
      return 'cancelled';
    end if;
    -- The task moved after its state was read.
  end loop;
  return 'requested';
end $$;

CREATE FUNCTION rowlock.cancel_all(ids bigint[]) RETURNS TABLE(id bigint, outcome text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
  for id in
    select distinct task.id from unnest(cancel_all.ids) task(id) order by 1
  loop
    outcome := rowlock.cancel(id);
    return next;
  end loop;
end $$;

CREATE FUNCTION rowlock.check_ending(instance bigint) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if exists (
    select 1
    from rowlock.instance i
    where i.id = check_ending.instance and i.ended_at is null
  ) then
    raise exception 'instance % is being ended', instance
      using errcode = 'lock_not_available',
        hint = 'Try again.';
  end if;
  return false;
end $$;

CREATE FUNCTION rowlock.check_marking(instance bigint) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform 1
    from rowlock.instance i
    where i.id = check_marking.instance and i.ended_at is null
    for key share skip locked;
  if not found and not rowlock.check_ending(check_marking.instance) then
    raise exception 'instance % is gone', check_marking.instance
      using errcode = 'RL006',
        hint = 'Join again.';
  end if;
  return true;
end $$;

CREATE FUNCTION rowlock.check_options(options jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  unknown text;
begin
  if jsonb_typeof(options) is distinct from 'object' then
    raise exception 'options must be a JSON object'
      using errcode = 'RL005',
        hint = 'Leave them out, or pass for example {"priority": 0}.';
  end if;
  select key
    into unknown
    from jsonb_object_keys(options) key
    where key not in (
        'priority', 'run_at', 'delay', 'max_attempts', 'traceparent', 'tracestate', 'notify'
      )
    limit 1;
  if found then
    raise exception 'unknown option "%"', unknown
      using errcode = 'RL002',
        hint = 'Options are priority, run_at, delay, max_attempts, traceparent, tracestate and'
          ' notify.';
  end if;
  if options->>'run_at' is not null and options->>'delay' is not null then
    raise exception 'run_at and delay exclude each other'
      using errcode = 'RL005',
        hint = 'Give one of them.';
  end if;
  if options ? 'priority' and (options->>'priority') !~ '^[0-3]$' then
    raise exception 'priority must be 0, 1, 2 or 3'
      using errcode = 'RL005',
        hint = '0 is claimed first; the default is 1.';
  end if;
  if options ? 'max_attempts'
    and not (
      (options->>'max_attempts') ~ '^[0-9]{1,4}$'
      and (options->>'max_attempts')::int between 1 and 1000
    ) then
    raise exception 'max_attempts must be a whole number from 1 to 1000'
      using errcode = 'RL005',
        hint = 'Leave it out to use the queue''s retry.maxAttempts.';
  end if;
  if jsonb_typeof(options->'notify') not in ('boolean', 'null') then
    raise exception 'notify must be true or false'
      using errcode = 'RL005',
        hint = 'false enqueues without NOTIFY, for PREPARE TRANSACTION.';
  end if;
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
    far_future_full boolean DEFAULT false NOT NULL,
    restricted boolean DEFAULT false NOT NULL,
    partitions_until integer DEFAULT 0 NOT NULL,
    notify_until timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    range_size smallint DEFAULT 128 NOT NULL,
    keep_completed interval NOT NULL,
    keep_dead interval NOT NULL,
    keep_cancelled interval NOT NULL,
    max_delay interval DEFAULT '365 days'::interval NOT NULL,
    watermarks bigint[],
    watermarks_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    CONSTRAINT queue_backlog_limit_check CHECK ((backlog_limit > 0)),
    CONSTRAINT queue_max_attempts_check CHECK (((max_attempts >= 1) AND (max_attempts <= 1000))),
    CONSTRAINT queue_name_check CHECK ((name ~ '^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$'::text)),
    CONSTRAINT queue_payload_limit_check CHECK ((payload_limit > 0)),
    CONSTRAINT queue_range_size_check CHECK (((range_size >= 1) AND (range_size <= 256))),
    CONSTRAINT queue_total_workers_check CHECK (((total_workers >= 0) AND (total_workers <= 10000)))
);

CREATE FUNCTION rowlock.check_transaction_limit(q rowlock.queue, setting text, added bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  noted text[] := string_to_array(current_setting(setting, true), ' ');
  xid text := pg_current_xact_id()::text;
begin
  if noted[1] is distinct from xid then
    perform set_config(setting, xid || ' ' || added, true);
  elsif added - noted[2]::bigint >= q.backlog_limit then
    -- The tasks may belong to other queues. So this queue is counted, and again after the same
    -- number of further tasks.
    if rowlock.backlog_reaches(q.id, q.backlog_limit) then
      perform rowlock.refuse_full(q);
    end if;
    perform set_config(setting, xid || ' ' || added, true);
  end if;
end $$;

CREATE FUNCTION rowlock.chunk_of(id bigint) RETURNS integer
    LANGUAGE sql IMMUTABLE
    RETURN ((((id >> 8) & (1073741823)::bigint))::integer + 1);

CREATE FUNCTION rowlock.claim(instance bigint, want integer, watermarks bigint[], start integer, token bigint) RETURNS TABLE(firsts bigint[], ns smallint[], attempts smallint[], priorities smallint[], contended boolean, newest_k bigint, least_ks bigint[], sinces integer[], now_seconds double precision)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  v_queue int;
  v_restricted boolean;
  v_stopped boolean;       -- nothing may be claimed
  v_repeated boolean;      -- the lease was made by an earlier call
  v_drains boolean;        -- marked by a scale-in since this claim began
  looked int;              -- ranges that were read and should be taken
  taken bigint;            -- tasks in the ranges that could be locked
  -- The locked ranges, in the order of the claim.
  v_priorities smallint[];
  v_places tid[];
  v_ids bigint[];
  v_ns smallint[];
  v_attempts smallint[];
  v_sinces int[];
begin
  perform rowlock.require_read_committed();
  select
    i.queue,
    q.restricted,
    coalesce(q.paused or i.drains or rowlock.is_draining(i.drain_until), true),
    exists (select 1 from rowlock.lease l where l.token = claim.token)
    into v_queue, v_restricted, v_stopped, v_repeated
    from rowlock.instance i
    left join rowlock.queue q on q.id = i.queue
    where i.id = claim.instance and i.ended_at is null;
  if not found then
    raise exception 'instance % is gone', claim.instance
      using errcode = 'RL006',
        hint = 'Join again.';
  end if;
  if v_repeated then
    return query
      select l.firsts, l.ns, l.attempts, l.priorities, false, 0::bigint, '{}'::bigint[],
        '{}'::int[], 0::double precision
      from rowlock.lease l
      where l.token = claim.token and l.instance = claim.instance;
    return;
  end if;
  firsts := '{}';
  ns := '{}';
  attempts := '{}';
  priorities := '{}';
  contended := false;
  newest_k := 0;
  least_ks := '{}';
  sinces := '{}';
  now_seconds := 0;
  if v_stopped then
    return next;
    return;
  end if;
  if v_restricted then
    perform rowlock.require_worker(v_queue);
  end if;
  select last_value into newest_k from rowlock.k_seq;
  with look as materialized (
    select count(*) as entries
    from (
      select
        sum(candidate.n) over (order by candidate.priority, candidate.turn, candidate.k)
          - candidate.n as before
      from (
        select ranges.priority, part.turn, ranges.k, ranges.n
        from
          (
            select number >> 2 as priority, number & 3 as turn
            from generate_series(0, 15) number
          ) part,
          lateral (
            select r.priority, r.k, r.n
            from rowlock.ready r
            where r.queue = v_queue
              and r.shard = ((part.turn + claim.start) & 3)::smallint
              and r.lane = 0
              and r.priority = part.priority::smallint
              and r.k >= claim.watermarks[
                part.priority * 4 + ((part.turn + claim.start) & 3) + 1
              ]
            order by r.k
            limit claim.want
          ) ranges
        limit claim.want
      ) candidate
    ) summed
    where before < claim.want
  ),
  locked as materialized (
    select ranges.*, part.turn
    from
      (
        select number >> 2 as priority, number & 3 as turn
        from generate_series(0, 15) number
      ) part,
      lateral (
        select r.priority, r.k, r.id, r.n, r.attempt, r.since, r.ctid place
        from rowlock.ready r
        where r.queue = v_queue
          and r.shard = ((part.turn + claim.start) & 3)::smallint
          and r.lane = 0
          and r.priority = part.priority::smallint
          and r.k >= claim.watermarks[
            part.priority * 4 + ((part.turn + claim.start) & 3) + 1
          ]
        order by r.k
        limit (select entries from look)
        for update skip locked
      ) ranges
    limit (select entries from look)
  )
  select
    (select entries from look),
    sum(n),
    array_agg(priority order by priority, turn, k),
    array_agg(place order by priority, turn, k),
    array_agg(id order by priority, turn, k),
    array_agg(n order by priority, turn, k),
    array_agg(attempt order by priority, turn, k),
    array_agg(since order by priority, turn, k)
    into looked, taken, v_priorities, v_places, v_ids, v_ns, v_attempts, v_sinces
    from locked;
  if v_ids is not null then
    -- The lock prevents others from ending the instance until the lease is committed. It does not
    -- wait: a session that ends the queue may itself wait for the ranges that are locked above.
    select rowlock.is_draining(i.drain_until)
      into v_drains
      from rowlock.instance i
      where i.id = claim.instance and i.ended_at is null
      for share skip locked;
    if not found then
      v_drains := rowlock.check_marking(claim.instance);
    end if;
    if v_drains then
      v_ids := null;
      taken := null;
    end if;
  end if;
  if v_ids is not null then
    -- This statement has a new snapshot: it sees the newest version of the locked rows, with
    -- whatever was committed between reading and locking. Rows are found by ctid, which a lock
    -- keeps. With a join by key, a plan from the time when the table was small would read the whole
    -- index once the table is large.
    with taking as materialized (
      select
        range.*,
        (sum(range.n) over (order by range.ordinal))::int - range.n as before
      from unnest(v_priorities, v_places, v_ids, v_ns, v_attempts)
        with ordinality range(priority, place, id, n, attempt, ordinal)
    ),
    whole as (
      delete from rowlock.ready r
      where r.ctid = any (
        array(
          select taking.place
          from taking
          where taking.before + taking.n <= claim.want
        )
      )
    ),
    part as (
      update rowlock.ready r
      set
        id = r.id + (claim.want - taking.before),
        n = r.n - (claim.want - taking.before)
      from taking
      where taking.before < claim.want
        and taking.before + taking.n > claim.want
        and r.ctid = any (
          array(
            select taking.place
            from taking
            where taking.before < claim.want
              and taking.before + taking.n > claim.want
          )
        )
        and r.ctid = taking.place
    )
    insert into rowlock.lease as made (
        token, instance, queue, firsts, ns, attempts, priorities
      )
      select
        claim.token,
        claim.instance,
        v_queue,
        array_agg(taking.id order by taking.ordinal),
        array_agg(least(taking.n, claim.want - taking.before)::smallint order by taking.ordinal),
        array_agg(taking.attempt order by taking.ordinal),
        array_agg(taking.priority order by taking.ordinal)
      from taking
      where taking.before < claim.want
      returning made.firsts, made.ns, made.attempts, made.priorities
      into firsts, ns, attempts, priorities;
    sinces := v_sinces;
  end if;
  contended := looked > 0
    and coalesce(taken, 0) < claim.want
    and coalesce(cardinality(v_ids), 0) < looked;
  least_ks := rowlock.least_k(v_queue, claim.watermarks);
  now_seconds := date_part('epoch', clock_timestamp()) - 1704067200;
  return next;
end $$;

CREATE FUNCTION rowlock.claim_suspect(instance bigint, token bigint) RETURNS TABLE(id bigint, attempt smallint, priority smallint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  v_queue int;
  v_restricted boolean;
  v_drains boolean;
  t record;
begin
  perform rowlock.require_read_committed();
  if not exists (
    select 1
    from rowlock.instance i
    where i.id = claim_suspect.instance and i.ended_at is null
  ) then
    raise exception 'instance % is gone', claim_suspect.instance
      using errcode = 'RL006',
        hint = 'Join again.';
  end if;
  return query
    select l.firsts[1], l.attempts[1], l.priorities[1]
    from rowlock.lease l
    where l.token = claim_suspect.token and l.instance = claim_suspect.instance;
  if found then
    return;
  end if;
  select i.queue, q.restricted
    into v_queue, v_restricted
    from rowlock.instance i
    join rowlock.queue q on q.id = i.queue
    where i.id = claim_suspect.instance
      and not q.paused
      and not i.drains
      and not rowlock.is_draining(i.drain_until);
  if not found then
    return;
  end if;
  if v_restricted then
    perform rowlock.require_worker(v_queue);
  end if;
  -- Two statements: the second one has a snapshot from after the lock.
  if not rowlock.try_mutex(8, v_queue) then
    return;
  end if;
  if rowlock.enough_suspects_run(v_queue) then
    return;
  end if;
  select d.id, d.attempt, d.priority
    into t
    from rowlock.suspect s
    join rowlock.delayed d on d.id = s.id
    where s.queue = v_queue and s.due <= now()
    order by s.due
    limit 1
    for update of d skip locked;
  if not found then
    return;
  end if;
  -- The lock prevents others from ending the instance until the lease is committed: see claim.
  select rowlock.is_draining(i.drain_until)
    into v_drains
    from rowlock.instance i
    where i.id = claim_suspect.instance and i.ended_at is null
    for share skip locked;
  if not found then
    v_drains := rowlock.check_marking(claim_suspect.instance);
  end if;
  if v_drains then
    return;
  end if;
  delete from rowlock.delayed d where d.id = t.id;
  update rowlock.suspect s set due = 'infinity' where s.id = t.id;
  insert into rowlock.lease (token, instance, queue, firsts, ns, attempts, priorities)
    values (
      claim_suspect.token,
      claim_suspect.instance,
      v_queue,
      array[t.id],
      array[1::smallint],
      array[t.attempt],
      array[t.priority]
    );
  return query select t.id, t.attempt, t.priority;
end $$;

CREATE FUNCTION rowlock.claim_with_payloads(instance bigint, want integer, watermarks bigint[], start integer, token bigint) RETURNS TABLE(firsts bigint[], ns smallint[], attempts smallint[], priorities smallint[], contended boolean, newest_k bigint, least_ks bigint[], sinces integer[], now_seconds double precision, ids bigint[], types text[], payloads text[], max_attempts smallint[], traces text[])
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  v_ids bigint[];
begin
  select c.*
    into firsts, ns, attempts, priorities, contended, newest_k, least_ks, sinces, now_seconds
    from rowlock.claim(
      claim_with_payloads.instance,
      claim_with_payloads.want,
      claim_with_payloads.watermarks,
      claim_with_payloads.start,
      claim_with_payloads.token
    ) c;
  if cardinality(firsts) > 0 then
    v_ids := array(
      select task.id
      from
        unnest(firsts, ns) range(first_id, n),
        generate_series(range.first_id, range.first_id + range.n - 1) task(id)
    );
    execute format(
      'select
        array_agg(t.id),
        array_agg(t.type),
        array_agg(t.payload),
        array_agg(t.max_attempts),
        array_agg(t.trace)
      from (
        select
          t.id,
          t.type,
          t.payload::text,
          t.max_attempts,
          t.trace,
          sum(octet_length(t.payload::text)) over (order by t.id rows unbounded preceding) bytes
        from rowlock.task t
        where %s
      ) t
      where t.bytes <= 262144',
      rowlock.with_ids(cardinality(v_ids))
    )
      into ids, types, payloads, max_attempts, traces
      using v_ids,
        (select min(task.id) from unnest(v_ids) task(id)),
        (select max(task.id) from unnest(v_ids) task(id));
  end if;
  return next;
end $$;

CREATE FUNCTION rowlock.clear_queue(queue integer) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
declare
  cancelled bigint;
begin
  with ready as (
    delete from rowlock.ready r
      where r.queue = clear_queue.queue
      returning r.id, r.n, r.attempt
  ),
  delayed as (
    delete from rowlock.delayed d
      where d.queue = clear_queue.queue
      returning d.id, d.attempt
  ),
  lease as (
    delete from rowlock.lease l
      where l.queue = clear_queue.queue
      returning l.firsts, l.ns, l.attempts, l.settled
  ),
  unfinished as (
    select id, n, attempt from ready
    union all
    select id, 1::smallint, attempt from delayed
    union all
    select task, 1::smallint, range.attempt
    from
      lease,
      unnest(lease.firsts, lease.ns, lease.attempts) range(first_id, n, attempt),
      generate_series(range.first_id, range.first_id + range.n - 1) task
    where task <> all (lease.settled)
  ),
  written as (
    insert into rowlock.receipt (queue, state, firsts, ns, attempts)
      select
        clear_queue.queue,
        3,   -- cancelled
        array_agg(u.id order by u.id),
        array_agg(u.n order by u.id),
        array_agg(u.attempt order by u.id)
      from unfinished u
      having count(*) > 0
  )
  select coalesce(sum(u.n), 0) into cancelled from unfinished u;
  with dead as (
    delete from rowlock.dead d
      where d.queue = clear_queue.queue
      returning d.id, d.attempt
  )
  insert into rowlock.receipt (queue, state, firsts, ns, attempts)
    select
      clear_queue.queue,
      2,   -- dead and deleted
      array_agg(dead.id order by dead.id),
      array_agg(1::smallint),
      array_agg(dead.attempt order by dead.id)
    from dead
    having count(*) > 0;
  return cancelled;
end $$;

CREATE FUNCTION rowlock.clear_suspects(ids bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
begin
  if pg_relation_size('rowlock.suspect') > 0 then
    delete from rowlock.suspect s where s.id = any (clear_suspects.ids);
  end if;
end $$;

CREATE FUNCTION rowlock.clock_is_steady() RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select m.steady_since <= now() - interval '1 hour' and not rowlock.clock_stepped(m.seen_at)
  from rowlock.maintenance m
$$;

CREATE FUNCTION rowlock.clock_stepped(seen_at timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select now() not between clock_stepped.seen_at - interval '1 minute'
    and clock_stepped.seen_at + interval '1 hour'
$$;

CREATE FUNCTION rowlock.concerns_all_rows(state text) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    RETURN ("left"(state, 2) = ANY (ARRAY['25'::text, '40'::text, '53'::text, '55'::text, '57'::text, '58'::text]));

CREATE FUNCTION rowlock.copy_tasks(part text, ids bigint[], finished timestamp with time zone[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
declare
  n int;
  half int := cardinality(ids) / 2;
begin
  begin
    -- The lateral query reads each task by its id: a join would read the whole partition.
    execute format($q$
      insert into rowlock.task_kept (
          id, queue, k_low, priority, max_attempts, type, payload, trace, finished_at
        )
        select t.*, chosen.at
        from
          unnest($1, $2) chosen(id, at),
          lateral (
            select p.* from rowlock.%I p where p.id = chosen.id offset 0
          ) t
        on conflict do nothing
      $q$, part)
      using ids, finished;
    get diagnostics n = row_count;
    return n;
  exception when others then
    if rowlock.concerns_all_rows(sqlstate) then
      raise;
    end if;
    if half = 0 then
      raise exception 'task % cannot be copied: %', ids[1], sqlerrm using errcode = sqlstate;
    end if;
  end;
  return rowlock.copy_tasks(part, ids[:half], finished[:half])
    + rowlock.copy_tasks(part, ids[half + 1:], finished[half + 1:]);
end $_$;

CREATE FUNCTION rowlock.copy_unexpired_tasks(part text, lo bigint, hi bigint, most integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
declare
  v_ids bigint[];
  v_finished timestamptz[];
begin
  execute $q$
    with wanted as (
      (
        select d.id, null::timestamptz at
        from rowlock.delayed d
        where d.id >= $1
          and d.id < $2
          and not exists (select 1 from rowlock.task_kept k where k.id = d.id)
        order by d.id
        limit $3
      )
      union all
      (
        select d.id, null
        from rowlock.dead d
        where d.id >= $1
          and d.id < $2
          and not exists (select 1 from rowlock.task_kept k where k.id = d.id)
        order by d.id
        limit $3
      )
      union all
      select task.id, null
      from
        rowlock.ready r,
        generate_series(greatest(r.id, $1), least(r.id + r.n, $2) - 1) task(id)
      where r.id < $2 and r.id + r.n > $1
      union all
      select task.id, null
      from
        rowlock.lease l,
        unnest(l.firsts, l.ns) range(first_id, n),
        generate_series(
          greatest(range.first_id, $1),
          least(range.first_id + range.n, $2) - 1
        ) task(id)
      where task.id <> all (l.settled)
      union all
      select task.id, r.at
      from
        rowlock.queue q,
        rowlock.receipt r,
        unnest(r.firsts, r.ns) range(first_id, n),
        generate_series(
          greatest(range.first_id, $1),
          least(range.first_id + range.n, $2) - 1
        ) task(id)
      where r.queue = q.id
        and r.state in (1, 3)
        and r.firsts[1] > $1 - 8589934592
        and r.firsts[1] < $2
        and r.at > now() - case r.state when 1 then q.keep_completed else q.keep_cancelled end
        and r.at > now() - (
          select greatest(max(every.keep_completed), max(every.keep_cancelled))
          from rowlock.queue every
        )
    )
    select array_agg(chosen.id order by chosen.id), array_agg(chosen.at order by chosen.id)
    from (
      select wanted.id, max(wanted.at) at
      from wanted
      where not exists (
        select 1
        from rowlock.task_kept k
        where k.id = wanted.id and k.id >= $1 and k.id < $2
      )
      group by wanted.id
      order by wanted.id
      limit $3
    ) chosen
    $q$
    into v_ids, v_finished
    using lo, hi, most;
  return rowlock.copy_tasks(part, v_ids, v_finished);
end $_$;

CREATE FUNCTION rowlock.declare_queue(name text, owner text, generation bigint, policy json, max_attempts integer, total_workers integer, paused boolean, backlog_limit bigint, payload_limit integer, keep_completed interval, keep_dead interval, keep_cancelled interval, max_delay interval, adopts text DEFAULT NULL::text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_column
declare
  v rowlock.queue;
begin
  -- The owner becomes a part of commands that the operator recommends.
  if declare_queue.owner !~ '^[-a-z0-9./ ]{1,200}$' then
    raise exception 'the owner of queue "%" is not valid', declare_queue.name
      using errcode = 'RL005',
        hint = 'Use up to 200 of a-z, 0-9, "-", ".", "/" and spaces.';
  end if;
  select * into v from rowlock.queue q where q.name = declare_queue.name for update;
  if found
    and v.owner <> declare_queue.owner
    and v.owner is distinct from declare_queue.adopts then
    raise exception 'queue "%" belongs to %', declare_queue.name, v.owner
      using errcode = 'RL008',
        hint = 'Choose another queueName, or, in a cluster, set the annotation rowlock.dev/adopt '
          'to that owner.';
  end if;
  if not found then
    -- Waits for a grant in progress. It would not see this queue, and would leave it unrestricted.
    lock table rowlock.access in share mode;
    insert into rowlock.queue (
        name, owner, generation, policy, max_attempts, total_workers, paused, backlog_limit,
        payload_limit, keep_completed, keep_dead, keep_cancelled, max_delay, partitions_until,
        restricted
      )
      values (
        declare_queue.name,
        declare_queue.owner,
        declare_queue.generation,
        declare_queue.policy,
        declare_queue.max_attempts,
        declare_queue.total_workers,
        declare_queue.paused,
        declare_queue.backlog_limit,
        declare_queue.payload_limit,
        declare_queue.keep_completed,
        declare_queue.keep_dead,
        declare_queue.keep_cancelled,
        declare_queue.max_delay,
        rowlock.partitions_until(),
        exists (select 1 from rowlock.access a where a.queue <> 0)
      )
      on conflict (name) do nothing
      returning * into v;
    -- The rows to lock for allocation (5) and sweeps (6). They are made now, so that no session
    -- waits for the first one that needs them.
    insert into rowlock.mutex (operation, queue)
      select operation, v.id
      from generate_series(5, 6) operation
      where v.id is not null
      on conflict do nothing;
    if v.id is null then
      -- Meanwhile another session has created it.
      return rowlock.declare_queue(
        declare_queue.name,
        declare_queue.owner,
        declare_queue.generation,
        declare_queue.policy,
        declare_queue.max_attempts,
        declare_queue.total_workers,
        declare_queue.paused,
        declare_queue.backlog_limit,
        declare_queue.payload_limit,
        declare_queue.keep_completed,
        declare_queue.keep_dead,
        declare_queue.keep_cancelled,
        declare_queue.max_delay,
        declare_queue.adopts
      );
    end if;
  elsif (
      v.owner, v.generation, v.policy::text, v.max_attempts, v.total_workers, v.paused,
      v.backlog_limit, v.payload_limit, v.keep_completed, v.keep_dead, v.keep_cancelled, v.max_delay
    ) is distinct from (
      declare_queue.owner,
      declare_queue.generation,
      declare_queue.policy::text,
      declare_queue.max_attempts,
      declare_queue.total_workers,
      declare_queue.paused,
      declare_queue.backlog_limit,
      declare_queue.payload_limit,
      declare_queue.keep_completed,
      declare_queue.keep_dead,
      declare_queue.keep_cancelled,
      declare_queue.max_delay
    ) then
    update rowlock.queue q
      set
        owner = declare_queue.owner,
        generation = declare_queue.generation,
        policy = declare_queue.policy,
        max_attempts = declare_queue.max_attempts,
        total_workers = declare_queue.total_workers,
        paused = declare_queue.paused,
        backlog_limit = declare_queue.backlog_limit,
        payload_limit = declare_queue.payload_limit,
        keep_completed = declare_queue.keep_completed,
        keep_dead = declare_queue.keep_dead,
        keep_cancelled = declare_queue.keep_cancelled,
        max_delay = declare_queue.max_delay
      where q.id = v.id;
  end if;
  return v.id;
end $_$;

CREATE FUNCTION rowlock.delay_suspects(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
  insert into rowlock.delayed (id, queue, priority, attempt, waits, run_at, due)
    select
      item.id,
      delay_suspects.queue,
      item.priority,
      item.attempt,
      1,   -- retryable
      s.due,
      s.until
    from unnest(delay_suspects.ids, delay_suspects.attempts, delay_suspects.priorities)
      item(id, attempt, priority)
    join rowlock.suspect s on s.id = item.id
$$;

CREATE FUNCTION rowlock.delete_expired_tasks(most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  deleted record;
  gone bigint[];
  kept bigint[];
  n int := 0;
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(4, 0) then
    return 0;
  end if;
  if not rowlock.clock_is_steady() then
    return 0;
  end if;
  for deleted in
    with old as (
      delete from rowlock.dead d
        where d.id in (
          select expired.id
          from
            rowlock.queue q,
            lateral (
              select candidate.id
              from rowlock.dead candidate
              where candidate.queue = q.id and candidate.at < now() - q.keep_dead
              order by candidate.at
              limit delete_expired_tasks.most
              for update skip locked
            ) expired
          limit delete_expired_tasks.most
        )
        returning d.id, d.queue, d.attempt
    )
    select old.queue, array_agg(old.id) ids, array_agg(old.attempt) attempts
    from old
    group by old.queue
  loop
    -- A receipt remains, so that a task whose partition still exists has a state.
    perform rowlock.write_receipt(
      deleted.queue, null, 2::smallint, deleted.ids, deleted.attempts
    );
    gone := gone || deleted.ids;
    n := n + cardinality(deleted.ids);
  end loop;
  kept := array(
    select expired.id
    from
      rowlock.queue q,
      lateral (
        select k.id
        from rowlock.task_kept k
        where k.queue = q.id
          and k.finished_at < now() - greatest(q.keep_completed, q.keep_cancelled)
        order by k.finished_at
        limit delete_expired_tasks.most
      ) expired
    limit delete_expired_tasks.most
  );
  delete from rowlock.task_kept k where k.id = any (gone || kept);
  delete from rowlock.task_error_kept e where e.id = any (gone || kept);
  return n + cardinality(kept);
end $$;

CREATE FUNCTION rowlock.delete_old_scaling_decisions(most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  n int;
begin
  perform rowlock.require_read_committed();
  if not rowlock.clock_is_steady() then
    return 0;
  end if;
  delete from rowlock.scaling_decision d
    using (
      select old.queue, old.number
      from
        rowlock.queue q,
        lateral (
          select max(l.number) number
          from rowlock.scaling_decision l
          where l.queue = q.id
        ) newest,
        lateral (
          (
            select o.queue, o.number
            from rowlock.scaling_decision o
            where o.queue = q.id
              and o.at < now() - interval '7 days'
              and o.number < newest.number
            order by o.at
            limit delete_old_scaling_decisions.most
          )
          union
          (
            select o.queue, o.number
            from rowlock.scaling_decision o
            where o.queue = q.id and o.number <= newest.number - 10000
            order by o.number
            limit delete_old_scaling_decisions.most
          )
        ) old
      limit delete_old_scaling_decisions.most
    ) expired
    where d.queue = expired.queue and d.number = expired.number;
  get diagnostics n = row_count;
  return n;
end $$;

CREATE FUNCTION rowlock.delete_queue(queue text, force boolean DEFAULT false) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '1s'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  v rowlock.queue;
  i record;
  living bigint;
  cancelled bigint := 0;
begin
  perform rowlock.require_read_committed();
  select * into v from rowlock.queue q where q.name = delete_queue.queue;
  if not found then
    perform rowlock.refuse_unknown_queue(delete_queue.queue);
  end if;
  select count(*)
    into living
    from rowlock.instance live
    where live.queue = v.id and live.ended_at is null;
  if living > 0 and force is not true then
    raise exception 'queue "%" has % instances', delete_queue.queue, living
      using errcode = 'RL009',
        hint = 'Delete its TaskQueue and wait until they have left; force => true ends them.';
  end if;
  begin
    for i in
      select live.id
      from rowlock.instance live
      where live.queue = v.id and live.ended_at is null
      order by live.id
    loop
      perform 1 from rowlock.instance live where live.id = i.id for update;
      update rowlock.instance live
        set ended_at = now(), gone = true
        where live.id = i.id and live.ended_at is null;
    end loop;
    -- Most of the work is done before the table is locked. The lock waits for every transaction
    -- that enqueued or moved tasks, and new ones wait behind it.
    if force then
      cancelled := rowlock.clear_queue(v.id);
    end if;
    lock table rowlock.queue in access exclusive mode;
  exception when lock_not_available then
    raise exception 'queue "%" is being used', delete_queue.queue
      using errcode = 'RL009',
        hint = 'A transaction that enqueued, or a statement of an instance, is open: try again when'
          ' it has ended.';
  end;
  if force is not true and (
    exists (select 1 from rowlock.ready r where r.queue = v.id)
    or exists (select 1 from rowlock.delayed d where d.queue = v.id)
    or exists (select 1 from rowlock.lease l where l.queue = v.id)
  ) then
    raise exception 'queue "%" has unfinished tasks', delete_queue.queue
      using errcode = 'RL009',
        hint = 'Wait until they have finished; force => true cancels them all.';
  end if;
  cancelled := cancelled + rowlock.clear_queue(v.id);
  delete from rowlock.cancel_request c
    using rowlock.every_task t
    where t.id = c.id and t.queue = v.id;
  delete from rowlock.snooze s
    using rowlock.every_task t
    where t.id = s.id and t.queue = v.id;
  delete from rowlock.suspect s where s.queue = v.id;
  delete from rowlock.task_kept t where t.queue = v.id;
  delete from rowlock.scaling_decision d where d.queue = v.id;
  delete from rowlock.mutex m where m.queue = v.id;
  delete from rowlock.queue q where q.id = v.id;
  return cancelled;
end $$;

CREATE FUNCTION rowlock.describe_task(id bigint) RETURNS TABLE(queue text, type text, state text, priority smallint, attempt integer, max_attempts smallint, enqueued_at timestamp with time zone, due_at timestamp with time zone, finished_at timestamp with time zone, instance text, payload text, result text, snoozes integer, first_snoozed_at timestamp with time zone, snoozed_at timestamp with time zone, suspect boolean, trace_id text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  t record;
  v_state text;
  v_attempt int;
  v_due timestamptz;
  v_at timestamptz;
  v_instance bigint;
  v_result text;
begin
  select e.* into t from rowlock.every_task e where e.id = describe_task.id;
  if not found or exists (
    select 1
    from rowlock.queue q
    where q.id = t.queue and q.restricted and not rowlock.has_permission('reader', q.id)
  ) then
    return;
  end if;
  v_state := rowlock.find_state(describe_task.id, t.queue, t.priority, t.k_low);
  case v_state
    when 'scheduled', 'retryable' then
      select d.attempt, d.run_at
        into v_attempt, v_due
        from rowlock.delayed d
        where d.id = describe_task.id;
    when 'available' then
      select r.attempt
        into v_attempt
        from rowlock.find_ready(t.queue, t.priority, describe_task.id, t.k_low) r;
    when 'running' then
      select l.attempt, l.instance
        into v_attempt, v_instance
        from rowlock.find_lease(describe_task.id) l;
    else
      select d.attempt, d.at
        into v_attempt, v_at
        from rowlock.dead d
        where d.id = describe_task.id;
      if not found then
        select r.attempt, r.at, r.instance
          into v_attempt, v_at, v_instance
          from rowlock.find_receipt(t.queue, describe_task.id) r;
      end if;
  end case;
  -- A result has the same time as its receipt.
  if v_state = 'completed' then
    select r.value
      into v_result
      from rowlock.result r
      where r.id = describe_task.id and r.at = v_at;
  end if;
  return query
    select
      q.name,
      t.type,
      v_state,
      t.priority,
      coalesce(v_attempt, 0),
      coalesce(t.max_attempts, q.max_attempts),
      rowlock.id_time(describe_task.id),
      v_due,
      v_at,
      (select i.name from rowlock.instance i where i.id = v_instance),
      t.payload::text,
      v_result,
      coalesce(s.times, 0),
      s.first_at,
      s.at,
      exists (select 1 from rowlock.suspect mark where mark.id = describe_task.id),
      substring(t.trace from '^[*]?00-([0-9a-f]{32})-')
    from rowlock.queue q
    left join rowlock.snooze s on s.id = describe_task.id
    where q.id = t.queue;
end $$;

CREATE FUNCTION rowlock.drain(instance bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform rowlock.require_worker(i.queue)
    from rowlock.instance i
    where i.id = drain.instance;
  update rowlock.instance i
    set drains = true
    where i.id = drain.instance and i.ended_at is null and not i.drains;
end $$;

CREATE FUNCTION rowlock.drain_mark_duration() RETURNS interval
    LANGUAGE sql IMMUTABLE
    RETURN '00:00:30'::interval;

CREATE FUNCTION rowlock.drain_pods(queue text, owner text, pods uuid[], ranks integer[], most integer) RETURNS TABLE(pod uuid, held integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  v_queue int;
  chosen uuid[];
begin
  perform rowlock.require_read_committed();
  select q.id
    into v_queue
    from rowlock.queue q
    where q.name = drain_pods.queue and q.owner = drain_pods.owner;
  if not found then
    return;
  end if;
  -- Among equals, those that are marked already.
  chosen := array(
    select p.pod
    from rowlock.tasks_of_pods(v_queue, drain_pods.pods) p
    order by drain_pods.ranks[p.number], p.held, p.marked desc, p.number
    limit greatest(drain_pods.most, 0)
  );
  -- Only the chosen ones, which are idle if any are: a claim does not wait for this lock, and would
  -- have to be repeated. And those that lose their mark, in the same order as delete_queue: in
  -- another one, the two could wait for each other.
  perform 1
    from rowlock.instance i
    where i.queue = v_queue
      and i.ended_at is null
      and i.pod = any (drain_pods.pods)
      and (i.drain_until is not null or i.pod = any (chosen))
    order by i.id
    for no key update;
  update rowlock.instance i
    set drain_until = now() + rowlock.drain_mark_duration()
    where i.queue = v_queue
      and i.ended_at is null
      and i.pod = any (chosen)
      -- Repeated only when a third of it is over, since each update leaves a dead row.
      and coalesce(i.drain_until < now() + rowlock.drain_mark_duration() * (2 / 3.0), true);
  update rowlock.instance i
    set drain_until = null
    where i.queue = v_queue
      and i.ended_at is null
      and i.drain_until is not null
      and i.pod = any (drain_pods.pods)
      and i.pod <> all (chosen);
  return query
    select p.pod, p.held
    from rowlock.tasks_of_pods(v_queue, chosen) p
    order by p.number;
end $$;

CREATE FUNCTION rowlock.due_time(options jsonb) RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "DateStyle" TO 'ISO, YMD'
    SET "TimeZone" TO 'UTC'
    SET "IntervalStyle" TO 'postgres'
    AS $_$
declare
  delay interval;
  due timestamptz;
begin
  if options->>'delay' is not null then
    begin
      delay := (options->>'delay')::interval;
    exception when data_exception then
      raise exception 'delay is not an interval'
        using errcode = 'RL005',
          hint = 'For example "15 seconds" or "PT15S".';
    end;
    if delay < interval '0' then
      raise exception 'delay must not be negative'
        using errcode = 'RL005',
          hint = 'Leave it out to run the task now.';
    end if;
    begin
      -- Counted from this moment. The transaction may have started long ago.
      due := clock_timestamp() + delay;
    exception when data_exception then
      due := 'infinity';
    end;
  elsif options->>'run_at' is not null then
    -- Without an offset the time would depend on the session's time zone, and "tomorrow" on the
    -- day.
    if (options->>'run_at') !~ (
      '^[0-9]{4,5}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?'
      || ' ?(Z|[+-][0-9]{2}(:?[0-9]{2})?)$'
    ) then
      raise exception 'run_at is not a time with an offset from UTC'
        using errcode = 'RL005',
          hint = 'For example "2030-01-31T08:00:00Z" or "2030-01-31T09:00:00+01:00".';
    end if;
    begin
      due := greatest((options->>'run_at')::timestamptz, now());
    exception when data_exception then
      raise exception 'run_at is not a time'
        using errcode = 'RL005',
          hint = 'For example "2030-01-31T08:00:00Z".';
    end;
  end if;
  -- Clients cannot represent infinity, and few can represent a year with five digits.
  if due > clock_timestamp() + interval '100 years' then
    raise exception 'the task would be due in more than 100 years'
      using errcode = 'RL005',
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
declare
  p record;
  emptied text[] := '{}';
  unused boolean;
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(1, 0) then
    return emptied;
  end if;
  -- Tables that a session detached and then did not drop.
  for p in
    select c.relname part
    from pg_class c
    where c.relnamespace = 'rowlock'::regnamespace
      and c.relkind = 'r'
      and not c.relispartition
      and c.relname ~ '^(task|receipt|result|task_error|heartbeat|allocation)_[0-9]+$'
  loop
    begin
      execute format('lock table rowlock.%I in access exclusive mode', p.part);
      execute format('select not exists (select 1 from rowlock.%I)', p.part) into unused;
      if unused then
        execute format('drop table rowlock.%I', p.part);
      end if;
    exception
      when lock_not_available then null;
      when others then raise warning 'table % cannot be dropped: %', p.part, sqlerrm;
    end;
  end loop;
  if not rowlock.clock_is_steady() then
    return emptied;
  end if;
  for p in
    select * from rowlock.expired_partitions()
  loop
    begin
      execute format('lock table rowlock.%I in access exclusive mode', p.part);
      if p.parent = 'task_error' then
        execute format(
          'select not exists (
            select 1
            from rowlock.%I e
            where e.id in (select k.id from rowlock.task_kept k)
          )',
          p.part
        ) into unused;
        continue when not unused;   -- rowlock.move_kept_errors has not finished
      end if;
      execute format('truncate rowlock.%I', p.part);
      emptied := emptied || (p.parent || ' ' || p.part);
    exception
      when lock_not_available then null;   -- this one is being read: continue with the others
      when others then raise warning 'partition % cannot be emptied: %', p.part, sqlerrm;
    end;
  end loop;
  return emptied;
end $_$;

CREATE FUNCTION rowlock.empty_task_partition(most integer DEFAULT 5000, skipped text[] DEFAULT '{}'::text[]) RETURNS TABLE(part text, more boolean, failed text, why text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    SET jit TO 'off'
    AS $$
declare
  v_part text;
  v_lo bigint;
  v_hi bigint;
  keep interval;
  last bigint;   -- the highest id that was copied before
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(1, 0) then
    return;
  end if;
  if not rowlock.clock_is_steady() then
    return;
  end if;
  select coalesce(greatest(max(keep_completed), max(keep_cancelled)), interval '1 day')
    into keep
    from rowlock.queue;
  select p.part, rowlock.id_at(p.lo), rowlock.id_at(p.hi)
    into v_part, v_lo, v_hi
    from rowlock.partitions_of('task') p
    where p.part <> all (empty_task_partition.skipped)
    order by p.detaches desc, p.hi
    limit 1;
  -- Ten minutes more, so that a task that is enqueued at the end of the partition and done at once
  -- is not copied.
  if v_part is null or rowlock.id_time(v_hi) > now() - keep - interval '10 minutes' then
    return;
  end if;
  select max(k.id) into last from rowlock.task_kept k where k.id >= v_lo and k.id < v_hi;
  if rowlock.copy_unexpired_tasks(v_part, greatest(last + 1, v_lo), v_hi, most) > 0 then
    return query select null::text, true, null::text, null::text;
    return;
  end if;
  begin
    execute format('lock table rowlock.%I in access exclusive mode', v_part);
    raise exception using errcode = 'RL000';
  exception
    when sqlstate 'RL000' then null;   -- the lock is available; it is released for now
    when lock_not_available then return;
  end;
  -- From here on no task is added. Tasks can still be read until all tasks to keep are copied.
  execute format('lock table rowlock.%I in share mode', v_part);
  if rowlock.copy_unexpired_tasks(v_part, v_lo, v_hi, most) >= most then
    return query select null::text, true, null::text, null::text;
    return;
  end if;
  execute format('lock table rowlock.%I in access exclusive mode', v_part);
  execute format('truncate rowlock.%I', v_part);
  return query select v_part, false, null::text, null::text;
exception
  when lock_not_available then return;   -- another session took the lock in between
  when others then
    if v_part is null or rowlock.concerns_all_rows(sqlstate) then
      raise;
    end if;
    return query select null::text, true, v_part, sqlerrm;
end $$;

CREATE FUNCTION rowlock.end_lease(token bigint, ids bigint[], left_ids bigint[]) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
  delete from rowlock.lease l
    where l.token = end_lease.token and cardinality(end_lease.left_ids) = 0;
  update rowlock.lease l
    set settled = l.settled || array(
      select task.id
      from unnest(end_lease.ids) task(id)
      where task.id <> all (end_lease.left_ids)
    )
    where l.token = end_lease.token and cardinality(end_lease.left_ids) > 0
$$;

CREATE FUNCTION rowlock.end_lost_instance(instance bigint, why text) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  l record;
  held record;
  rescued int := 0;
  started int;    -- how many of the tasks of a lease may have started
  left_ids bigint[];
  n_left int := 0;
  v_slots int;    -- null: not known
  v_name text;
  v_queue int;
  v_drains boolean;
begin
  update rowlock.instance i
    set ended_at = now(), gone = true
    where i.id = end_lost_instance.instance and i.ended_at is null
    returning i.name, i.queue, i.drains into v_name, v_queue, v_drains;
  if not found then
    return null;
  end if;
  v_slots := (
    select nullif(greatest(h.held, h.allocated), 0)
    from rowlock.heartbeat h
    where h.instance = end_lost_instance.instance
    order by h.n desc
    limit 1
  );
  perform 1
    from rowlock.lease lost
    where lost.instance = end_lost_instance.instance
    order by lost.token
    for update;
  for l in
    select lost.token
    from rowlock.lease lost
    where lost.instance = end_lost_instance.instance
    order by lost.at, lost.token
  loop
    select * into held from rowlock.unsettled_tasks(l.token);
    if held.ids is not null then
      started := least(
        cardinality(held.ids),
        greatest(coalesce(v_slots, 2147483647) - rescued, 0)
      );
      left_ids := array(
        select failed.id
        from rowlock.take_back(
          v_queue,
          end_lost_instance.instance,
          v_name,
          end_lost_instance.why,
          v_drains,
          held.ids[:started],
          held.attempts[:started],
          held.priorities[:started]
        ) failed
        union all
        select failed.id
        from rowlock.take_back(
          v_queue,
          end_lost_instance.instance,
          null,
          null,
          false,
          held.ids[started + 1:],
          held.attempts[started + 1:],
          held.priorities[started + 1:]
        ) failed
      );
      rescued := rescued + cardinality(held.ids);
      n_left := n_left + cardinality(left_ids);
      perform rowlock.end_lease(l.token, held.ids, left_ids);
    else
      delete from rowlock.lease lost where lost.token = l.token;
    end if;
  end loop;
  return rescued - n_left;
end $$;

CREATE FUNCTION rowlock.end_maintenance(cleanup boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  update rowlock.maintenance m
    set
      next_partitions_at = case
        when cleanup then m.next_partitions_at
        else now() + interval '1 minute'
      end,
      next_cleanup_at = case
        when cleanup then now() + interval '1 minute'
        else m.next_cleanup_at
      end;
end $$;

CREATE FUNCTION rowlock.enough_suspects_run(queue integer) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
  select
    count(*) >= greatest(
      (
        select count(*) / 4
        from rowlock.instance i
        where i.queue = enough_suspects_run.queue and i.ended_at is null
      ),
      1
    )
  from rowlock.suspect s
  where s.queue = enough_suspects_run.queue and s.due = 'infinity'
$$;

CREATE FUNCTION rowlock.enqueue(queue text, type text, payload json, options json) RETURNS bigint
    LANGUAGE sql
    AS $_$ select rowlock.enqueue($1, $2, $3, $4::pg_catalog.jsonb) $_$;

CREATE FUNCTION rowlock.enqueue(queue text, type text, payload json, options jsonb DEFAULT '{}'::jsonb) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  q rowlock.queue;
  v_priority smallint := 1;
  v_attempts smallint;
  v_trace text := nullif(current_setting('rowlock.traceparent', true), '');
  due timestamptz;
  v_k bigint;
  v_id bigint :=
    ((floor(date_part('epoch', clock_timestamp()))::bigint - 1704067200) << 31)
    | ((nextval('rowlock.chunk_seq') & 8388607) << 8);
begin
  select * into q from rowlock.queue where name = enqueue.queue;
  if not found then
    perform rowlock.refuse_unknown_queue(enqueue.queue);
  end if;
  if q.restricted and not rowlock.has_permission('producer', q.id) then
    perform rowlock.refuse_permission('producer', q.name);
  end if;
  if (length(enqueue.type) between 1 and 200 and enqueue.type !~ '[[:cntrl:]]') is not true then
    perform rowlock.refuse_type(coalesce(enqueue.type, ''));
  end if;
  if payload is null then
    perform rowlock.refuse_null('payload');
  end if;
  if octet_length(payload::text) > q.payload_limit then
    perform rowlock.refuse_payload(q, octet_length(payload::text));
  end if;
  if q.backlog_full then
    perform rowlock.refuse_full(q);
  end if;
  -- backlog_full does not include what this transaction itself has enqueued.
  if pg_stat_get_xact_tuples_inserted('rowlock.ready'::regclass)
      + pg_stat_get_xact_tuples_inserted('rowlock.delayed'::regclass) >= q.backlog_limit then
    perform rowlock.check_transaction_limit(
      q,
      'rowlock.added',
      pg_stat_get_xact_tuples_inserted('rowlock.ready'::regclass)
        + pg_stat_get_xact_tuples_inserted('rowlock.delayed'::regclass)
    );
  end if;
  if v_id >> 31 >= q.partitions_until then
    perform rowlock.make_partitions();
  end if;
  if options <> '{}' then
    perform rowlock.check_options(options);
    v_priority := coalesce((options->>'priority')::smallint, v_priority);
    v_attempts := (options->>'max_attempts')::smallint;
    v_trace := coalesce(options->>'traceparent', v_trace);
    due := rowlock.due_time(options);
    if due > clock_timestamp() + q.max_delay then
      perform rowlock.refuse_delay(q);
    end if;
    if q.far_future_full and due > now() + rowlock.far_future_after() then
      perform rowlock.refuse_far_future(q);
    end if;
    if (options->>'notify')::boolean is false then
      perform set_config('rowlock.notify', 'off', true);
      q.notify_until := '-infinity';
    end if;
  end if;
  if v_trace is not null then
    v_trace := rowlock.producer_trace(v_trace, options);
  end if;
  -- The transaction gets its xid before it draws k. The exact watermark relies on that order (R6).
  if due is null then
    v_k := case when pg_current_xact_id() is not null then nextval('rowlock.k_seq') end;
  end if;
  insert into rowlock.task (id, queue, k_low, priority, max_attempts, type, payload, trace)
    values (
      v_id,
      q.id,
      ((v_k & 4294967295) - 2147483648)::int,
      v_priority,
      v_attempts,
      enqueue.type,
      enqueue.payload,
      v_trace
    );
  if due is null then
    insert into rowlock.ready (queue, shard, priority, since, k, id, n, attempt, fresh, notify)
      values (
        q.id,
        v_k & 3,
        v_priority,
        (v_id >> 31)::int,
        v_k,
        v_id,
        1,
        0,
        true,
        q.notify_until > now()
      );
  else
    insert into rowlock.delayed (id, queue, priority, attempt, run_at, due)
      values (v_id, q.id, v_priority, 0, due, due);
  end if;
  return v_id;
end $$;

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
    AS $$
declare
  q rowlock.queue;
  v_priority smallint := 1;
  v_attempts smallint;
  v_trace text;
  due timestamptz;
  n int := cardinality(payloads);
  size int;                        -- tasks in a range, which is a chunk of ids
  second bigint := (floor(date_part('epoch', clock_timestamp()))::bigint - 1704067200) << 31;
  bases bigint[];                  -- the first id of each range
  ks bigint[];                     -- the k of each range
  largest int;
  missing bigint;
  added bigint;
begin
  select * into q from rowlock.queue where name = enqueue_many.queue;
  if not found then
    perform rowlock.refuse_unknown_queue(enqueue_many.queue);
  end if;
  if q.restricted and not rowlock.has_permission('producer', q.id) then
    perform rowlock.refuse_permission('producer', q.name);
  end if;
  if (length(enqueue_many.type) between 1 and 200
      and enqueue_many.type !~ '[[:cntrl:]]') is not true then
    perform rowlock.refuse_type(coalesce(enqueue_many.type, ''));
  end if;
  if n > rowlock.enqueue_many_limit() then
    raise exception '% payloads in one call: the limit is %', n, rowlock.enqueue_many_limit()
      using errcode = 'RL005',
        hint = 'Call it again for the rest, in the same transaction.';
  end if;
  if n is null then
    perform rowlock.refuse_null('array of payloads');
  end if;
  select
    max(octet_length(list.payload::text)),
    min(list.place) filter (where list.payload is null)
    into largest, missing
    from unnest(payloads) with ordinality list(payload, place);
  if missing is not null then
    perform rowlock.refuse_null(format('payload %s of %s', missing, n));
  end if;
  if largest > q.payload_limit then
    perform rowlock.refuse_payload(q, largest);
  end if;
  if q.backlog_full or n > q.backlog_limit then
    perform rowlock.refuse_full(q);
  end if;
  if second >> 31 >= q.partitions_until then
    perform rowlock.make_partitions();
  end if;
  options := coalesce(options, '{}');
  perform rowlock.check_options(options);
  v_priority := coalesce((options->>'priority')::smallint, v_priority);
  v_attempts := (options->>'max_attempts')::smallint;
  v_trace := coalesce(
    options->>'traceparent',
    nullif(current_setting('rowlock.traceparent', true), '')
  );
  if v_trace is not null then
    v_trace := '*' || rowlock.producer_trace(v_trace, options);
  end if;
  due := rowlock.due_time(options);
  if due > clock_timestamp() + q.max_delay then
    perform rowlock.refuse_delay(q);
  end if;
  if q.far_future_full and due > now() + rowlock.far_future_after() then
    perform rowlock.refuse_far_future(q);
  end if;
  if (options->>'notify')::boolean is false then
    perform set_config('rowlock.notify', 'off', true);
    q.notify_until := '-infinity';
  end if;
  size := q.range_size;
  bases := array(
    select second | ((nextval('rowlock.chunk_seq') & 8388607) << 8)
    from generate_series(1, (n + size - 1) / size)
  );
  -- The transaction gets its xid before it draws k. The exact watermark relies on that order (R6).
  if due is null and pg_current_xact_id() is not null then
    ks := array(
      select nextval('rowlock.k_seq')
      from generate_series(1, (n + size - 1) / size)
    );
  end if;
  insert into rowlock.task (id, queue, k_low, priority, max_attempts, type, payload, trace)
    select
      bases[(list.place - 1) / size + 1] + (list.place - 1) % size,
      q.id,
      ((ks[(list.place - 1) / size + 1] & 4294967295) - 2147483648)::int,
      v_priority,
      v_attempts,
      enqueue_many.type,
      list.payload,
      v_trace
    from unnest(payloads) with ordinality list(payload, place);
  added := pg_stat_get_xact_tuples_inserted(
    (select t.tableoid from rowlock.task t where t.id = bases[1])
  );
  if added > q.backlog_limit then
    perform rowlock.check_transaction_limit(q, 'rowlock.added_many', added);
  end if;
  if due is null then
    insert into rowlock.ready (queue, shard, priority, k, id, n, attempt, fresh, notify)
      select
        q.id,
        range.k & 3,
        v_priority,
        range.k,
        range.base,
        least(size, n - (range.place - 1) * size),
        0,
        true,
        q.notify_until > now()
      from unnest(bases, ks) with ordinality range(base, k, place);
  else
    insert into rowlock.delayed (id, queue, priority, attempt, run_at, due)
      select bases[(place - 1) / size + 1] + (place - 1) % size, q.id, v_priority, 0, due, due
      from generate_series(1, n) place;
  end if;
  return query
    select bases[(place - 1) / size + 1] + (place - 1) % size
    from generate_series(1, n) place;
end $$;

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
declare
  keep interval;
  oldest timestamptz;
begin
  select coalesce(greatest(max(keep_completed), max(keep_cancelled)), interval '1 day')
    into keep
    from rowlock.queue;
  -- A task is younger than the end of the partition before its own. So rows that were written
  -- earlier belong to no remaining task.
  select min(p.hi) - 2 * rowlock.partition_width()
    into oldest
    from rowlock.partitions_of('task') p;
  return query
    select tables.parent, p.part, p.hi
    from
      unnest(array['receipt', 'result', 'task_error', 'heartbeat', 'allocation'])
        tables(parent),
      rowlock.partitions_of(tables.parent) p
    where p.hi <= case
        when tables.parent in ('heartbeat', 'allocation') then now() - interval '1 hour'
        else least(oldest, now() - keep)
      end
      -- A kept task needs its receipt and its result, so the task is deleted first.
      and (
        tables.parent not in ('receipt', 'result')
        or not exists (select 1 from rowlock.task_kept k where k.finished_at < p.hi)
      )
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
  parent text;
  width interval;
  lo timestamptz;
  hi timestamptz;
  hours double precision := 'infinity';
begin
  if not rowlock.try_mutex(1, 0) then
    return null;
  end if;
  if ahead > interval '31 days' then
    raise exception 'partitions are made at most 31 days ahead'
      using errcode = 'RL005',
        hint = 'Each partition is a table. The default of three days is enough.';
  end if;
  foreach parent in array
    array['task', 'receipt', 'result', 'task_error', 'heartbeat', 'allocation']
  loop
    perform rowlock.fill_partition_gap(parent);
    width := case
      when parent in ('heartbeat', 'allocation') then interval '6 hours'
      else rowlock.partition_width()
    end;
    select to_timestamp(max(substring(c.relname from '_([0-9]+)$')::bigint))
      into lo
      from pg_inherits i
      join pg_class c on c.oid = i.inhrelid
      where i.inhparent = format('rowlock.%I', parent)::regclass;
    if lo is null then
      -- The first partition reaches back two days, in case the clock steps back.
      lo := date_trunc('hour', now()) - interval '2 days';
      hi := date_trunc('hour', now()) + width;
    else
      hi := lo + width;
    end if;
    while lo < now() + ahead loop
      -- Without maintenance for a long time, the last partition ended in the past. Then one
      -- partition covers all of that time.
      hi := greatest(hi, date_trunc('hour', now()) + width);
      perform rowlock.make_partition(parent, lo, hi);
      lo := hi;
      hi := hi + width;
    end loop;
    hours := least(hours, date_part('epoch', lo - now()) / 3600);
  end loop;
  -- For enqueue, which makes partitions itself if there is none. Skips a row that another session
  -- is changing; the next call updates it.
  update rowlock.queue q
    set partitions_until = rowlock.partitions_until()
    where q.id in (
      select outdated.id
      from rowlock.queue outdated
      where outdated.partitions_until <> rowlock.partitions_until()
      for no key update skip locked
    );
  return hours;
end $_$;

CREATE FUNCTION rowlock.far_future_after() RETURNS interval
    LANGUAGE sql IMMUTABLE
    RETURN '24:00:00'::interval;

CREATE FUNCTION rowlock."fetch"(token bigint, ids bigint[]) RETURNS TABLE(id bigint, type text, payload text, max_attempts smallint, trace text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  lease_token bigint := token;   -- `fetch.token` cannot be written: FETCH is a reserved word
  held bigint[] := array(
    select task.id
    from
      rowlock.lease l,
      unnest(l.firsts, l.ns) range(first_id, n),
      generate_series(range.first_id, range.first_id + range.n - 1) task(id)
    where l.token = lease_token
  );
begin
  if held is distinct from ids then
    held := array(
      select asked.id from unnest(ids) asked(id)
      intersect
      select leased.id from unnest(held) leased(id)
    );
  end if;
  return query execute
    'select t.id, t.type, t.payload::text, t.max_attempts, t.trace
    from rowlock.task t
    where ' || rowlock.with_ids(cardinality(held))
    using held,
      (select min(task.id) from unnest(held) task(id)),
      (select max(task.id) from unnest(held) task(id));
  if exists (select 1 from rowlock.task_kept) then
    return query
      select t.id, t.type, t.payload::text, t.max_attempts, t.trace
      from rowlock.task_kept t
      where t.id = any (held);
  end if;
end $$;

CREATE FUNCTION rowlock.fill_partition_gap(parent text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  ends timestamptz;     -- where the partition before the gap ends
  begins timestamptz;   -- where the partition after it begins
begin
  if exists (
    select 1
    from rowlock.partitions_of(parent) p
    where p.lo <= now() and now() < p.hi
  ) then
    return;
  end if;
  select max(p.hi) filter (where p.hi <= now()), min(p.lo) filter (where p.lo > now())
    into ends, begins
    from rowlock.partitions_of(parent) p;
  if begins is null then
    return;
  end if;
  perform rowlock.make_partition(
    parent,
    coalesce(ends, date_trunc('hour', now()) - interval '2 days'),
    begins
  );
end $$;

CREATE FUNCTION rowlock.find_lease(id bigint) RETURNS TABLE(instance bigint, attempt smallint)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
  select l.instance, range.attempt
  from
    rowlock.lease l,
    unnest(l.firsts, l.ns, l.attempts) range(first_id, n, attempt)
  where find_lease.id >= range.first_id
    and find_lease.id < range.first_id + range.n
    and find_lease.id <> all (l.settled)
  limit 1
$$;

CREATE FUNCTION rowlock.find_ready(queue integer, priority smallint, id bigint, k_low integer) RETURNS SETOF rowlock.ready
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  v_k bigint := find_ready.k_low::bigint + 2147483648;
  newest bigint := (select s.last_value from rowlock.k_seq s);
begin
  v_k := v_k + (newest & ~4294967295::bigint);
  for turn in 1 .. 2 loop
    return query
      select r.*
      from rowlock.ready r
      where r.queue = find_ready.queue
        and r.shard = (v_k & 3)::smallint
        and r.lane = 0
        and r.priority = find_ready.priority
        and r.k = v_k
        and r.fresh
        and find_ready.id >= r.id
        and find_ready.id < r.id + r.n;
    if found then
      return;
    end if;
    exit when v_k <= newest or v_k is null;
    v_k := v_k - 4294967296;
  end loop;
  return query
    select r.*
    from rowlock.ready r
    where r.moved = rowlock.chunk_of(find_ready.id)
      and r.moved <> 0
      and not r.fresh
      and find_ready.id >= r.id
      and find_ready.id < r.id + r.n
      and r.queue = find_ready.queue
    limit 1;
end $$;

CREATE FUNCTION rowlock.find_receipt(queue integer, id bigint) RETURNS TABLE(at timestamp with time zone, instance bigint, state smallint, attempt smallint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  enqueued timestamptz := rowlock.id_time(find_receipt.id);
  bounds timestamptz[];   -- from and until, for each of the three searches
begin
  bounds := array[
    enqueued - interval '1 minute', enqueued + interval '1 hour',
    enqueued - interval '1 day', greatest(now(), enqueued) + interval '1 minute',
    '-infinity', 'infinity'
  ];
  for turn in 0 .. 2 loop
    return query
      select r.at, r.instance, r.state, range.attempt
      from
        rowlock.receipt r,
        unnest(r.firsts, r.ns, r.attempts) range(first_id, n, attempt)
      where r.queue = find_receipt.queue
        and r.firsts[1] > find_receipt.id - 8589934592
        and r.firsts[1] <= find_receipt.id
        and (r.firsts[array_upper(r.firsts, 1)] + r.ns[array_upper(r.ns, 1)]) > find_receipt.id
        and r.at >= bounds[2 * turn + 1]
        and r.at < bounds[2 * turn + 2]
        and find_receipt.id >= range.first_id
        and find_receipt.id < range.first_id + range.n
      limit 1;
    if found then
      return;
    end if;
  end loop;
end $$;

CREATE FUNCTION rowlock.find_state(id bigint, queue integer, priority smallint, k_low integer) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  answer text;
begin
  select case d.waits when 0 then 'scheduled' else 'retryable' end
    into answer
    from rowlock.delayed d
    where d.id = find_state.id;
  if found then
    return answer;
  end if;
  perform 1 from rowlock.dead d where d.id = find_state.id;
  if found then
    return 'dead';
  end if;
  perform 1
    from rowlock.find_ready(
      find_state.queue, find_state.priority, find_state.id, find_state.k_low
    );
  if found then
    return 'available';
  end if;
  select case r.state when 1 then 'completed' when 2 then 'dead' else 'cancelled' end
    into answer
    from rowlock.find_receipt(find_state.queue, find_state.id) r;
  if found then
    return answer;
  end if;
  perform 1 from rowlock.find_lease(find_state.id);
  return case when found then 'running' else 'untraced' end;
end $$;

CREATE FUNCTION rowlock.finished_page(queue text, state smallint, after bigint, most integer) RETURNS TABLE(id bigint, name text, attempt integer, at timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  newest timestamptz := now() + interval '1 minute';
  after_id bigint;
begin
  if finished_page.after is not null then
    select r.at, finished_page.after
      into newest, after_id
      from
        rowlock.every_task t,
        lateral rowlock.find_receipt(t.queue, finished_page.after) r
      where t.id = finished_page.after;
  end if;
  return query
    select task, receipt.name, range.attempt::int, receipt.at
    from
      (
        select q.name, page.*
        from
          rowlock.queue q,
          lateral (
            select r.at, r.firsts, r.ns, r.attempts
            from rowlock.receipt r
            where r.queue = q.id
              and r.state = finished_page.state
              and r.at > now() - interval '1 day'
              and r.at <= newest
              -- One transaction may write many receipts with the same time; they come by id.
              -- Receipts that earlier pages have shown are left out.
              and (
                after_id is null
                or r.at < newest
                or r.firsts[array_upper(r.firsts, 1)] + r.ns[array_upper(r.ns, 1)] > after_id + 1
              )
            order by r.at desc
            fetch first (finished_page.most) rows with ties
          ) page
        where (finished_page.queue is null or q.name = finished_page.queue)
          and (not q.restricted or rowlock.has_permission('reader', q.id))
      ) receipt,
      unnest(receipt.firsts, receipt.ns, receipt.attempts) range(first_id, n, attempt),
      generate_series(range.first_id, range.first_id + range.n - 1) task
    where after_id is null or receipt.at < newest or task > after_id
    order by receipt.at desc, task
    limit finished_page.most;
end $$;

CREATE FUNCTION rowlock.grant_role(role name, permission text, queues text[] DEFAULT NULL::text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
  unknown text;
begin
  -- This comes first: two callers that had each written before locking would wait for each other.
  lock table rowlock.access in share row exclusive mode;
  if grant_role.permission is null
    or grant_role.permission not in ('producer', 'worker', 'reader') then
    raise exception 'unknown permission "%"', grant_role.permission
      using errcode = 'RL005',
        hint = 'Permissions are producer, worker and reader.';
  end if;
  if not exists (select 1 from pg_roles r where r.rolname = grant_role.role) then
    raise exception 'there is no role "%"', grant_role.role
      using errcode = 'RL005',
        hint = format('Create it first: create role %I login;', grant_role.role);
  end if;
  if cardinality(queues) = 0 then
    raise exception 'no queue was named'
      using errcode = 'RL005',
        hint = 'To take a permission back, use rowlock.revoke_role.';
  end if;
  select named.name
    into unknown
    from unnest(grant_role.queues) named(name)
    where not exists (select 1 from rowlock.queue q where q.name = named.name)
    limit 1;
  if found then
    perform rowlock.refuse_unknown_queue(unknown);
  end if;
  delete from rowlock.access a
    where a.role = grant_role.role and a.permission = grant_role.permission;
  if queues is null then
    insert into rowlock.access values (grant_role.role, grant_role.permission, 0);
  else
    insert into rowlock.access
      select distinct grant_role.role, grant_role.permission, q.id
      from rowlock.queue q
      where q.name = any (grant_role.queues);
  end if;
  perform rowlock.renew_grants();
end $$;

CREATE FUNCTION rowlock.handle_late_commit(r rowlock.ready) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
  update rowlock.ready late
    set k = nextval('rowlock.k_seq'), fresh = false, moved = rowlock.chunk_of(late.id)
    where late.queue = r.queue
      and late.shard = r.shard
      and late.lane = r.lane
      and late.priority = r.priority
      and late.k = r.k;
  return current_setting('rowlock.notify', true) is distinct from 'off'
    and exists (
      select 1
      from rowlock.queue q
      where q.id = r.queue and q.notify_until > clock_timestamp()
    );
end $$;

CREATE FUNCTION rowlock.has_partition() RETURNS boolean
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select rowlock.partitions_until()
    > date_part('epoch', clock_timestamp()) - 1704067200::float8
$$;

CREATE FUNCTION rowlock.has_permission(permission text, queue integer) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  who name := rowlock.calling_role();
begin
  return
    pg_has_role(
      who, (select n.nspowner from pg_namespace n where n.nspname = 'rowlock'), 'usage'
    )
    or exists (
      select 1
      from rowlock.access a
      join pg_roles r on r.rolname = a.role
      where a.queue in (0, has_permission.queue)
        and (has_permission.permission is null or a.permission = has_permission.permission)
        and pg_has_role(who, r.oid, 'usage')
    );
end $$;

CREATE FUNCTION rowlock.heartbeat(instance bigint, held integer, allocated integer, allocation bigint, wants integer, watermarks bigint[], idle boolean, runs integer, failures integer, run_seconds real, run_seconds_squared real) RETURNS TABLE(gone boolean, allocation_number bigint, slots integer, paused boolean, generation bigint, newest_k bigint, least_ks bigint[], canceled bigint[], peers integer, noted_k bigint, noted_xid bigint, xmin bigint, allocation_missed boolean, suspect_due boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  v_queue int;
  v_live int;
  v_behind bigint;   -- how far k_seq is below the highest watermark
  v_noted bigint;
  v_missed boolean;
begin
  perform rowlock.require_read_committed();
  -- A note for the exact watermark, as in rowlock.maintain(): first k, then the xid, which this
  -- transaction gets with the lock.
  select last_value + is_called::int into v_noted from rowlock.k_seq;
  -- The lock keeps others from ending the instance until this heartbeat is committed.
  select i.queue
    into v_queue
    from rowlock.instance i
    where i.id = heartbeat.instance and i.ended_at is null
    for key share skip locked;
  if not found and not rowlock.check_ending(heartbeat.instance) then
    return query
      select
        true, 0::bigint, 0, false, 0::bigint, 0::bigint, '{}'::bigint[], '{}'::bigint[], 1,
        0::bigint, 0::bigint, 0::bigint, null::boolean, false;
    return;
  end if;
  perform rowlock.require_worker(v_queue);
  -- A failover may rewind k_seq below the watermarks: claims would skip a task that gets such a k.
  -- A watermark far above k_seq is not one that we made.
  select max(watermark) - s.last_value
    into v_behind
    from unnest(heartbeat.watermarks) watermark, rowlock.k_seq s
    group by s.last_value;
  if v_behind > rowlock.watermark_max_lead()
    or cardinality(heartbeat.watermarks) is distinct from 16
    or array_position(heartbeat.watermarks, null) is not null then
    raise exception 'the watermarks of instance % do not fit this queue', heartbeat.instance
      using errcode = 'RL005',
        hint = 'A failover may have rewound the sequence of k: end the instance, and join again.';
  end if;
  -- By the wall clock: now() of a transaction that began long ago would date the heartbeat back
  -- (R4).
  insert into rowlock.heartbeat (
      n, at, instance, queue, held, allocated, allocation, wants,
      runs, failures, run_seconds, run_seconds_squared, watermarks
    )
    values (
      nextval('rowlock.heartbeat_seq'),
      clock_timestamp(),
      heartbeat.instance,
      v_queue,
      heartbeat.held,
      heartbeat.allocated,
      heartbeat.allocation,
      heartbeat.wants,
      greatest(heartbeat.runs, 0),
      greatest(heartbeat.failures, 0),
      -- Sums over all instances must not become NaN, or infinite, by what one of them reports.
      case when heartbeat.run_seconds between 0 and 1e9 then heartbeat.run_seconds else 0 end,
      case
        when heartbeat.run_seconds_squared between 0 and 1e18 then heartbeat.run_seconds_squared
        else 0
      end,
      heartbeat.watermarks
    );
  if v_behind > 0 then
    perform nextval('rowlock.k_seq') from generate_series(1, least(v_behind, 10000));
  end if;
  -- About four allocations a second for the whole queue, however many instances it has: one with
  -- every heartbeat, each reading all instances, would make the cost quadratic.
  select count(*)
    into v_live
    from rowlock.instance i
    where i.queue = v_queue and i.ended_at is null;
  if random() * v_live < 4 then
    v_missed := not rowlock.allocate(v_queue);
  end if;
  if heartbeat.idle then
    -- Skips a locked row: a producer that made partitions keeps it locked until its commit.
    update rowlock.queue q
      set notify_until = now() + interval '1 minute'
      where q.id = (
        select expiring.id
        from rowlock.queue expiring
        where expiring.id = v_queue
          and expiring.notify_until < now() + interval '5 seconds'
        for no key update skip locked
      );
  end if;
  return query
    select
      false,
      coalesce(newest.number, heartbeat.allocation),
      coalesce(newest.slots, heartbeat.allocated),
      q.paused,
      q.generation,
      (select last_value from rowlock.k_seq),
      rowlock.least_k(v_queue, heartbeat.watermarks),
      array(
        select c.id
        from rowlock.cancel_request c
        join rowlock.lease l on l.instance = heartbeat.instance
        where exists (
            select 1
            from unnest(l.firsts, l.ns) range(first_id, n)
            where c.id >= range.first_id and c.id < range.first_id + range.n
          )
          and c.id <> all (l.settled)
        limit 1000
      ),
      v_live,
      v_noted,
      pg_current_xact_id()::text::bigint,
      pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
      v_missed,
      rowlock.suspect_due(v_queue, heartbeat.held)
    from rowlock.queue q
    left join lateral (
      select a.number, a.slots
      from rowlock.allocation a
      where a.instance = heartbeat.instance
        and a.number > heartbeat.allocation
        and a.at > now() - interval '1 minute'
      order by a.number desc
      limit 1
    ) newest on true
    where q.id = v_queue;
end $$;

CREATE FUNCTION rowlock.id_at(t timestamp with time zone) RETURNS bigint
    LANGUAGE sql IMMUTABLE
    RETURN (((floor(date_part('epoch'::text, t)))::bigint - 1704067200) << 31);

CREATE FUNCTION rowlock.id_time(i bigint) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE
    RETURN to_timestamp((((i >> 31) + 1704067200))::double precision);

CREATE FUNCTION rowlock.instance_slots(queue integer) RETURNS TABLE(instance bigint, drains boolean, wants integer, granted integer, held integer, may_hold integer)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION rowlock.interruption_limit() RETURNS integer
    LANGUAGE sql IMMUTABLE
    RETURN 10;

CREATE FUNCTION rowlock.is_draining(drain_until timestamp with time zone) RETURNS boolean
    LANGUAGE sql
    RETURN COALESCE((drain_until > clock_timestamp()), false);

CREATE FUNCTION rowlock.is_silent(instance bigint, heartbeat bigint) RETURNS boolean
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
  select
    not exists (
      select 1
      from rowlock.heartbeat h
      where h.instance = is_silent.instance
        and h.n = is_silent.heartbeat
        and h.at > clock_timestamp() - rowlock.rescue_after()
    )
    or exists (
      select 1
      from
        rowlock.instance i,
        lateral (
          select 1
          from rowlock.heartbeat h
          where h.instance = i.id
            and h.n > is_silent.heartbeat
            and h.at between clock_timestamp() - interval '1 minute'
              and clock_timestamp() - rowlock.rescue_after()
          order by h.n desc
          limit 1
        ) later
      where i.ended_at is null
    )
$$;

CREATE TABLE rowlock.instance (
    id bigint NOT NULL,
    queue integer NOT NULL,
    name text NOT NULL,
    capacity integer NOT NULL,
    joined_at timestamp with time zone DEFAULT now() NOT NULL,
    drains boolean DEFAULT false NOT NULL,
    ended_at timestamp with time zone,
    gone boolean DEFAULT false NOT NULL,
    pod uuid,
    drain_until timestamp with time zone,
    CONSTRAINT instance_capacity_check CHECK (((capacity >= 1) AND (capacity <= 10000)))
);

CREATE FUNCTION rowlock."join"(queue text, name text, capacity integer, pod uuid DEFAULT NULL::uuid) RETURNS rowlock.instance
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  q rowlock.queue;
  i rowlock.instance;
begin
  select * into q from rowlock.queue declared where declared.name = queue;
  if not found then
    perform rowlock.refuse_unknown_queue(queue);
  end if;
  perform rowlock.require_worker(q.id);
  if (length(name) between 1 and 200 and name !~ '[[:cntrl:]]') is not true then
    raise exception 'the name of an instance must have 1 to 200 printable characters'
      using errcode = 'RL005',
        hint = 'It is shown to people. Use the name of the pod, for example.';
  end if;
  insert into rowlock.instance (id, queue, name, capacity, pod)
    values (
      (floor(random() * 2097152)::bigint << 32)
        | (nextval('rowlock.instance_seq') & 4294967295),
      q.id,
      name,
      capacity,
      pod
    )
    returning * into i;
  insert into rowlock.heartbeat (n, at, instance, queue, held, allocated, allocation, wants)
    values (nextval('rowlock.heartbeat_seq'), clock_timestamp(), i.id, q.id, 0, 0, 0, 0);
  return i;
end $$;

CREATE FUNCTION rowlock.keep_watermarks() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION rowlock.least_k(queue integer, watermarks bigint[]) RETURNS bigint[]
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION rowlock.leave(instance bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  l record;
  released bigint := 0;
begin
  perform rowlock.require_read_committed();
  perform rowlock.require_worker(i.queue)
    from rowlock.instance i
    where i.id = leave.instance;
  perform 1
    from rowlock.instance i
    where i.id = leave.instance and i.ended_at is null
    for update;
  if not found then
    return 0;
  end if;
  for l in
    select held.token, held.queue
    from rowlock.lease held
    where held.instance = leave.instance
    order by held.token
    for update
  loop
    released := released + rowlock.release_lease(leave.instance, l.queue, l.token);
  end loop;
  update rowlock.instance i set ended_at = now() where i.id = leave.instance;
  return released;
end $$;

CREATE FUNCTION rowlock.list_tasks(queue text, state text, after bigint, most integer) RETURNS TABLE(id bigint, queue_name text, type text, attempt integer, at timestamp with time zone)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
begin
  return query
    select
      item.id,
      item.name,
      coalesce(
        (select t.type from rowlock.task t where t.id = item.id),
        (select t.type from rowlock.task_kept t where t.id = item.id)
      ),
      item.attempt,
      item.at
    from (
      select row_number() over () place, page.*
      from (
        select *
        from rowlock.waiting_page(
          list_tasks.queue, list_tasks.state, list_tasks.after, list_tasks.most
        )
        where list_tasks.state in ('scheduled', 'retryable', 'dead', 'running')
        union all
        select *
        from rowlock.available_page(list_tasks.queue, list_tasks.after, list_tasks.most)
        where list_tasks.state = 'available'
        union all
        select *
        from rowlock.finished_page(
          list_tasks.queue,
          case list_tasks.state when 'completed' then 1 else 3 end::smallint,
          list_tasks.after,
          list_tasks.most
        )
        where list_tasks.state in ('completed', 'cancelled')
      ) page
    ) item
    order by item.place;
end $$;

CREATE FUNCTION rowlock.maintain(watermark timestamp with time zone, most integer, check_limits boolean, read_heartbeats boolean) RETURNS TABLE(moved integer, more boolean, next timestamp with time zone, k bigint, xid bigint, xmin bigint, at timestamp with time zone, instances bigint[], heartbeats bigint[])
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_k bigint;
  v_at timestamptz;
begin
  select s.last_value + s.is_called::int, clock_timestamp() into v_k, v_at from rowlock.k_seq s;
  if check_limits then
    perform rowlock.update_backlog_limits();
  end if;
  return query
    select
      due.*,
      v_k,
      pg_current_xact_id()::text::bigint,
      pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
      v_at,
      live.*
    from
      rowlock.move_due(maintain.watermark, maintain.most) due,
      (
        select array_agg(h.instance), array_agg(h.heartbeat)
        from rowlock.newest_heartbeats() h
        where maintain.read_heartbeats
      ) live;
end $$;

CREATE FUNCTION rowlock.make_partition(parent text, lo timestamp with time zone, hi timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "DateStyle" TO 'ISO'
    SET "TimeZone" TO 'UTC'
    AS $$
declare
  child text := format('%s_%s', parent, floor(date_part('epoch', hi))::bigint);
  in_use boolean;
begin
  -- A query would not do. Under REPEATABLE READ it would see neither a partition that was attached
  -- since the transaction began nor the tasks enqueued since.
  if pg_get_partition_constraintdef(to_regclass(format('rowlock.%I', child))) is not null then
    raise exception 'another session has made the partition %', child
      using errcode = 'serialization_failure',
        hint = 'Start the transaction again.';
  end if;
  if to_regclass(format('rowlock.%I', child)) is not null then
    execute format('select exists (select 1 from rowlock.%I)', child) into in_use;
    if not in_use then
      execute format('drop table rowlock.%I', child);
    end if;
  end if;
  execute format(
    'create table rowlock.%I (like rowlock.%I including defaults including constraints)',
    child, parent
  );
  -- rowlock.move_kept_errors deletes from it, which a publication FOR ALL TABLES would refuse (R9).
  if parent = 'task_error' then
    execute format('alter table rowlock.%I replica identity full', child);
  end if;
  if parent = 'task' then
    execute format(
      'alter table rowlock.task attach partition rowlock.%I for values from (%s) to (%s)',
      child, rowlock.id_at(lo), rowlock.id_at(hi)
    );
  else
    execute format(
      'alter table rowlock.%I attach partition rowlock.%I for values from (%L) to (%L)',
      parent, child, lo, hi
    );
  end if;
end $$;

CREATE FUNCTION rowlock.make_partitions() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '4s'
    AS $$
declare
  holder text;
begin
  if rowlock.has_partition() then
    return;
  end if;
  begin
    perform 1 from rowlock.mutex m where m.operation = 1 and m.queue = 0 for update;
    if not rowlock.has_partition() then
      perform rowlock.extend_partitions();
    end if;
  exception when lock_not_available then
    null;
  end;
  if not rowlock.has_partition() then
    select coalesce('process ' || h.pid, format('the prepared transaction "%s"', h.prepared))
      into holder
      from rowlock.mutex_holders() h
      where h.operation = 1;
    if holder is not null then
      raise exception 'there is no partition for new tasks, and % holds the lock for making one',
          holder
        using errcode = 'RL010',
          hint = 'End that transaction: pg_terminate_backend, or ROLLBACK PREPARED.';
    end if;
    raise exception
        'there is no partition for new tasks: no maintenance of this database has run since %',
        to_timestamp(rowlock.partitions_until() + 1704067200) - interval '3 days'
      using errcode = 'RL010',
        hint = 'Start an instance or the operator, or run: select rowlock.extend_partitions(); as'
          ' the owner of the database.';
  end if;
end $$;

CREATE FUNCTION rowlock.mark_finished(most integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  start bigint;
begin
  -- Drawn once. Inside the query below it would be drawn for each row, and the first rows would
  -- never be chosen.
  select floor(random() * (max(k.id) - min(k.id) + 1))::bigint + min(k.id)
    into start
    from rowlock.task_kept k;
  update rowlock.task_kept k
    set finished_at = receipt.at
    from
      (
        select unmarked.*
        from (
          (
            select candidate.id, candidate.queue
            from rowlock.task_kept candidate
            where candidate.finished_at is null and candidate.id >= start
            order by candidate.id
            limit mark_finished.most
          )
          union all
          (
            select candidate.id, candidate.queue
            from rowlock.task_kept candidate
            where candidate.finished_at is null and candidate.id < start
            order by candidate.id
            limit mark_finished.most
          )
        ) unmarked
        limit mark_finished.most
      ) looked,
      lateral rowlock.find_receipt(looked.queue, looked.id) receipt
    where k.id = looked.id and receipt.state in (1, 3);
end $$;

CREATE FUNCTION rowlock.max_attempts(queue integer, ids bigint[]) RETURNS TABLE(id bigint, max_attempts smallint)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare
  v_ids bigint[];
  v_limits smallint[];
  kept_ids bigint[];
  kept_limits smallint[];
begin
  execute
    'select array_agg(t.id), array_agg(t.max_attempts)
    from rowlock.task t
    where t.id = any ($1)'
    into v_ids, v_limits
    using max_attempts.ids;
  if coalesce(cardinality(v_ids), 0) < cardinality(max_attempts.ids) then
    select array_agg(kept.id), array_agg(kept.max_attempts)
      into kept_ids, kept_limits
      from rowlock.task_kept kept
      where kept.id = any (max_attempts.ids);
    v_ids := v_ids || kept_ids;
    v_limits := v_limits || kept_limits;
  end if;
  return query
    select asked, coalesce(max(task.max_attempts), q.max_attempts)
    from unnest(max_attempts.ids) asked
    join rowlock.queue q on q.id = max_attempts.queue
    left join unnest(v_ids, v_limits) task(id, max_attempts) on task.id = asked
    group by asked, q.max_attempts;
end $_$;

CREATE FUNCTION rowlock.move_due(watermark timestamp with time zone, most integer) RETURNS TABLE(moved integer, more boolean, next timestamp with time zone)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  tasks record;
  v_moved int := 0;
  v_ids bigint[];
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(2, 0) then
    return;
  end if;
  v_ids := array(
    select d.id
    from rowlock.delayed d
    where d.due >= move_due.watermark and d.due <= now()
    order by d.due, d.id
    limit move_due.most
    for update skip locked
  );
  for tasks in
    with due as (
      delete from rowlock.delayed d where d.id = any (v_ids) returning d.*
    )
    select
      due.queue,
      c.id is not null as cancelled,
      array_agg(due.id order by due.due, due.id) ids,
      array_agg(due.attempt order by due.due, due.id) attempts,
      array_agg(due.priority order by due.due, due.id) priorities
    from due
    left join rowlock.cancel_request c on c.id = due.id
    group by 1, 2
  loop
    if tasks.cancelled then
      perform rowlock.write_receipt(tasks.queue, null, 3::smallint, tasks.ids, tasks.attempts);
      delete from rowlock.cancel_request c where c.id = any (tasks.ids);
    else
      perform rowlock.requeue(tasks.queue, tasks.ids, tasks.attempts, tasks.priorities);
    end if;
    perform rowlock.clear_suspects(tasks.ids);
    v_moved := v_moved + cardinality(tasks.ids);
  end loop;
  return query
    select
      v_moved,
      v_moved >= move_due.most,
      (
        select d.due
        from rowlock.delayed d
        where d.due >= move_due.watermark
        order by d.due
        limit 1
      );
end $$;

CREATE FUNCTION rowlock.move_kept_errors(most integer DEFAULT 5000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    SET jit TO 'off'
    AS $_$
declare
  p record;
  n int;
  moved int := 0;
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(1, 0) then
    return 0;
  end if;
  if not rowlock.clock_is_steady() then
    return 0;
  end if;
  for p in
    select expired.part
    from rowlock.expired_partitions() expired
    where expired.parent = 'task_error'
  loop
    execute format($q$
      with moved as (
        delete from rowlock.%1$I error
          where error.ctid = any (
            array(
              select e.ctid
              from rowlock.%1$I e
              where exists (select 1 from rowlock.task_kept k where k.id = e.id)
              limit $1
            )
          )
          returning error.*
      )
      insert into rowlock.task_error_kept (at, id, attempt, instance, error)
        select moved.at, moved.id, moved.attempt, moved.instance, moved.error
        from moved
      $q$, p.part)
      using most - moved;
    get diagnostics n = row_count;
    moved := moved + n;
    exit when moved >= most;
  end loop;
  return moved;
end $_$;

CREATE FUNCTION rowlock.move_missed(queue integer, exact bigint[], quick bigint[], most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  r record;
  moved_rows int := 0;
begin
  perform rowlock.require_read_committed();
  perform rowlock.require_worker(move_missed.queue);
  if not rowlock.try_mutex(6, move_missed.queue) then
    return null;
  end if;
  for r in
    select missed.*
    from
      generate_series(0, 3) p,
      generate_series(0, 3) s,
      lateral (
        select r.shard, r.priority, r.k
        from rowlock.ready r
        where r.queue = move_missed.queue
          and r.shard = s::smallint
          and r.lane = 0
          and r.priority = p::smallint
          and r.k >= move_missed.exact[p * 4 + s + 1]
          and r.k < move_missed.quick[p * 4 + s + 1]
        order by r.k
        limit least(move_missed.most, 10000)
        for update skip locked
      ) missed
    limit least(move_missed.most, 10000)
  loop
    update rowlock.ready missed
      set k = nextval('rowlock.k_seq'), fresh = false, moved = rowlock.chunk_of(missed.id)
      where missed.queue = move_missed.queue
        and missed.shard = r.shard
        and missed.lane = 0
        and missed.priority = r.priority
        and missed.k = r.k;
    moved_rows := moved_rows + 1;
  end loop;
  return moved_rows;
end $$;

CREATE FUNCTION rowlock.mutex_holders() RETURNS TABLE(operation smallint, queue integer, xid text, pid integer, usename text, application text, since timestamp with time zone, prepared text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with mutex as (
    select m.operation, m.queue, m.xmax, 'rowlock.mutex'::regclass as relation from rowlock.mutex m
    union all
    select 7::smallint, 0, m.xmax, 'rowlock.maintenance'::regclass from rowlock.maintenance m
  ),
  lock as materialized (
    select l.virtualtransaction, l.pid, l.transactionid, l.relation
    from pg_locks l
    where l.granted
      and (
        l.locktype = 'transactionid' and l.mode = 'ExclusiveLock'
        or l.locktype = 'relation'
          and l.mode in ('RowShareLock', 'RowExclusiveLock')
          and l.relation in ('rowlock.mutex'::regclass, 'rowlock.maintenance'::regclass)
          and l.database = (select d.oid from pg_database d where d.datname = current_database())
      )
  ),
  -- In which transaction it was: of the ids that a transaction holds, its own is the oldest.
  own as (
    select distinct on (l.virtualtransaction) l.virtualtransaction, l.transactionid
    from lock l
    where l.transactionid is not null
    order by l.virtualtransaction, age(l.transactionid) desc
  ),
  snapshot as (
    select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next
  ),
  released as (
    select m.operation, m.queue, m.xmax, m.relation, s.next
        -- The difference of two ids of 32 bits, which wrap around.
        + ((m.xmax::text::bigint - s.next + 2147483648) & 4294967295) - 2147483648 as xid
    from mutex m
    cross join snapshot s
    where age(m.xmax) > 0
      and not exists (select 1 from lock l where l.transactionid::text = m.xmax::text)
  ),
  holder as (
    select m.operation, m.queue, m.xmax::text as xid, l.virtualtransaction, l.pid
    from mutex m
    join lock l on l.transactionid::text = m.xmax::text
    union all
    select r.operation, r.queue, r.xmax::text, min(l.virtualtransaction), min(l.pid)
    from released r
    join lock l on l.relation = r.relation
    join own
      on own.virtualtransaction = l.virtualtransaction
      and age(own.transactionid) > age(r.xmax)
    where case when r.xid > 2 then pg_xact_status(r.xid::text::xid8) = 'in progress' end
    group by r.operation, r.queue, r.xmax::text
    having count(distinct l.virtualtransaction) = 1
  )
  select
    holder.operation,
    holder.queue,
    holder.xid,
    holder.pid,
    coalesce(session.usename, prepared.owner)::text,
    session.application_name,
    coalesce(session.xact_start, prepared.prepared),
    prepared.gid
  from holder
  left join own on own.virtualtransaction = holder.virtualtransaction
  left join pg_stat_activity session on session.pid = holder.pid
  left join pg_prepared_xacts prepared
    on holder.pid is null
    and prepared.transaction::text = own.transactionid::text
  where holder.pid is distinct from pg_backend_pid()
$$;

CREATE FUNCTION rowlock.name_handler_end(queue text, owner text, pod uuid, how text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET "DateStyle" TO 'ISO, YMD'
    SET "TimeZone" TO 'UTC'
    AS $_$
#variable_conflict use_column
declare
  v_queue int;
  v_instances bigint[];
  v_ids bigint[];
  since timestamptz := now() - interval '1 minute';
  named int;
begin
  perform rowlock.require_read_committed();
  select q.id, array_agg(i.id)
    into v_queue, v_instances
    from rowlock.queue q
    join rowlock.instance i on i.queue = q.id and i.ended_at is null
    where q.name = name_handler_end.queue
      and q.owner = name_handler_end.owner
      and i.pod = name_handler_end.pod
    group by q.id;
  if not found then
    return 0;
  end if;
  -- Errors have no index but that of their tasks. An instance has up to 10000 tasks; of the dead
  -- ones, at most one ran alone in it.
  select array_agg(task.id)
    into v_ids
    from (
      (
        select s.id
        from rowlock.suspect s
        where s.queue = v_queue
        order by s.due desc
        limit 10000
      )
      union all
      (
        select d.id
        from rowlock.dead d
        where d.queue = v_queue and d.at > since
        order by d.at desc
        limit 1000
      )
    ) task;
  if v_ids is null then
    return 0;
  end if;
  -- Planned with the time in it, so that it locks only the newest partitions (R18).
  execute format(
    'update rowlock.task_error e
      set error = format(%L, $3) || substr(e.error, length(%L) + 1)
      where e.id = any ($1)
        and e.instance = any ($2)
        and e.at > %L
        and starts_with(e.error, %L)',
    'the handler ended (%s)', 'the handler ended', since, 'the handler ended while this task ran'
  )
    using v_ids, v_instances, left(name_handler_end.how, 100);
  get diagnostics named = row_count;
  return named;
end $_$;

CREATE FUNCTION rowlock.newest_heartbeats() RETURNS TABLE(instance bigint, heartbeat bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
  select
    i.id,
    coalesce(
      (
        select h.n
        from rowlock.heartbeat h
        where h.instance = i.id
        order by h.n desc
        limit 1
      ),
      0
    )
  from rowlock.instance i
  where i.ended_at is null
$$;

CREATE FUNCTION rowlock.newly_dead(queue integer, most integer) RETURNS bigint
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
  select count(*)
  from (
    select d.id
    from rowlock.dead d
    where d.queue = newly_dead.queue and d.at > now() - interval '15 minutes'
    limit newly_dead.most
  ) newly
$$;

CREATE FUNCTION rowlock.oldest_by_priority(queue integer, watermarks bigint[]) RETURNS integer[]
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION rowlock.on_delayed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
  if new.due < clock_timestamp() then
    update rowlock.delayed
      set due = clock_timestamp()
      where id = new.id;
  end if;
  return null;
end $$;

CREATE FUNCTION rowlock.on_ready() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_context text;
begin
  -- Normally the shard of a range follows from its k. It does not for a part that
  -- rowlock.remove_from_range cut off. Such a part keeps its place: no claim has passed it.
  if clock_timestamp() - now() > interval '50 milliseconds' and new.shard = (new.k & 3) then
    new.notify := rowlock.handle_late_commit(new);
  end if;
  if new.notify and pg_notification_queue_usage() < 0.5 then
    -- Only one transaction per database sends NOTIFY at a time (R12). None does while Postgres'
    -- notification queue is filling up, because a full queue would fail the producer's commit
    -- (R11). With SET CONSTRAINTS IMMEDIATE the trigger runs inside the call, perhaps long before
    -- the commit. Then it takes no lock, which it would hold until the commit.
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
    select tables.parent, p.lo, p.hi
    from
      unnest(array['task', 'receipt', 'result', 'task_error', 'heartbeat', 'allocation'])
        tables(parent),
      rowlock.partitions_of(tables.parent) p
    where not p.detaches
  ),
  gapless as (
    select p.parent, min(p.hi) hi
    from parts p
    where p.hi > now()
      and not exists (select 1 from parts next where next.parent = p.parent and next.lo = p.hi)
    group by p.parent
  ),
  covered as (
    select
      case
        when exists (
          select 1
          from parts p
          where p.parent = gapless.parent and p.lo <= now() and now() < p.hi
        ) then gapless.hi
      end hi
    from
      unnest(array['task', 'receipt', 'result', 'task_error', 'heartbeat', 'allocation'])
        tables(parent)
    left join gapless on gapless.parent = tables.parent
  )
  select
    case
      when bool_and(covered.hi is not null) then date_part('epoch', min(covered.hi) - now())
      else -1
    end,
    date_part('epoch', now() - (select min(p.hi) from parts p where p.parent = 'task'))
  from covered
$$;

CREATE FUNCTION rowlock.partition_width() RETURNS interval
    LANGUAGE sql STABLE
    RETURN (SELECT GREATEST('01:00:00'::interval, date_trunc('hour'::text, (COALESCE(max(GREATEST(queue.keep_completed, queue.keep_cancelled)), '24:00:00'::interval) / (8)::double precision))) AS "greatest" FROM rowlock.queue);

CREATE FUNCTION rowlock.partitions_of(parent text) RETURNS TABLE(part text, lo timestamp with time zone, hi timestamp with time zone, detaches boolean)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "DateStyle" TO 'ISO'
    SET "TimeZone" TO 'UTC'
    AS $$
  select
    c.relname::text,
    case
      when partitions_of.parent = 'task' then rowlock.id_time(bound.parts[1]::bigint)
      else bound.parts[1]::timestamptz
    end,
    case
      when partitions_of.parent = 'task' then rowlock.id_time(bound.parts[2]::bigint)
      else bound.parts[2]::timestamptz
    end,
    i.inhdetachpending
  from pg_inherits i
  join pg_class c on c.oid = i.inhrelid,
    regexp_match(
      pg_get_expr(c.relpartbound, c.oid),
      '\(''?([^'')]+)''?\) TO \(''?([^'')]+)''?\)'
    ) bound(parts)
  where i.inhparent = format('rowlock.%I', partitions_of.parent)::regclass
$$;

CREATE FUNCTION rowlock.partitions_until() RETURNS integer
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  select coalesce((max(substring(c.relname from '_([0-9]+)$')::bigint) - 1704067200)::int, 0)
  from pg_inherits i
  join pg_class c on c.oid = i.inhrelid
  where i.inhparent = 'rowlock.task'::regclass
$_$;

CREATE FUNCTION rowlock.permission_functions() RETURNS TABLE(permission text, function regprocedure)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select allowed.permission, p.oid::regprocedure
  from (
    values
      (
        'producer',
        array[
          'enqueue', 'enqueue_many', 'as_json', 'as_options', 'as_payloads', 'cancel',
          'cancel_all', 'task_state'
        ]
      ),
      (
        'worker',
        array[
          'join', 'policy', 'published_watermarks', 'heartbeat', 'claim', 'claim_suspect',
          'claim_with_payloads', 'await_claims', 'fetch', 'settle', 'drain', 'leave',
          'release_unknown_leases', 'maintain', 'least_k', 'move_missed', 'rescue',
          'mutex_holders', 'extend_partitions', 'partition_statistics', 'begin_maintenance',
          'end_maintenance', 'mark_finished', 'delete_expired_tasks',
          'delete_old_scaling_decisions', 'keep_watermarks', 'task_state', 'take_back_left_tasks'
        ]
      ),
      (
        'reader',
        array[
          'statistics', 'describe_task', 'task_errors', 'list_tasks', 'audit', 'task_state',
          'scaling_decisions', 'arrivals'
        ]
      )
  ) allowed(permission, names)
  join pg_proc p
    on p.proname = any (allowed.names)
    and p.pronamespace = 'rowlock'::regnamespace
$$;

CREATE FUNCTION rowlock.pod_runs(queue text, owner text, new_pods uuid[], old_pods uuid[]) RETURNS TABLE(new boolean, runs bigint, failures bigint, run_seconds double precision, run_seconds_squared double precision)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
  select
    given.new,
    coalesce(sum(newest.runs), 0)::bigint,
    coalesce(sum(newest.failures), 0)::bigint,
    coalesce(sum(newest.run_seconds::double precision), 0),
    coalesce(sum(newest.run_seconds_squared::double precision), 0)
  from rowlock.queue q
  cross join (values (true, pod_runs.new_pods), (false, pod_runs.old_pods)) given(new, pods)
  left join rowlock.instance i
    on i.queue = q.id and i.ended_at is null and i.pod = any (given.pods)
  left join lateral (
    select h.runs, h.failures, h.run_seconds, h.run_seconds_squared
    from rowlock.heartbeat h
    where h.instance = i.id and h.at > now() - interval '1 minute'
    order by h.n desc
    limit 1
  ) newest on true
  where q.name = pod_runs.queue and q.owner = pod_runs.owner
  group by given.new
$$;

CREATE FUNCTION rowlock.policy(queue integer) RETURNS TABLE(generation bigint, policy json, max_attempts smallint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select q.generation, q.policy, q.max_attempts
  from rowlock.queue q
  where q.id = policy.queue
$$;

CREATE FUNCTION rowlock.producer_trace(trace text, options jsonb) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  state text := case
    when options->>'traceparent' is not null then options->>'tracestate'
    else current_setting('rowlock.tracestate', true)
  end;
begin
  if trace !~ '^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$' then
    raise exception 'traceparent is not a W3C trace context'
      using errcode = 'RL005',
        hint = 'It comes from the option traceparent or the setting rowlock.traceparent. For'
          ' example "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".';
  end if;
  return case
    when length(state) <= 512 and state ~ '^[ -~\t]+$' then trace || ' ' || state
    else trace
  end;
end $_$;

CREATE FUNCTION rowlock.published_watermarks(queue integer) RETURNS bigint[]
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION rowlock.ran_alone(ids bigint[]) RETURNS TABLE(id bigint, times integer)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
  select s.id, s.alone + 1
  from rowlock.suspect s
  where s.id = any (ran_alone.ids)
$$;

CREATE FUNCTION rowlock.readable_queue(name text) RETURNS integer
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_id int;
begin
  select q.id
    into v_id
    from rowlock.queue q
    where q.name = readable_queue.name
      and (not q.restricted or rowlock.has_permission('reader', q.id));
  if not found then
    perform rowlock.refuse_unknown_queue(readable_queue.name);
  end if;
  return v_id;
end $$;

CREATE FUNCTION rowlock.recent_arrivals() RETURNS TABLE(queue integer, second bigint, known integer, counts bigint[], enqueued bigint[])
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION rowlock.record_scaling_decisions(decisions json) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
declare
  recorded int;
begin
  perform rowlock.require_read_committed();
  insert into rowlock.scaling_decision (
      queue, number, at, pods_before, pods, workers, reason, demand, waiting, running,
      arrivals_per_second, service_seconds, service_assumed, pod_start_seconds, for_rate,
      for_backlog, detail
    )
    select
      q.id,
      coalesce(last.number, 0) + 1,
      clock_timestamp() - make_interval(secs => least(greatest(d.age_seconds, 0), 86400)),
      d.pods_before,
      d.pods,
      d.workers,
      d.reason,
      d.demand,
      d.waiting,
      d.running,
      d.arrivals_per_second,
      d.service_seconds,
      d.service_assumed,
      d.pod_start_seconds,
      d.for_rate,
      d.for_backlog,
      left(d.detail, 500)
    from json_to_recordset(record_scaling_decisions.decisions) d(
      queue text,
      owner text,
      age_seconds double precision,
      pods_before int,
      pods int,
      workers int,
      reason text,
      demand int,
      waiting bigint,
      running bigint,
      arrivals_per_second double precision,
      service_seconds double precision,
      service_assumed boolean,
      pod_start_seconds double precision,
      for_rate double precision,
      for_backlog double precision,
      detail text
    )
    join rowlock.queue q on q.name = d.queue and q.owner = d.owner
    left join lateral (
      select l.number, l.pods, l.reason
      from rowlock.scaling_decision l
      where l.queue = q.id
      order by l.number desc
      limit 1
    ) last on true
    where (d.pods, d.reason) is distinct from (last.pods, last.reason)
    -- Another operator has recorded at the same moment.
    on conflict do nothing;
  get diagnostics recorded = row_count;
  return recorded;
end $$;

CREATE FUNCTION rowlock.refuse_delay(q rowlock.queue) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "IntervalStyle" TO 'postgres'
    AS $$
begin
  raise exception 'queue "%" accepts no task that is due in more than % (limits.maxDelay)',
      q.name, justify_hours(q.max_delay)
    using errcode = 'RL005',
      hint = 'Enqueue it later, or raise limits.maxDelay of the TaskQueue.';
end $$;

CREATE FUNCTION rowlock.refuse_far_future(q rowlock.queue) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception
      'queue "%" has reached its limit of tasks that are due in more than a day'
      ' (limits.backlog: %)',
      q.name, q.backlog_limit
    using errcode = 'RL004',
      hint = 'Enqueue again later, or raise limits.backlog of the TaskQueue; tasks that are due'
        ' sooner are accepted.';
end $$;

CREATE FUNCTION rowlock.refuse_full(q rowlock.queue) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'queue "%" is full: its backlog reached limits.backlog (%)',
      q.name, q.backlog_limit
    using errcode = 'RL004',
      hint = 'Enqueue again later, add workers, or raise limits.backlog of the TaskQueue.';
end $$;

CREATE FUNCTION rowlock.refuse_null(what text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'the % is null', what
    using errcode = 'RL005',
      hint = case
        when what like 'array%' then 'To enqueue no task, pass an empty array.'
        else 'A task without data has the payload {}.'
      end;
end $$;

CREATE FUNCTION rowlock.refuse_payload(q rowlock.queue, bytes integer) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'payload of % bytes is larger than limits.payloadBytes (%) of queue "%"',
      bytes, q.payload_limit, q.name
    using errcode = 'RL003',
      hint = 'Store it elsewhere and enqueue a reference, or raise limits.payloadBytes of the'
        ' TaskQueue.';
end $$;

CREATE FUNCTION rowlock.refuse_permission(permission text, queue text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'the role "%" is not a % of queue "%"',
      rowlock.calling_role(), permission, queue
    using errcode = 'RL011',
      hint = format(
        'The owner of the database can run: select rowlock.grant_role(%L, %L, array[%L]);',
        rowlock.calling_role(),
        permission,
        queue
      );
end $$;

CREATE FUNCTION rowlock.refuse_type(type text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'the type of a task must have 1 to 200 printable characters'
    using errcode = 'RL005',
      hint = format(
        'It names what the handler does, for example "send-invoice"; data belongs in the payload.'
        ' This one has %s characters.',
        length(type)
      );
end $$;

CREATE FUNCTION rowlock.refuse_unknown_queue(queue text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'unknown queue "%"', queue
    using errcode = 'RL001',
      hint = coalesce(
        'Queues of this database: ' || (
          select string_agg(q.name, ', ' order by q.name)
          from rowlock.queue q
          where not q.restricted or rowlock.has_permission(null, q.id)
        ) || '.',
        case
          when exists (select 1 from rowlock.queue)
            then 'You have no permission for any queue of this database.'
          else 'This database has no queue yet: apply a TaskQueue.'
        end
      );
end $$;

CREATE FUNCTION rowlock.release_lease(instance bigint, queue integer, token bigint) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  held record;
  left_ids bigint[] := '{}';
begin
  select * into held from rowlock.unsettled_tasks(release_lease.token);
  if held.ids is not null then
    left_ids := array(
      select failed.id
      from rowlock.take_back(
        release_lease.queue,
        release_lease.instance,
        null,
        null,
        false,
        held.ids,
        held.attempts,
        held.priorities
      ) failed
    );
  end if;
  perform rowlock.end_lease(release_lease.token, held.ids, left_ids);
  return coalesce(cardinality(held.ids), 0) - cardinality(left_ids);
end $$;

CREATE FUNCTION rowlock.release_tasks(queue integer, instance bigint, ids bigint[], attempts smallint[], priorities smallint[]) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select rowlock.write_outcomes(
    release_tasks.queue,
    release_tasks.instance,
    array_fill(1, array[cardinality(release_tasks.ids)]),
    release_tasks.ids,
    (
      -- 5 released, 6 cancelled
      select array_agg(
        case when c.id is null then 5 else 6 end::smallint order by task.number
      )
      from unnest(release_tasks.ids) with ordinality task(id, number)
      left join rowlock.cancel_request c on c.id = task.id
    ),
    release_tasks.attempts,
    release_tasks.priorities,
    '{0}',
    '{}'
  )
$$;

CREATE FUNCTION rowlock.release_unknown_leases(instance bigint, known bigint[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  l record;
  released int := 0;
begin
  perform rowlock.require_read_committed();
  perform rowlock.require_worker(i.queue)
    from rowlock.instance i
    where i.id = release_unknown_leases.instance;
  for l in
    select held.token, held.queue
    from rowlock.lease held
    where held.instance = release_unknown_leases.instance
      and held.at < now() - interval '1 minute'
      and held.token <> all (release_unknown_leases.known)
    order by held.token
    for update
  loop
    released := released
      + rowlock.release_lease(release_unknown_leases.instance, l.queue, l.token);
  end loop;
  return released;
end $$;

CREATE FUNCTION rowlock.remove_from_range(queue integer, priority smallint, id bigint, k_low integer) RETURNS smallint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  r rowlock.ready;
  v_before int;   -- tasks of the range before the removed one
  v_behind int;   -- and after it
  v_next bigint;
  v_k bigint;
  v_id bigint;    -- the first id of what remains in the range
begin
  select ready.*
    into r
    from rowlock.find_ready(
      remove_from_range.queue,
      remove_from_range.priority,
      remove_from_range.id,
      remove_from_range.k_low
    ) holder
    join rowlock.ready ready
      on ready.queue = holder.queue
      and ready.shard = holder.shard
      and ready.lane = holder.lane
      and ready.priority = holder.priority
      and ready.k = holder.k
    for update of ready;
  if not found or remove_from_range.id < r.id or remove_from_range.id >= r.id + r.n then
    return null;
  end if;
  v_before := remove_from_range.id - r.id;
  v_behind := r.id + r.n - 1 - remove_from_range.id;
  v_id := remove_from_range.id + 1;
  if v_before > 0 and v_behind > 0 then
    v_next := r.k + 1 + ((r.shard - r.k - 1) & 3);
    select least(v_next, min(ready.k))
      into v_next
      from rowlock.ready ready
      where ready.queue = r.queue
        and ready.shard = r.shard
        and ready.lane = r.lane
        and ready.priority = r.priority
        and ready.k > r.k
        and ready.k < v_next;
    if v_next - r.k > 1 then
      insert into rowlock.ready (
          queue, shard, lane, priority, since, k, id, n, attempt, fresh, notify, moved
        )
        values (
          r.queue,
          r.shard,
          r.lane,
          r.priority,
          r.since,
          r.k + (v_next - r.k) / 2,
          v_id,
          v_behind,
          r.attempt,
          false,
          false,
          rowlock.chunk_of(v_id)
        )
        on conflict do nothing
        returning k into v_k;
    end if;
    if v_k is not null or v_before >= v_behind then
      if v_k is null then
        perform rowlock.append_range(r, v_id, v_behind);
      end if;
      v_id := r.id;
      v_behind := 0;
    else
      perform rowlock.append_range(r, r.id, v_before);
      v_before := 0;
    end if;
  elsif v_before > 0 then
    v_id := r.id;
  end if;
  if v_before + v_behind = 0 then
    delete from rowlock.ready ready
      where ready.queue = r.queue
        and ready.shard = r.shard
        and ready.lane = r.lane
        and ready.priority = r.priority
        and ready.k = r.k;
  else
    update rowlock.ready ready
      set id = v_id, n = v_before + v_behind
      where ready.queue = r.queue
        and ready.shard = r.shard
        and ready.lane = r.lane
        and ready.priority = r.priority
        and ready.k = r.k;
  end if;
  return r.attempt;
end $$;

CREATE FUNCTION rowlock.renew_grants() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  missing record;
begin
  lock table rowlock.access in share row exclusive mode;
  -- Deletes rows of roles and queues that are gone: a new role of the same name would inherit them.
  delete from rowlock.access a
    where not exists (select 1 from pg_roles r where r.rolname = a.role)
      or (
        a.queue <> 0
        and not exists (select 1 from rowlock.queue q where q.id = a.queue)
      );
  for missing in
    select distinct r.rolname, f.function
    from rowlock.access a
    join pg_roles r on r.rolname = a.role
    join rowlock.permission_functions() f on f.permission = a.permission
    join pg_proc p on p.oid = f.function
    where not exists (select 1 from aclexplode(p.proacl) x where x.grantee = r.oid)
  loop
    execute format('grant execute on function %s to %I', missing.function, missing.rolname);
  end loop;
  for missing in
    select distinct r.rolname
    from rowlock.access a
    join pg_roles r on r.rolname = a.role
    where not exists (
      select 1
      from pg_namespace n, aclexplode(n.nspacl) x
      where n.nspname = 'rowlock' and x.grantee = r.oid
    )
  loop
    execute format('grant usage on schema rowlock to %I', missing.rolname);
    -- Every command first checks the schema's version.
    execute format('grant select on rowlock.migration to %I', missing.rolname);
  end loop;
  update rowlock.queue q
    set restricted = not q.restricted
    where q.restricted <> exists (select 1 from rowlock.access a where a.queue <> 0);
end $$;

CREATE FUNCTION rowlock.requeue(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
begin
  perform rowlock.requeue_together(
    requeue.queue, requeue.ids, requeue.attempts, requeue.priorities
  );
exception when others then
  perform rowlock.requeue_one_by_one(
    requeue.queue, requeue.ids, requeue.attempts, requeue.priorities
  );
end $$;

CREATE FUNCTION rowlock.requeue_one_by_one(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
begin
  for i in 1 .. cardinality(ids) loop
    begin
      perform rowlock.requeue_together(
        requeue_one_by_one.queue, ids[i:i], attempts[i:i], priorities[i:i]
      );
    exception when others then
      raise warning 'task % cannot be made available: %', ids[i], sqlerrm;
      insert into rowlock.delayed (id, queue, priority, attempt, waits, run_at, due)
        values (
          ids[i],
          requeue_one_by_one.queue,
          priorities[i],
          attempts[i],
          1,   -- retryable
          now() + interval '1 minute',
          now() + interval '1 minute'
        );
    end;
  end loop;
end $$;

CREATE FUNCTION rowlock.requeue_together(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
begin
  insert into rowlock.ready (
      queue, shard, priority, k, id, n, attempt, fresh, notify, moved
    )
    select
      requeue_together.queue,
      placed.k & 3,
      placed.priority,
      placed.k,
      placed.id,
      placed.n,
      placed.attempt,
      false,
      coalesce(
        (select q.notify_until > now() from rowlock.queue q where q.id = requeue_together.queue),
        false
      ),
      rowlock.chunk_of(placed.id)
    from (
      select nextval('rowlock.k_seq') k, range.*
      from (
        select min(task.id) id, count(*) n, task.attempt, task.priority
        from (
          select
            item.*,
            item.id - row_number() over (
              partition by item.attempt, item.priority order by item.id
            ) run   -- the same for neighbours
          from unnest(
              requeue_together.ids, requeue_together.attempts, requeue_together.priorities
            ) item(id, attempt, priority)
        ) task
        group by task.attempt, task.priority, task.run, task.id >> 8
        order by 1
      ) range
    ) placed;
end $$;

CREATE FUNCTION rowlock.require_read_committed() RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'this function needs READ COMMITTED'
      using errcode = 'RL007',
        hint = 'Begin the transaction with ISOLATION LEVEL READ COMMITTED.';
  end if;
end $$;

CREATE FUNCTION rowlock.require_worker(queue integer) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_name text;
begin
  select q.name
    into v_name
    from rowlock.queue q
    where q.id = require_worker.queue and q.restricted;
  if found and not rowlock.has_permission('worker', require_worker.queue) then
    perform rowlock.refuse_permission('worker', v_name);
  end if;
end $$;

CREATE FUNCTION rowlock.rescue(instance bigint, heartbeat bigint) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
begin
  perform rowlock.require_read_committed();
  -- First checks without the lock, because the lock would make a live instance believe that it is
  -- being ended. Then checks again with the lock.
  if coalesce(
    (
      select h.n
      from rowlock.heartbeat h
      where h.instance = rescue.instance
      order by h.n desc
      limit 1
    ),
    0
  ) <> rescue.heartbeat then
    return null;
  end if;
  if not rowlock.is_silent(rescue.instance, rescue.heartbeat) then
    return null;
  end if;
  perform 1
    from rowlock.instance i
    where i.id = rescue.instance and i.ended_at is null
    for update skip locked;
  if not found then
    return null;
  end if;
  if coalesce(
    (
      select h.n
      from rowlock.heartbeat h
      where h.instance = rescue.instance
      order by h.n desc
      limit 1
    ),
    0
  ) <> rescue.heartbeat then
    return null;
  end if;
  return rowlock.end_lost_instance(rescue.instance, 'stopped sending heartbeats');
end $$;

CREATE FUNCTION rowlock.rescue_after() RETURNS interval
    LANGUAGE sql IMMUTABLE
    RETURN '00:00:12'::interval;

CREATE FUNCTION rowlock.rescue_pod(queue text, owner text, pod uuid, how text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  dead bigint;
  rescued int;
begin
  perform rowlock.require_read_committed();
  for dead in
    select i.id
    from rowlock.queue q
    join rowlock.instance i on i.queue = q.id
    where q.name = rescue_pod.queue
      and q.owner = rescue_pod.owner
      and i.pod = rescue_pod.pod
      and i.ended_at is null
    order by i.id
    for update of i nowait
  loop
    rescued := coalesce(rescued, 0)
      + rowlock.end_lost_instance(
        dead, format('has ended with its pod (%s)', left(rescue_pod.how, 300))
      );
  end loop;
  return rescued;
end $$;

CREATE FUNCTION rowlock.retry(queue text, ids bigint[]) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  tasks record;
  n bigint := 0;
begin
  perform rowlock.require_read_committed();
  if retry.queue is null and retry.ids is null then
    raise exception 'neither a queue nor ids were given'
      using errcode = 'RL005',
        hint = 'Name the queue whose dead tasks to retry, or list their ids.';
  end if;
  if retry.queue is not null
    and not exists (select 1 from rowlock.queue q where q.name = retry.queue) then
    perform rowlock.refuse_unknown_queue(retry.queue);
  end if;
  for tasks in
    with revived as (
      delete from rowlock.dead d
        where d.id in (
          select chosen.id
          from rowlock.dead chosen
          join rowlock.queue q on q.id = chosen.queue
          where (retry.queue is null or q.name = retry.queue)
            and (retry.ids is null or chosen.id = any (retry.ids))
          order by chosen.id
          limit 10000
          for update of chosen skip locked
        )
        returning d.*
    )
    select
      revived.queue,
      array_agg(revived.id order by revived.id) ids,
      array_agg(0::smallint) attempts,
      array_agg(revived.priority order by revived.id) priorities
    from revived
    group by revived.queue
  loop
    perform rowlock.requeue(tasks.queue, tasks.ids, tasks.attempts, tasks.priorities);
    n := n + cardinality(tasks.ids);
    -- A request to cancel that was made while the last attempt ended applied only to that attempt.
    delete from rowlock.cancel_request c where c.id = any (tasks.ids);
    -- The handler may snooze it as often as a new task.
    delete from rowlock.snooze s where s.id = any (tasks.ids);
  end loop;
  return n;
end $$;

CREATE FUNCTION rowlock.return_tasks(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  suspects bigint[];
  others record;
begin
  if pg_relation_size('rowlock.suspect') > 0 then
    with due as (
      update rowlock.suspect s
        set due = now()
        where s.id = any (return_tasks.ids)
        returning s.id
    )
    select array_agg(due.id) into suspects from due;
  end if;
  if suspects is null then
    perform rowlock.requeue(
      return_tasks.queue, return_tasks.ids, return_tasks.attempts, return_tasks.priorities
    );
    return;
  end if;
  perform rowlock.delay_suspects(
    return_tasks.queue, return_tasks.ids, return_tasks.attempts, return_tasks.priorities
  );
  select
    array_agg(item.id order by item.number) ids,
    array_agg(item.attempt order by item.number) attempts,
    array_agg(item.priority order by item.number) priorities
    into others
    from unnest(return_tasks.ids, return_tasks.attempts, return_tasks.priorities)
      with ordinality item(id, attempt, priority, number)
    where item.id <> all (suspects);
  if others.ids is not null then
    perform rowlock.requeue(
      return_tasks.queue, others.ids, others.attempts, others.priorities
    );
  end if;
end $$;

CREATE FUNCTION rowlock.revoke_role(role name, permission text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
  f regprocedure;
begin
  lock table rowlock.access in share row exclusive mode;
  delete from rowlock.access a
    where a.role = revoke_role.role
      and (revoke_role.permission is null or a.permission = revoke_role.permission);
  if not exists (select 1 from pg_roles r where r.rolname = revoke_role.role) then
    perform rowlock.renew_grants();
    return;
  end if;
  for f in
    select allowed.function
    from rowlock.permission_functions() allowed
    group by allowed.function
    having not bool_or(
      exists (
        select 1
        from rowlock.access a
        where a.role = revoke_role.role and a.permission = allowed.permission
      )
    )
  loop
    execute format('revoke execute on function %s from %I', f, revoke_role.role);
  end loop;
  if not exists (select 1 from rowlock.access a where a.role = revoke_role.role) then
    execute format('revoke select on rowlock.migration from %I', revoke_role.role);
    execute format('revoke usage on schema rowlock from %I', revoke_role.role);
  end if;
  perform rowlock.renew_grants();
end $$;

CREATE FUNCTION rowlock.running() RETURNS TABLE(queue integer, n bigint, mean_seconds double precision)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION rowlock.sample_percent(what regclass) RETURNS real
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN LEAST((100)::double precision, (((512 * 100))::double precision / (GREATEST((pg_relation_size(what) / (current_setting('block_size'::text))::integer), (1)::bigint))::real));

CREATE FUNCTION rowlock.scaling_decisions(queue text, as_of timestamp with time zone DEFAULT NULL::timestamp with time zone, most integer DEFAULT 20) RETURNS TABLE(at timestamp with time zone, age_seconds double precision, pods_before integer, pods integer, workers integer, reason text, demand integer, waiting bigint, running bigint, arrivals_per_second double precision, service_seconds double precision, service_assumed boolean, pod_start_seconds double precision, for_rate double precision, for_backlog double precision, detail text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  v_queue int := rowlock.readable_queue(scaling_decisions.queue);
begin
  return query
    select
      d.at,
      greatest(date_part('epoch', clock_timestamp() - d.at), 0),
      d.pods_before,
      d.pods,
      d.workers,
      d.reason,
      d.demand,
      d.waiting,
      d.running,
      d.arrivals_per_second,
      d.service_seconds,
      d.service_assumed,
      d.pod_start_seconds,
      d.for_rate,
      d.for_backlog,
      d.detail
    from rowlock.scaling_decision d
    where d.queue = v_queue and (scaling_decisions.as_of is null or d.at <= scaling_decisions.as_of)
    order by d.number desc
    limit least(greatest(scaling_decisions.most, 1), 1000);
end $$;

CREATE FUNCTION rowlock.settle(instance bigint, tokens bigint[], ids bigint[], outcomes smallint[], delays_ms bigint[], texts text[]) RETURNS smallint[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  answers smallint[] := array_fill(4::smallint, array[cardinality(ids)]);
  v_cancels boolean := exists (select 1 from rowlock.cancel_request);
  v_queue int;
  -- The tasks that are held and settled now. First the place of each in the arguments; the other
  -- arrays are in the same order.
  v_places int[];
  v_tokens bigint[];
  v_ids bigint[];
  v_outcomes smallint[];
  v_attempts smallint[];
  v_priorities smallint[];
  spent int[];             -- the places of snoozes that exceed the limit
  i int;
begin
  perform rowlock.require_read_committed();
  perform 1
    from rowlock.lease l
    where l.token = any (settle.tokens) and l.instance = settle.instance
    order by l.token
    for update;
  -- A session that ends the instance from now on waits for these leases. One that did so before has
  -- taken them, and has marked the instance in the same transaction.
  select i.queue
    into v_queue
    from rowlock.instance i
    where i.id = settle.instance and i.ended_at is null;
  if not found then
    return answers;
  end if;
  -- Tasks that are held and not settled yet, by one grouping. An anti-join would be planned as a
  -- nested loop, a thousand times a thousand.
  with held as materialized (
    select task.token, task.id, max(task.attempt) attempt, max(task.priority) priority
    from (
      select l.token, leased.id, range.attempt, range.priority
      from
        rowlock.lease l,
        unnest(l.firsts, l.ns, l.attempts, l.priorities) range(first_id, n, attempt, priority),
        generate_series(range.first_id, range.first_id + range.n - 1) leased(id)
      where l.token = any (settle.tokens) and l.instance = settle.instance
      union all
      select l.token, done.id, null, null
      from rowlock.lease l, unnest(l.settled) done(id)
      where l.token = any (settle.tokens) and l.instance = settle.instance
    ) task
    group by task.token, task.id
    having count(*) = count(task.attempt)
  )
  select
    array_agg(item.place),
    array_agg(item.id),
    array_agg(item.token),
    array_agg(item.outcome),
    array_agg(item.attempt),
    array_agg(item.priority)
    into v_places, v_ids, v_tokens, v_outcomes, v_attempts, v_priorities
    from (
      select distinct on (held.token, held.id)
        given.place::int place,
        held.id,
        held.token,
        case
          when cancel.id is not null and given.outcome <> 1 then 6::smallint
          else given.outcome
        end outcome,
        held.attempt,
        held.priority
      from unnest(settle.tokens, settle.ids, settle.outcomes)
        with ordinality given(token, id, outcome, place)
      join held on held.token = given.token and held.id = given.id
      left join rowlock.cancel_request cancel on v_cancels and cancel.id = given.id
      order by held.token, held.id, given.place
    ) item;
  if v_ids is not null then
    if 2 = any (v_outcomes) then
      -- A retry whose attempts are used up is dead.
      select
        array_agg(
          case
            when item.outcome = 2 and item.attempt + 1 >= task.max_attempts then 3::smallint
            else item.outcome
          end
          order by item.number
        )
        into v_outcomes
        from unnest(v_ids, v_outcomes, v_attempts)
          with ordinality item(id, outcome, attempt, number)
        left join rowlock.max_attempts(v_queue, v_ids) task
          on task.id = item.id and item.outcome = 2;
    end if;
    if 4 = any (v_outcomes) then
      -- A snooze beyond the queue's limit is dead.
      select
        array_agg(
          case when s.times >= policy.max_snoozes then 3::smallint else item.outcome end
          order by item.number
        ),
        array_agg(item.place) filter (where s.times >= policy.max_snoozes)
        into v_outcomes, spent
        from unnest(v_ids, v_outcomes, v_places)
          with ordinality item(id, outcome, place, number)
        cross join (
          select (q.policy->'retry'->>'maxSnoozes')::int max_snoozes
          from rowlock.queue q
          where q.id = v_queue
        ) policy
        left join rowlock.snooze s on item.outcome = 4 and s.id = item.id;
      foreach i in array coalesce(spent, '{}') loop
        texts[i] := 'the handler snoozed it more often than retry.maxSnoozes allows';
      end loop;
    end if;
    if 7 = any (v_outcomes) then
      -- A task that ended the handler while it ran alone, as often as allowed, is dead.
      select
        array_agg(
          case
            when alone.times >= rowlock.suspect_limit() then 3::smallint
            else item.outcome
          end
          order by item.number
        ),
        array_agg(item.place) filter (where alone.times >= rowlock.suspect_limit())
        into v_outcomes, spent
        from unnest(v_ids, v_outcomes, v_places)
          with ordinality item(id, outcome, place, number)
        left join rowlock.ran_alone(v_ids) alone
          on alone.id = item.id and item.outcome = 7;
      foreach i in array coalesce(spent, '{}') loop
        texts[i] := format(
          'the handler ended while this task ran alone, %s times', rowlock.suspect_limit()
        );
      end loop;
    end if;
    if 7 = any (v_outcomes) then
      perform rowlock.write_suspects(
          v_queue,
          settle.instance,
          array_agg(item.id),
          array_agg(item.attempt),
          array_agg(item.priority)
        )
        from unnest(v_ids, v_outcomes, v_attempts, v_priorities)
          item(id, outcome, attempt, priority)
        where item.outcome = 7;
    end if;
    perform rowlock.write_outcomes(
      v_queue,
      settle.instance,
      v_places,
      v_ids,
      v_outcomes,
      v_attempts,
      v_priorities,
      settle.delays_ms,
      settle.texts
    );
    delete from rowlock.lease l
      using (select token, count(*) n from unnest(v_tokens) token group by token) done
      where l.token = any (v_tokens)
        and l.token = done.token
        and cardinality(l.settled) + done.n >= (select sum(n) from unnest(l.ns) n);
    update rowlock.lease l
      set settled = l.settled || done.ids
      from (
        select item.token, array_agg(item.id) ids
        from unnest(v_tokens, v_ids) item(token, id)
        group by item.token
      ) done
      where l.token = any (v_tokens) and l.token = done.token;
    if cardinality(v_places) = cardinality(ids) and 1 = all (v_outcomes) then
      answers := array_fill(1::smallint, array[cardinality(ids)]);
    else
      for i in 1 .. cardinality(v_places) loop
        answers[v_places[i]] := case v_outcomes[i] when 3 then 2 when 6 then 3 else 1 end;
      end loop;
    end if;
  end if;
  if 4 = any (answers) then
    -- Perhaps the same call settled it before, and the answer was lost.
    with before as materialized (
      select done.id
      from
        rowlock.receipt r,
        unnest(r.firsts, r.ns) range(first_id, n),
        generate_series(range.first_id, range.first_id + range.n - 1) done(id)
      where r.queue = v_queue
        and r.state in (1, 3)
        and r.at > now() - interval '1 minute'
        and r.instance = settle.instance
      union
      select failed.id
      from rowlock.task_error failed
      where failed.id = any (settle.ids)
        and failed.instance = settle.instance
        and failed.at > now() - interval '1 minute'
      union
      select done.id
      from rowlock.lease l, unnest(l.settled) done(id)
      where l.token = any (settle.tokens) and l.instance = settle.instance
    )
    select
      array_agg(
        case when given.answer = 4 and before.id is not null then 1::smallint else given.answer end
        order by given.place
      )
      into answers
      from unnest(answers, settle.ids) with ordinality given(answer, id, place)
      left join before on before.id = given.id;
  end if;
  return answers;
end $$;

CREATE FUNCTION rowlock.settle_lost_tasks(queue integer, instance bigint, name text, why text, drains boolean, ids bigint[], attempts smallint[], priorities smallint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  v_outcomes smallint[];
  costs smallint[];   -- the attempts that each task uses: 0 or 1
  lost text := format(
    'lease lost: instance %s %s', settle_lost_tasks.name, settle_lost_tasks.why
  );
begin
  select
    array_agg(
      case
        when cancel.id is not null then 6
        when task.attempt + task.cost >= allowed.max_attempts and task.cost = 1 then 3
        else 5
      end::smallint
      order by task.number
    ),
    array_agg(task.cost::smallint order by task.number)
    into v_outcomes, costs
    from (
      select
        item.id,
        item.attempt,
        item.number,
        case
          when settle_lost_tasks.drains and (
            select count(*)
            from rowlock.task_error e
            where e.id = item.id and e.attempt = 0
          ) < rowlock.interruption_limit() then 0
          else 1
        end cost
      from unnest(settle_lost_tasks.ids, settle_lost_tasks.attempts)
        with ordinality item(id, attempt, number)
    ) task
    left join rowlock.max_attempts(settle_lost_tasks.queue, settle_lost_tasks.ids) allowed
      on allowed.id = task.id
    left join rowlock.cancel_request cancel on cancel.id = task.id;
  insert into rowlock.task_error (id, attempt, instance, error)
    select
      item.id,
      (item.attempt + 1) * item.cost,
      settle_lost_tasks.instance,
      case item.cost
        when 1 then lost
        else format(
          'interrupted: instance %s was ended before it had drained; no attempt was used',
          settle_lost_tasks.name
        )
      end
    from unnest(settle_lost_tasks.ids, settle_lost_tasks.attempts, v_outcomes, costs)
      item(id, attempt, outcome, cost)
    where item.outcome = 5;
  perform rowlock.write_outcomes(
    settle_lost_tasks.queue,
    settle_lost_tasks.instance,
    array_fill(1, array[cardinality(settle_lost_tasks.ids)]),
    settle_lost_tasks.ids,
    v_outcomes,
    (
      select array_agg(
        (
          case item.outcome when 5 then item.attempt + item.cost else item.attempt end
        )::smallint
        order by item.number
      )
      from unnest(settle_lost_tasks.attempts, v_outcomes, costs)
        with ordinality item(attempt, outcome, cost, number)
    ),
    settle_lost_tasks.priorities,
    '{0}',
    array[lost]
  );
end $$;

CREATE FUNCTION rowlock.statistics() RETURNS TABLE(queue integer, name text, paused boolean, total_workers integer, available bigint, scheduled bigint, retryable bigint, due_soon bigint, running bigint, dead bigint, oldest_seconds double precision, completed bigint, arrivals bigint[], arrivals_second bigint, arrivals_known integer, instances bigint, allocated bigint, busy bigint, runs bigint, failures bigint, run_seconds double precision, run_seconds_squared double precision, mean_running_seconds double precision, oldest_by_priority double precision[], suspects bigint, oldest_suspect_seconds double precision, enqueued bigint[], newly_dead bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION rowlock.suspect_delay(alone integer) RETURNS interval
    LANGUAGE sql IMMUTABLE
    RETURN CASE alone WHEN 0 THEN '00:00:01'::interval ELSE '00:01:00'::interval END;

CREATE FUNCTION rowlock.suspect_due(queue integer, held integer) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
begin
  if pg_relation_size('rowlock.suspect') = 0 then
    return false;
  end if;
  return exists (
    select 1
    from rowlock.suspect s
    where s.queue = suspect_due.queue
      and s.due <= now() - case suspect_due.held when 0 then 0 else 3 end * interval '1 second'
  ) and not rowlock.enough_suspects_run(suspect_due.queue);
end $$;

CREATE FUNCTION rowlock.suspect_limit() RETURNS integer
    LANGUAGE sql IMMUTABLE
    RETURN 2;

CREATE FUNCTION rowlock.suspect_timeout() RETURNS interval
    LANGUAGE sql IMMUTABLE
    RETURN '01:00:00'::interval;

CREATE FUNCTION rowlock.take_back(queue integer, instance bigint, name text, why text, drains boolean, ids bigint[], attempts smallint[], priorities smallint[]) RETURNS TABLE(id bigint, error text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  n int := cardinality(take_back.ids);
  part record;
begin
  if n = 0 then
    return;
  end if;
  begin
    if take_back.why is null then
      perform rowlock.release_tasks(
        take_back.queue,
        take_back.instance,
        take_back.ids,
        take_back.attempts,
        take_back.priorities
      );
    else
      perform rowlock.settle_lost_tasks(
        take_back.queue,
        take_back.instance,
        take_back.name,
        take_back.why,
        take_back.drains,
        take_back.ids,
        take_back.attempts,
        take_back.priorities
      );
    end if;
    return;
  exception when others then
    if rowlock.concerns_all_rows(sqlstate) then
      raise;
    end if;
    if n = 1 then
      raise warning 'task % cannot be taken back: %', take_back.ids[1], sqlerrm;
      return query select take_back.ids[1], sqlerrm;
      return;
    end if;
  end;
  for part in
    select * from (values (1, n / 2), (n / 2 + 1, n)) half(low, high)
  loop
    return query
      select failed.id, failed.error
      from rowlock.take_back(
        take_back.queue,
        take_back.instance,
        take_back.name,
        take_back.why,
        take_back.drains,
        take_back.ids[part.low:part.high],
        take_back.attempts[part.low:part.high],
        take_back.priorities[part.low:part.high]
      ) failed;
  end loop;
end $$;

CREATE FUNCTION rowlock.take_back_left_tasks() RETURNS TABLE(id bigint, error text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  l record;
  held record;
  left_ids bigint[];
  errors text[];
begin
  perform rowlock.require_read_committed();
  for l in
    select lost.token, lost.instance, lost.queue, i.name, i.gone, i.drains
    from rowlock.lease lost
    join rowlock.instance i on i.id = lost.instance
    where i.ended_at is not null
    order by random()
    limit 100
    for update of lost skip locked
  loop
    select * into held from rowlock.unsettled_tasks(l.token);
    select
      coalesce(array_agg(failed.id), '{}'), array_agg(failed.error)
      into left_ids, errors
      from rowlock.take_back(
        l.queue,
        l.instance,
        l.name,
        case when l.gone then 'has ended' end,
        l.drains,
        coalesce(held.ids, '{}'),
        held.attempts,
        held.priorities
      ) failed;
    perform rowlock.end_lease(l.token, held.ids, left_ids);
    return query select * from unnest(left_ids, errors);
  end loop;
end $$;

CREATE FUNCTION rowlock.task_errors(id bigint) RETURNS TABLE(at timestamp with time zone, attempt smallint, instance text, error text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
  select failed.at, failed.attempt, coalesce(i.name, ''), failed.error
  from (
    select e.at, e.id, e.attempt, e.instance, e.error
    from rowlock.task_error e
    where e.id = task_errors.id
    union all
    select e.at, e.id, e.attempt, e.instance, e.error
    from rowlock.task_error_kept e
    where e.id = task_errors.id
  ) failed
  join rowlock.every_task t on t.id = task_errors.id
  join rowlock.queue q
    on q.id = t.queue
    and (not q.restricted or rowlock.has_permission('reader', q.id))
  left join rowlock.instance i on i.id = failed.instance
  order by failed.at, failed.attempt
$$;

CREATE FUNCTION rowlock.task_state(id bigint) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
  t record;
begin
  select e.queue, e.priority, e.k_low
    into t
    from rowlock.every_task e
    where e.id = task_state.id;
  if not found or exists (
    select 1
    from rowlock.queue q
    where q.id = t.queue and q.restricted and not rowlock.has_permission(null, q.id)
  ) then
    return null;
  end if;
  return rowlock.find_state(task_state.id, t.queue, t.priority, t.k_low);
end $$;

CREATE FUNCTION rowlock.tasks_of_pods(queue integer, pods uuid[]) RETURNS TABLE(pod uuid, number bigint, marked boolean, held integer)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
  select
    given.pod,
    given.number,
    coalesce(bool_or(i.drain_until > now()), false),
    coalesce(sum(lease.held), 0)::int
  from unnest(tasks_of_pods.pods) with ordinality given(pod, number)
  left join rowlock.instance i
    on i.queue = tasks_of_pods.queue and i.ended_at is null and i.pod = given.pod
  left join lateral (
    select
      sum((select sum(range.n) from unnest(l.ns) range(n)) - cardinality(l.settled)) as held
    from rowlock.lease l
    where l.instance = i.id
  ) lease on true
  group by given.pod, given.number
$$;

CREATE FUNCTION rowlock.try_mutex(operation integer, queue integer) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
  perform 1
    from rowlock.mutex m
    where m.operation = try_mutex.operation and m.queue = try_mutex.queue
    for update skip locked;
  if found then
    return true;
  end if;
  if exists (
    select 1
    from rowlock.mutex m
    where m.operation = try_mutex.operation and m.queue = try_mutex.queue
  ) then
    return false;
  end if;
  -- The queue was not created by rowlock.declare_queue. A queue that does not exist gets no row.
  if try_mutex.queue <> 0
    and not exists (select 1 from rowlock.queue q where q.id = try_mutex.queue) then
    return false;
  end if;
  insert into rowlock.mutex (operation, queue)
    values (try_mutex.operation, try_mutex.queue)
    on conflict do nothing;
  return found;
end $$;

CREATE FUNCTION rowlock.unsettled_tasks(token bigint) RETURNS TABLE(ids bigint[], attempts smallint[], priorities smallint[])
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
  select array_agg(task.id), array_agg(range.attempt), array_agg(range.priority)
  from
    rowlock.lease l,
    unnest(l.firsts, l.ns, l.attempts, l.priorities) range(first_id, n, attempt, priority),
    generate_series(range.first_id, range.first_id + range.n - 1) task(id)
  where l.token = unsettled_tasks.token and task.id <> all (l.settled)
$$;

CREATE FUNCTION rowlock.update_backlog_limits() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  flags record;
begin
  if not rowlock.try_mutex(3, 0) then
    return;
  end if;
  for flags in
    select
      counted.queue,
      case
        when q.backlog_full then counted.n >= q.backlog_limit * 0.95
        -- An estimate may be far off if a queue's rows are close together. So before producers are
        -- refused, the queue is counted.
        when counted.n >= q.backlog_limit then rowlock.backlog_reaches(q.id, q.backlog_limit)
        else false
      end backlog_full,
      -- A separate limit of the same size, so that tasks of next year do not prevent producers from
      -- enqueuing what is due today.
      counted.far_future >= case
        when q.far_future_full then q.backlog_limit * 0.95
        else q.backlog_limit
      end far_future_full
    from (
      select b.*, b.available + b.scheduled + b.retryable - b.far_future n
      from rowlock.backlog() b
    ) counted
    join rowlock.queue q on q.id = counted.queue
  loop
    update rowlock.queue q
      set backlog_full = flags.backlog_full, far_future_full = flags.far_future_full
      where q.id = flags.queue
        and (q.backlog_full, q.far_future_full) <> (flags.backlog_full, flags.far_future_full);
  end loop;
  if rowlock.clock_is_steady() then
    delete from rowlock.instance i
      where i.ended_at < now() - interval '7 days'
        and not exists (select 1 from rowlock.lease l where l.instance = i.id);
  end if;
  -- A request that was made while its task finished is obsolete, and slows down every settlement.
  delete from rowlock.cancel_request c
    where c.id in (
      select request.id
      from rowlock.cancel_request request
      where request.at < now() - interval '1 minute'
        and coalesce(
          (
            select rowlock.find_state(t.id, t.queue, t.priority, t.k_low)
            from rowlock.every_task t
            where t.id = request.id
          ),
          ''
        ) not in ('scheduled', 'retryable', 'available', 'running')
      order by request.at
      limit 100
    );
end $$;

CREATE FUNCTION rowlock.waiting_page(queue text, state text, after bigint, most integer) RETURNS TABLE(id bigint, name text, attempt integer, at timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
begin
  if waiting_page.state = 'dead' then
    return query
      select page.id, q.name, page.attempt::int, page.at
      from
        rowlock.queue q,
        lateral (
          select d.id, d.attempt, d.at
          from rowlock.dead d
          where d.queue = q.id and d.id > coalesce(waiting_page.after, 0)
          order by d.id
          limit waiting_page.most
        ) page
      where (waiting_page.queue is null or q.name = waiting_page.queue)
        and (not q.restricted or rowlock.has_permission('reader', q.id))
      order by page.id
      limit waiting_page.most;
  elsif waiting_page.state = 'running' then
    return query
      select task, q.name, range.attempt::int, l.at
      from
        rowlock.queue q
        join rowlock.lease l on l.queue = q.id,
        unnest(l.firsts, l.ns, l.attempts) range(first_id, n, attempt),
        generate_series(range.first_id, range.first_id + range.n - 1) task
      where (waiting_page.queue is null or q.name = waiting_page.queue)
        and (not q.restricted or rowlock.has_permission('reader', q.id))
        and task > coalesce(waiting_page.after, 0)
        and task <> all (l.settled)
      order by task
      limit waiting_page.most;
  else
    return query
      select page.id, q.name, page.attempt::int, page.run_at
      from
        rowlock.queue q,
        lateral (
          select d.id, d.attempt, d.run_at
          from rowlock.delayed d
          where d.queue = q.id
            and d.waits = case waiting_page.state when 'scheduled' then 0 else 1 end::smallint
            and d.id > coalesce(waiting_page.after, 0)
          order by d.id
          limit waiting_page.most
        ) page
      where (waiting_page.queue is null or q.name = waiting_page.queue)
        and (not q.restricted or rowlock.has_permission('reader', q.id))
      order by page.id
      limit waiting_page.most;
  end if;
end $$;

CREATE FUNCTION rowlock.waiting_suspects() RETURNS TABLE(queue integer, n bigint, oldest_seconds double precision)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION rowlock.watermark_max_lead() RETURNS bigint
    LANGUAGE sql IMMUTABLE
    RETURN 1000000;

CREATE FUNCTION rowlock.with_ids(number integer) RETURNS text
    LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN (number < 48) THEN 't.id = any ($1)'::text ELSE 't.id = any ((select $1)::bigint[]) and t.id >= $2 and t.id <= $3'::text END;

CREATE FUNCTION rowlock.write_outcomes(queue integer, instance bigint, places integer[], ids bigint[], outcomes smallint[], attempts smallint[], priorities smallint[], delays_ms bigint[], texts text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
  v_ids bigint[];
  v_attempts smallint[];
  v_priorities smallint[];
begin
  -- Completed.
  select array_agg(item.id), array_agg((item.attempt + 1)::smallint)
    into v_ids, v_attempts
    from unnest(write_outcomes.ids, write_outcomes.outcomes, write_outcomes.attempts)
      item(id, outcome, attempt)
    where item.outcome = 1;
  if v_ids is not null then
    perform rowlock.write_receipt(
      write_outcomes.queue, write_outcomes.instance, 1::smallint, v_ids, v_attempts
    );
    if cardinality(write_outcomes.texts) > 0 then
      insert into rowlock.result (id, value)
        select item.id, (write_outcomes.texts)[item.place]
        from unnest(write_outcomes.places, write_outcomes.ids, write_outcomes.outcomes)
          item(place, id, outcome)
        where item.outcome = 1 and (write_outcomes.texts)[item.place] is not null;
    end if;
  end if;
  -- A request to cancel a task has no effect once the task has finished.
  if exists (select 1 from rowlock.cancel_request) then
    delete from rowlock.cancel_request c
      using unnest(write_outcomes.ids, write_outcomes.outcomes) item(id, outcome)
      where c.id = item.id and item.outcome in (1, 3, 6);
  end if;
  if cardinality(v_ids) = cardinality(ids) then
    return;
  end if;
  -- The errors of tasks that are retried or dead.
  insert into rowlock.task_error (id, attempt, instance, error)
    select
      item.id,
      item.attempt + 1,
      write_outcomes.instance,
      coalesce((write_outcomes.texts)[item.place], 'no error was given')
    from unnest(
        write_outcomes.places,
        write_outcomes.ids,
        write_outcomes.outcomes,
        write_outcomes.attempts
      ) item(place, id, outcome, attempt)
    where item.outcome in (2, 3);
  -- Dead.
  insert into rowlock.dead (id, queue, priority, attempt)
    select item.id, write_outcomes.queue, item.priority, item.attempt + 1
    from unnest(
        write_outcomes.ids,
        write_outcomes.outcomes,
        write_outcomes.attempts,
        write_outcomes.priorities
      ) item(id, outcome, attempt, priority)
    where item.outcome = 3;
  -- The handler has answered, so it outlived these tasks. A snooze says nothing about that: a
  -- suspect that is snoozed runs alone again.
  select array_agg(item.id)
    into v_ids
    from unnest(write_outcomes.ids, write_outcomes.outcomes) item(id, outcome)
    where item.outcome in (2, 3);
  if v_ids is not null then
    perform rowlock.clear_suspects(v_ids);
  end if;
  -- To be retried, or snoozed. A snooze uses no attempt.
  insert into rowlock.delayed (id, queue, priority, attempt, waits, run_at, due)
    select
      item.id,
      write_outcomes.queue,
      item.priority,
      item.attempt + (item.outcome = 2)::int,
      1,
      due.at,
      case when s.id is null then due.at else due.at + rowlock.suspect_timeout() end
    from unnest(
        write_outcomes.places,
        write_outcomes.ids,
        write_outcomes.outcomes,
        write_outcomes.attempts,
        write_outcomes.priorities
      ) item(place, id, outcome, attempt, priority)
    cross join lateral (
      select
        now() + least(greatest((write_outcomes.delays_ms)[item.place], 0), 3155760000000)
          * interval '1 millisecond' as at
    ) due
    left join rowlock.suspect s on s.id = item.id
    where item.outcome in (2, 4);
  if 4 = any (write_outcomes.outcomes) then
    insert into rowlock.snooze as s (id, times, first_at, at)
      select item.id, 1, now(), now()
      from unnest(write_outcomes.ids, write_outcomes.outcomes) item(id, outcome)
      where item.outcome = 4
      order by item.id
      on conflict (id) do update set times = s.times + 1, at = now();
    if pg_relation_size('rowlock.suspect') > 0 then
      update rowlock.suspect s
        set due = d.run_at, until = d.due
        from unnest(write_outcomes.ids, write_outcomes.outcomes) item(id, outcome)
        join rowlock.delayed d on d.id = item.id
        where item.outcome = 4 and s.id = item.id;
    end if;
  end if;
  -- Released.
  select array_agg(item.id), array_agg(item.attempt), array_agg(item.priority)
    into v_ids, v_attempts, v_priorities
    from unnest(
        write_outcomes.ids,
        write_outcomes.outcomes,
        write_outcomes.attempts,
        write_outcomes.priorities
      ) item(id, outcome, attempt, priority)
    where item.outcome = 5;
  if v_ids is not null then
    perform rowlock.return_tasks(write_outcomes.queue, v_ids, v_attempts, v_priorities);
  end if;
  -- Cancelled.
  select array_agg(item.id), array_agg(item.attempt)
    into v_ids, v_attempts
    from unnest(write_outcomes.ids, write_outcomes.outcomes, write_outcomes.attempts)
      item(id, outcome, attempt)
    where item.outcome = 6;
  if v_ids is not null then
    perform rowlock.write_receipt(
      write_outcomes.queue, write_outcomes.instance, 3::smallint, v_ids, v_attempts
    );
  end if;
end $$;

CREATE FUNCTION rowlock.write_receipt(queue integer, instance bigint, state smallint, ids bigint[], attempts smallint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
begin
  insert into rowlock.receipt (queue, instance, state, firsts, ns, attempts)
    select
      write_receipt.queue,
      write_receipt.instance,
      write_receipt.state,
      array_agg(range.id order by range.id),
      array_agg(range.n order by range.id),
      array_agg(range.attempt order by range.id)
    from (
      select min(task.id) id, count(*)::smallint n, task.attempt
      from (
        select
          item.*,
          item.id - row_number() over (
            partition by item.attempt order by item.id
          ) run   -- the same for neighbours
        from unnest(write_receipt.ids, write_receipt.attempts) item(id, attempt)
      ) task
      group by task.attempt, task.run, task.id >> 8
    ) range
    group by range.id >> 33;
  -- Only a task that is older than ten minutes can be kept: see rowlock.empty_task_partition.
  if write_receipt.state <> 2
    and (select min(task.id) from unnest(write_receipt.ids) task(id))
      < rowlock.id_at(now() - interval '10 minutes') then
    update rowlock.task_kept kept
      set finished_at = now()
      where kept.id = any (write_receipt.ids);
  end if;
  if pg_relation_size('rowlock.snooze') > 0 then
    delete from rowlock.snooze s where s.id = any (write_receipt.ids);
  end if;
  perform rowlock.clear_suspects(write_receipt.ids);
end $$;

CREATE FUNCTION rowlock.write_suspects(queue integer, instance bigint, ids bigint[], attempts smallint[], priorities smallint[]) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
  with noted as (
    insert into rowlock.suspect as s (id, queue, due, until)
      select item.id, write_suspects.queue, first.due, first.due + rowlock.suspect_timeout()
      from
        unnest(write_suspects.ids) item(id),
        (select now() + rowlock.suspect_delay(0) as due) first
      order by item.id
      on conflict (id) do update
        set
          alone = s.alone + 1,
          due = now() + rowlock.suspect_delay(s.alone + 1),
          until = now() + rowlock.suspect_delay(s.alone + 1) + rowlock.suspect_timeout()
      returning s.id, s.alone
  )
  insert into rowlock.task_error (id, attempt, instance, error)
    select
      noted.id,
      0,
      write_suspects.instance,
      case noted.alone
        when 0 then 'the handler ended while this task ran; it runs alone next'
        else format(
          'the handler ended while this task ran alone (%s of %s times)',
          noted.alone,
          rowlock.suspect_limit()
        )
      end || '; no attempt was used'
    from noted;
  select rowlock.delay_suspects(
    write_suspects.queue, write_suspects.ids, write_suspects.attempts, write_suspects.priorities
  )
$$;

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
    payload json NOT NULL,
    trace text
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
    trace text,
    finished_at timestamp with time zone
);

CREATE VIEW rowlock.every_task AS
 SELECT t.id,
    t.queue,
    t.k_low,
    t.priority,
    t.max_attempts,
    t.type,
    t.payload,
    t.trace
   FROM rowlock.task t
UNION ALL
 SELECT k.id,
    k.queue,
    k.k_low,
    k.priority,
    k.max_attempts,
    k.type,
    k.payload,
    k.trace
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
    runs integer DEFAULT 0 NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    run_seconds real DEFAULT 0 NOT NULL,
    run_seconds_squared real DEFAULT 0 NOT NULL,
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
    settled bigint[] DEFAULT '{}'::bigint[] NOT NULL
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
    attempts smallint[] NOT NULL
)
PARTITION BY RANGE (at);

CREATE TABLE rowlock.result (
    at timestamp with time zone DEFAULT now() NOT NULL,
    id bigint NOT NULL,
    value text NOT NULL
)
PARTITION BY RANGE (at);

CREATE TABLE rowlock.scaling_decision (
    queue integer NOT NULL,
    number bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    pods_before integer NOT NULL,
    pods integer NOT NULL,
    workers integer NOT NULL,
    reason text NOT NULL,
    demand integer,
    waiting bigint,
    running bigint,
    arrivals_per_second double precision,
    service_seconds double precision,
    service_assumed boolean,
    pod_start_seconds double precision,
    for_rate double precision,
    for_backlog double precision,
    detail text,
    CONSTRAINT scaling_decision_detail_check CHECK ((length(detail) <= 500)),
    CONSTRAINT scaling_decision_pods_before_check CHECK ((pods_before >= 0)),
    CONSTRAINT scaling_decision_pods_check CHECK ((pods >= 0)),
    CONSTRAINT scaling_decision_reason_check CHECK ((reason ~ '^[A-Za-z]{1,40}$'::text)),
    CONSTRAINT scaling_decision_workers_check CHECK ((workers >= 0))
);

CREATE TABLE rowlock.snooze (
    id bigint NOT NULL,
    times integer NOT NULL,
    first_at timestamp with time zone NOT NULL,
    at timestamp with time zone NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_cost_delay='0');

CREATE TABLE rowlock.suspect (
    id bigint NOT NULL,
    queue integer NOT NULL,
    alone smallint DEFAULT 0 NOT NULL,
    due timestamp with time zone NOT NULL,
    until timestamp with time zone NOT NULL
);

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

ALTER TABLE ONLY rowlock.scaling_decision
    ADD CONSTRAINT scaling_decision_pkey PRIMARY KEY (queue, number);

ALTER TABLE ONLY rowlock.snooze
    ADD CONSTRAINT snooze_pkey PRIMARY KEY (id);

ALTER TABLE ONLY rowlock.suspect
    ADD CONSTRAINT suspect_pkey PRIMARY KEY (id);

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

CREATE INDEX scaling_decision_at ON rowlock.scaling_decision USING btree (queue, at);

CREATE INDEX suspect_due ON rowlock.suspect USING btree (queue, due);

CREATE INDEX task_error_id ON ONLY rowlock.task_error USING btree (id);

CREATE INDEX task_error_kept_id ON rowlock.task_error_kept USING btree (id);

CREATE INDEX task_kept_finished ON rowlock.task_kept USING btree (queue, finished_at) WHERE (finished_at IS NOT NULL);

CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON rowlock.delayed DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rowlock.on_delayed();

CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON rowlock.ready DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rowlock.on_ready();

REVOKE ALL ON FUNCTION rowlock.allocate(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.append_range(r rowlock.ready, id bigint, n integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.arrivals(queue text, ago_seconds double precision, before bigint, most integer) FROM PUBLIC;

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

REVOKE ALL ON FUNCTION rowlock.calling_role() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.cancel(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.cancel_all(ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.check_ending(instance bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.check_marking(instance bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.check_options(options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.check_transaction_limit(q rowlock.queue, setting text, added bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.chunk_of(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.claim(instance bigint, want integer, watermarks bigint[], start integer, token bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.claim_suspect(instance bigint, token bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.claim_with_payloads(instance bigint, want integer, watermarks bigint[], start integer, token bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.clear_queue(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.clear_suspects(ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.clock_is_steady() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.clock_stepped(seen_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.concerns_all_rows(state text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.copy_tasks(part text, ids bigint[], finished timestamp with time zone[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.copy_unexpired_tasks(part text, lo bigint, hi bigint, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.declare_queue(name text, owner text, generation bigint, policy json, max_attempts integer, total_workers integer, paused boolean, backlog_limit bigint, payload_limit integer, keep_completed interval, keep_dead interval, keep_cancelled interval, max_delay interval, adopts text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.delay_suspects(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.delete_expired_tasks(most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.delete_old_scaling_decisions(most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.delete_queue(queue text, force boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.describe_task(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.drain(instance bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.drain_mark_duration() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.drain_pods(queue text, owner text, pods uuid[], ranks integer[], most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.due_time(options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.empty_other_partitions() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.empty_task_partition(most integer, skipped text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.end_lease(token bigint, ids bigint[], left_ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.end_lost_instance(instance bigint, why text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.end_maintenance(cleanup boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.enough_suspects_run(queue integer) FROM PUBLIC;

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

REVOKE ALL ON FUNCTION rowlock.far_future_after() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock."fetch"(token bigint, ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.fill_partition_gap(parent text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.find_lease(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.find_ready(queue integer, priority smallint, id bigint, k_low integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.find_receipt(queue integer, id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.find_state(id bigint, queue integer, priority smallint, k_low integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.finished_page(queue text, state smallint, after bigint, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.grant_role(role name, permission text, queues text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.handle_late_commit(r rowlock.ready) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.has_partition() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.has_permission(permission text, queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.heartbeat(instance bigint, held integer, allocated integer, allocation bigint, wants integer, watermarks bigint[], idle boolean, runs integer, failures integer, run_seconds real, run_seconds_squared real) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.id_at(t timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.id_time(i bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.instance_slots(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.interruption_limit() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.is_draining(drain_until timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.is_silent(instance bigint, heartbeat bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock."join"(queue text, name text, capacity integer, pod uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.keep_watermarks() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.least_k(queue integer, watermarks bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.leave(instance bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.list_tasks(queue text, state text, after bigint, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.maintain(watermark timestamp with time zone, most integer, check_limits boolean, read_heartbeats boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.make_partition(parent text, lo timestamp with time zone, hi timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.make_partitions() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.mark_finished(most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.max_attempts(queue integer, ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.move_due(watermark timestamp with time zone, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.move_kept_errors(most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.move_missed(queue integer, exact bigint[], quick bigint[], most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.mutex_holders() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.name_handler_end(queue text, owner text, pod uuid, how text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.newest_heartbeats() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.newly_dead(queue integer, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.oldest_by_priority(queue integer, watermarks bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.on_delayed() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.on_ready() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.partition_statistics() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.partition_width() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.partitions_of(parent text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.partitions_until() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.permission_functions() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.pod_runs(queue text, owner text, new_pods uuid[], old_pods uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.policy(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.producer_trace(trace text, options jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.published_watermarks(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.ran_alone(ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.readable_queue(name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.recent_arrivals() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.record_scaling_decisions(decisions json) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_delay(q rowlock.queue) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_far_future(q rowlock.queue) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_full(q rowlock.queue) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_null(what text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_payload(q rowlock.queue, bytes integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_permission(permission text, queue text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_type(type text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.refuse_unknown_queue(queue text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.release_lease(instance bigint, queue integer, token bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.release_tasks(queue integer, instance bigint, ids bigint[], attempts smallint[], priorities smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.release_unknown_leases(instance bigint, known bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.remove_from_range(queue integer, priority smallint, id bigint, k_low integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.renew_grants() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.requeue(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.requeue_one_by_one(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.requeue_together(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.require_read_committed() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.require_worker(queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.rescue(instance bigint, heartbeat bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.rescue_after() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.rescue_pod(queue text, owner text, pod uuid, how text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.retry(queue text, ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.return_tasks(queue integer, ids bigint[], attempts smallint[], priorities smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.revoke_role(role name, permission text) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.running() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.sample_percent(what regclass) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.scaling_decisions(queue text, as_of timestamp with time zone, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.settle(instance bigint, tokens bigint[], ids bigint[], outcomes smallint[], delays_ms bigint[], texts text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.settle_lost_tasks(queue integer, instance bigint, name text, why text, drains boolean, ids bigint[], attempts smallint[], priorities smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.statistics() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.suspect_delay(alone integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.suspect_due(queue integer, held integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.suspect_limit() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.suspect_timeout() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.take_back(queue integer, instance bigint, name text, why text, drains boolean, ids bigint[], attempts smallint[], priorities smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.take_back_left_tasks() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.task_errors(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.task_state(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.tasks_of_pods(queue integer, pods uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.try_mutex(operation integer, queue integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.unsettled_tasks(token bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.update_backlog_limits() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.waiting_page(queue text, state text, after bigint, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.waiting_suspects() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.watermark_max_lead() FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.with_ids(number integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.write_outcomes(queue integer, instance bigint, places integer[], ids bigint[], outcomes smallint[], attempts smallint[], priorities smallint[], delays_ms bigint[], texts text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.write_receipt(queue integer, instance bigint, state smallint, ids bigint[], attempts smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION rowlock.write_suspects(queue integer, instance bigint, ids bigint[], attempts smallint[], priorities smallint[]) FROM PUBLIC;
