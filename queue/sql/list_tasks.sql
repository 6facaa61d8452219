-- A page of the tasks of a state, after that one. Available ones come as they are claimed; completed and cancelled ones of the last day, the
-- newest first; all others by id. Each queue is asked for one page, by index.
create or replace function rowlock.list_tasks(queue text, state text, after bigint, most int) returns table (id bigint, queue_name text, type text, attempt int, at timestamptz)
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

create or replace function rowlock.waiting_page(queue text, state text, after bigint, most int) returns table (id bigint, name text, attempt int, at timestamptz)
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
create or replace function rowlock.available_page(queue text, after bigint, most int) returns table (id bigint, name text, attempt int, at timestamptz)
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
create or replace function rowlock.finished_page(queue text, state smallint, after bigint, most int) returns table (id bigint, name text, attempt int, at timestamptz)
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
