-- For administrators, the operator and audits: declare, statistics, one task's details, cancel, retry.

-- What a TaskQueue declares. `owner` names the control plane and the TaskQueue: another one is refused until it adopts the queue, naming the
-- owner it takes it from: an adoption that was written down and forgotten takes nothing back.
create function rowlock.declare_queue(name text, owner text, generation bigint, policy json, max_attempts int, total_workers int, paused boolean,
  backlog_limit bigint, payload_limit int, keep_completed interval, keep_dead interval, keep_cancelled interval, max_delay interval,
  adopts text default null)
returns int language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
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
end $$;

-- How many tasks run in each queue: those of the leases, or where the table is large (rows that died beside an old transaction) what the newest
-- heartbeats say they hold. An instance whose heartbeats have stopped is counted by its leases.
create function rowlock.running() returns table (queue int, n bigint) language plpgsql stable
set search_path = pg_catalog, pg_temp set jit = off as $$
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

-- Since when the oldest available task of each priority, 0 to 3, has been so, in seconds since 2024: by the first of each shard.
create function rowlock.oldest_by_priority(queue int) returns int[] language sql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
  select array_agg(f.since order by p) from coalesce(rowlock.published_watermarks($1), array_fill(0::bigint, array[16])) watermarks cross join generate_series(0, 3) p
  left join lateral (
    select min(y.since) since from generate_series(0, 3) s, lateral (
      select r.since from rowlock.ready r where r.queue = $1 and r.shard = s::smallint and r.lane = 0 and r.priority = p::smallint and r.k >= watermarks[p * 4 + s + 1]
      order by r.k limit 1) y) f on true
$$;

-- All queues of the database in one statement. What is ready, delayed or dead is estimated where it is much: see rowlock.backlog().
create function rowlock.statistics() returns table (queue int, name text, paused boolean, total_workers int, available bigint, scheduled bigint, retryable bigint, due_soon bigint,
  running bigint, dead bigint, oldest_seconds double precision, completed bigint, arrivals bigint, instances bigint, allocated bigint, busy bigint, service_ms double precision,
  oldest_by_priority double precision[])
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
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

-- A task wherever it is kept, once. (Not by an anti-join, which would read all partitions to find one task.)
create view rowlock.every_task as
  select t.id, t.queue, t.k_low, t.priority, t.max_attempts, t.type, t.payload from rowlock.task t
  union all select k.id, k.queue, k.k_low, k.priority, k.max_attempts, k.type, k.payload from rowlock.task_kept k
  where (select t.id from rowlock.task t where t.id = k.id) is null;

-- What looks at one task, or a page of a list, is planned once: planning it with the id in it read more pages than the look itself.

-- The range that holds a task which is ready: by the k that it was enqueued with, or by its id where it was moved. An index by id for all
-- would cost every enqueue a twentieth. Of k the task's row tells the lower half; the upper one is the newest k's, or one less.
create function rowlock.find_ready(queue int, priority smallint, id bigint, k_low int) returns setof rowlock.ready language plpgsql stable
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
create function rowlock.find_receipt(queue int, id bigint) returns table (at timestamptz, instance bigint, state smallint, attempt smallint)
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
create function rowlock.find_lease(id bigint) returns table (instance bigint, attempt smallint) language sql stable
set search_path = pg_catalog, pg_temp set jit = off as $$
  select l.instance, u.attempt from rowlock.lease l, unnest(l.firsts, l.ns, l.attempts) u(f, n, attempt)
  where $1 >= u.f and $1 < u.f + u.n and $1 <> all (l.settled) limit 1
$$;

-- The state of a task, whose queue, priority and k_low the caller knows. Movers delete and insert in one statement's snapshot, and all looks here
-- share one, so a task is seen in exactly one place: their order says nothing, and the cheap ones come first.
create function rowlock.state_of(id bigint, queue int, priority smallint, k_low int) returns text language plpgsql stable
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
create function rowlock.task_state(id bigint) returns text language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
declare t record;
begin
  select x.queue, x.priority, x.k_low into t from rowlock.every_task x where x.id = $1;
  if not found or exists (select 1 from rowlock.queue q where q.id = t.queue and q.restricted and not rowlock.has_permission(null, q.id)) then return null; end if;
  return rowlock.state_of($1, t.queue, t.priority, t.k_low);
end $$;

create function rowlock.describe_task(id bigint) returns table (queue text, type text, state text, priority smallint, attempt int, max_attempts smallint, enqueued_at timestamptz,
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

create function rowlock.task_errors(id bigint) returns table (at timestamptz, attempt smallint, instance text, error text)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select f.at, f.attempt, coalesce(i.name, ''), f.error
  from (select at, id, attempt, instance, error from rowlock.task_error where id = $1 union all select at, id, attempt, instance, error from rowlock.task_error_kept where id = $1) f
  join rowlock.every_task t on t.id = $1 join rowlock.queue q on q.id = t.queue and (not q.restricted
      or rowlock.has_permission('reader', q.id))
  left join rowlock.instance i on i.id = f.instance order by f.at, f.attempt
$$;

-- A page of the tasks of a state, after that one. Available ones come as they are claimed; completed and cancelled ones of the last day, the
-- newest first; all others by id. Each queue is asked for one page, by index.
create function rowlock.list_tasks(queue text, state text, after bigint, most int) returns table (id bigint, queue_name text, type text, attempt int, at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
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
end $$;

create function rowlock.waiting_page(queue text, state text, after bigint, most int) returns table (id bigint, name text, attempt int, at timestamptz)
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
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
end $$;

-- `after` has its place where it is ready, or where it was when it was enqueued.
create function rowlock.available_page(queue text, after bigint, most int) returns table (id bigint, name text, attempt int, at timestamptz)
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
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
end $$;

-- `after` has its place by when its receipt was written.
create function rowlock.finished_page(queue text, state smallint, after bigint, most int) returns table (id bigint, name text, attempt int, at timestamptz)
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
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
end $$;

-- The request is recorded first and every mover looks at it (R20). Answers 'cancelled', 'requested' (it runs: its instance is told), 'finished' or null.
create function rowlock.cancel(id bigint) returns text language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
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
end $$;

-- Takes a task out of the range that holds it; the others keep their order. Answers with its attempts, or null where it has moved. In the
-- middle of a range, what lies behind gets a k between its own and the next that a sequence may give to that shard; where there is none left,
-- after two or three such cuts, the smaller half goes to the end.
create function rowlock.take_ready(queue int, priority smallint, id bigint, k_low int) returns smallint language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
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
end $$;

-- A part of a range, behind all that is ready.
create function rowlock.put_last(r rowlock.ready, id bigint, n int) returns void language plpgsql volatile
set search_path = pg_catalog, pg_temp set jit = off as $$
declare v_k bigint := nextval('rowlock.k_seq');
begin
  insert into rowlock.ready (queue, shard, lane, priority, since, k, id, n, attempt, fresh, moved)
    values (r.queue, v_k & 3, r.lane, r.priority, r.since, v_k, $2, $3, r.attempt, false, rowlock.chunk_of($2));
end $$;

-- Cancels many, in the order of their ids, so that two such calls lock the same ranges in the same order:
-- `select rowlock.cancel(id) from …` takes them as they come, and two of those may wait for each other.
create function rowlock.cancel_all(ids bigint[]) returns table (id bigint, outcome text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  for id in select distinct u.id from unnest($1) u(id) order by 1 loop
    outcome := rowlock.cancel(id);
    return next;
  end loop;
end $$;

-- Dead tasks become available again, with all their attempts. `ids` null: every dead task of the queue, at most 10,000 a call.
create function rowlock.retry(queue text, ids bigint[]) returns bigint language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set jit = off as $$
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
end $$;

-- Takes away what a queue holds, with evidence: what is unfinished is cancelled, what is dead deleted.
create function rowlock.clear_queue(queue int) returns bigint language plpgsql volatile set search_path = pg_catalog, pg_temp set jit = off as $$
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
end $$;

-- For administrators: a queue that no TaskQueue declares any more. Refused while instances live or tasks are unfinished, unless forced: then the instances
-- are gone and the tasks cancelled. Answers with how many those were. Payloads and receipts go with their partitions.
create function rowlock.delete_queue(queue text, force boolean default false) returns bigint language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '1s' set jit = off as $$
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
end $$;

-- enqueued = completed + dead + cancelled + open, of the tasks that are still kept. `untraced` above zero is an alarm.
create function rowlock.audit() returns table (queue text, enqueued bigint, completed bigint, dead bigint, cancelled bigint, open bigint, untraced bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
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
