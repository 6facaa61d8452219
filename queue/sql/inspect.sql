-- A task wherever it is kept, once. (Not by an anti-join, which would read all partitions to find one task.)
create or replace view rowlock.every_task as
  select t.id, t.queue, t.k_low, t.priority, t.max_attempts, t.type, t.payload from rowlock.task t
  union all select k.id, k.queue, k.k_low, k.priority, k.max_attempts, k.type, k.payload from rowlock.task_kept k
  where (select t.id from rowlock.task t where t.id = k.id) is null;

-- What looks at one task, or a page of a list, is planned once: planning it with the id in it read more pages than the look itself.

-- The range that holds a task which is ready: by the k that it was enqueued with, or by its id where it was moved. An index by id for all
-- would cost every enqueue a twentieth. Of k the task's row tells the lower half; the upper one is the newest k's, or one less.
create or replace function rowlock.find_ready(queue int, priority smallint, id bigint, k_low int) returns setof rowlock.ready language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
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
end $$;

-- The receipt that holds a task: most are written within an hour of its enqueuing. Then any other up to now, and at last those of a clock
-- that was ahead.
create or replace function rowlock.find_receipt(queue int, id bigint) returns table (at timestamptz, instance bigint, state smallint, attempt smallint)
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
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
end $$;

-- The lease that holds a task.
create or replace function rowlock.find_lease(id bigint) returns table (instance bigint, attempt smallint) language sql stable
set search_path = pg_catalog, pg_temp set jit = off as $$
  select l.instance, u.attempt from rowlock.lease l, unnest(l.firsts, l.ns, l.attempts) u(f, n, attempt)
  where $1 >= u.f and $1 < u.f + u.n and $1 <> all (l.settled) limit 1
$$;

-- The state of a task, whose queue, priority and k_low the caller knows. Movers delete and insert in one statement's snapshot, and all looks here
-- share one, so a task is seen in exactly one place: their order says nothing, and the cheap ones come first.
create or replace function rowlock.state_of(id bigint, queue int, priority smallint, k_low int) returns text language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
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
end $$;

-- scheduled, available, running, retryable, completed, dead, cancelled; null: no such task; 'untraced': a task without evidence, which is an alarm.
create or replace function rowlock.task_state(id bigint) returns text language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
declare t record;
begin
  select x.queue, x.priority, x.k_low into t from rowlock.every_task x where x.id = $1;
  if not found or exists (select 1 from rowlock.queue q where q.id = t.queue and q.restricted and not rowlock.has_permission(null, q.id)) then return null; end if;
  return rowlock.state_of($1, t.queue, t.priority, t.k_low);
end $$;

create or replace function rowlock.describe_task(id bigint) returns table (queue text, type text, state text, priority smallint, attempt int, max_attempts smallint, enqueued_at timestamptz,
  due_at timestamptz, finished_at timestamptz, instance text, payload text, result text, snoozes int, first_snoozed_at timestamptz, snoozed_at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
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
end $$;

create or replace function rowlock.task_errors(id bigint) returns table (at timestamptz, attempt smallint, instance text, error text)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select f.at, f.attempt, coalesce(i.name, ''), f.error
  from (select at, id, attempt, instance, error from rowlock.task_error where id = $1 union all select at, id, attempt, instance, error from rowlock.task_error_kept where id = $1) f
  join rowlock.every_task t on t.id = $1 join rowlock.queue q on q.id = t.queue and (not q.restricted
      or rowlock.has_permission('reader', q.id))
  left join rowlock.instance i on i.id = f.instance order by f.at, f.attempt
$$;
