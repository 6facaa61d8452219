-- Lists tasks by state, a page at a time. Called by people and programs (queue/src/inspect.rs).

-- Returns up to `most` tasks of a state after the task `after` (null: from the start), of one queue
-- or of all. Available tasks come in the order of claims; completed and cancelled ones of the last
-- day, the newest first; all others by id. For each queue one page is read, by index.
create or replace function rowlock.list_tasks(queue text, state text, after bigint, most int)
returns table (id bigint, queue_name text, type text, attempt int, at timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
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

-- A page of scheduled, retryable, dead or running tasks, by id.
create or replace function rowlock.waiting_page(queue text, state text, after bigint, most int)
returns table (id bigint, name text, attempt int, at timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
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

-- A page of available tasks, in the order of claims. The place of the task `after` is where it is
-- available, or where it was when it was enqueued.
create or replace function rowlock.available_page(queue text, after bigint, most int)
returns table (id bigint, name text, attempt int, at timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
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

-- A page of completed (1) or cancelled (3) tasks of the last day. The place of the task `after` is
-- the time of its receipt.
create or replace function rowlock.finished_page(
  queue text,
  state smallint,
  after bigint,
  most int
)
returns table (id bigint, name text, attempt int, at timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
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
