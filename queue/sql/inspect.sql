-- Reads one task. `task_state`, `describe_task` and `task_errors` are called by people and programs
-- (queue/src/inspect.rs); the rest by other functions. The functions that read one task or a page
-- of a list use a generic plan: planning with the id in it read more pages than the query itself.

-- Every task once, in whichever table it is. (Not by an anti-join, which would read all partitions
-- to find one task.)
create or replace view rowlock.every_task as
  select t.id, t.queue, t.k_low, t.priority, t.max_attempts, t.type, t.payload, t.trace
  from rowlock.task t
  union all
  select k.id, k.queue, k.k_low, k.priority, k.max_attempts, k.type, k.payload, k.trace
  from rowlock.task_kept k
  where (select t.id from rowlock.task t where t.id = k.id) is null;

-- The range that holds an available task. It is found by the k with which the task was enqueued, or
-- by its id if it was moved. (An index by id over all ranges would make every enqueue 5% slower.)
-- The task's row has the lower half of k. The upper half is that of the newest k, or one less.
create or replace function rowlock.find_ready(queue int, priority smallint, id bigint, k_low int)
returns setof rowlock.ready
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
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

-- The receipt that holds a task. Most are written within an hour of enqueuing. After that hour, the
-- time up to now is searched, and at last all times, for receipts that were written while the clock
-- was ahead.
create or replace function rowlock.find_receipt(queue int, id bigint)
returns table (at timestamptz, instance bigint, state smallint, attempt smallint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
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

-- The lease that holds a task.
create or replace function rowlock.find_lease(id bigint)
returns table (instance bigint, attempt smallint)
language sql stable
set search_path = pg_catalog, pg_temp
set jit = off
as $$
  select l.instance, range.attempt
  from
    rowlock.lease l,
    unnest(l.firsts, l.ns, l.attempts) range(first_id, n, attempt)
  where find_lease.id >= range.first_id
    and find_lease.id < range.first_id + range.n
    and find_lease.id <> all (l.settled)
  limit 1
$$;

-- The state of a task whose queue, priority and k_low the caller knows. A statement that moves a
-- task deletes it in one table and inserts it in another, in one snapshot. All queries here share
-- one snapshot too, so a task is seen in exactly one table. Their order does not matter; the cheap
-- ones come first. 'untraced': the task is in no table, which is a bug.
create or replace function rowlock.find_state(id bigint, queue int, priority smallint, k_low int)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
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

-- scheduled, available, running, retryable, completed, dead or cancelled. Null: there is no such
-- task, or the caller has no permission for its queue. 'untraced': see rowlock.find_state.
create or replace function rowlock.task_state(id bigint)
returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
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

-- All details of a task.
create or replace function rowlock.describe_task(id bigint)
returns table (
  queue text,
  type text,
  state text,
  priority smallint,
  attempt int,
  max_attempts smallint,
  enqueued_at timestamptz,
  due_at timestamptz,
  finished_at timestamptz,
  instance text,
  payload text,
  result text,
  snoozes int,
  first_snoozed_at timestamptz,
  snoozed_at timestamptz,
  suspect boolean,
  trace_id text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
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

-- The errors of a task's attempts, the oldest first. Attempt 0 is an interruption.
create or replace function rowlock.task_errors(id bigint)
returns table (at timestamptz, attempt smallint, instance text, error text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
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
