-- Writes the outcomes of attempts. Called by settle and by the other functions that end an attempt:
-- release, rescue, cancel and so on. The numbers of outcomes and states are listed in
-- migrations/0001_tables.sql.

-- Writes the decided outcomes. `places` contains where each task's delay and text are in
-- `delays_ms` and `texts`. A delay is at most 100 years: one that overflowed would fail all the
-- others.
create or replace function rowlock.write_outcomes(
  queue int,
  instance bigint,
  places int[],
  ids bigint[],
  outcomes smallint[],
  attempts smallint[],
  priorities smallint[],
  delays_ms bigint[],
  texts text[]
)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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

-- Records finished tasks in receipts, one for each stretch of 2^33 ids.
create or replace function rowlock.write_receipt(
  queue int,
  instance bigint,
  state smallint,
  ids bigint[],
  attempts smallint[]
)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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

-- How many attempts each task may use. It takes two queries with one snapshot each: the first may
-- wait for a cleanup that empties the partition, and then finds nothing. The first is planned at
-- each call with the ids in it, so that it locks only the partitions that hold them (R18).
create or replace function rowlock.max_attempts(queue int, ids bigint[])
returns table (id bigint, max_attempts smallint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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
end $$;
