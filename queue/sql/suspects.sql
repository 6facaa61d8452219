-- Tasks whose handler ended while they ran. Such a suspect waits in `delayed` like a task that is
-- retried, and has a row in `suspect`. An instance claims it from there and runs it alone.
-- `claim_suspect` and `suspect_due` are called by workers and by heartbeat, `name_handler_end` by
-- the operator alone (queue/src/suspects.rs), the rest by the functions that write outcomes.
--
-- A task with a row in `suspect` is in `delayed`, or in a lease that claim_suspect made. So it runs
-- alone whenever it runs.

-- How often the handler may end while a suspect runs alone. The first end may still be a
-- coincidence, such as a node that is short of memory.
create or replace function rowlock.suspect_limit()
returns int
language sql immutable
return 2;

-- How long a suspect waits. `alone`: how often the handler has ended while it ran alone. The first
-- time it is most likely the neighbour of the task that ended the handler.
create or replace function rowlock.suspect_delay(alone int)
returns interval
language sql immutable
return case suspect_delay.alone when 0 then interval '1 second' else interval '1 minute' end;

-- A suspect for which the handler has not answered for this long becomes available like any other
-- task: its instances may be of a release that knows no suspects, there may be too many suspects,
-- or its runs are interrupted again and again. That is when it is due in `delayed`.
create or replace function rowlock.suspect_timeout()
returns interval
language sql immutable
return interval '1 hour';

-- Whether the limit of suspects in progress is reached: those that run, and those whose instance
-- still finishes other tasks. The limit is one for every four instances, so that a queue goes on
-- with its other tasks, and at least one.
create or replace function rowlock.enough_suspects_run(queue int)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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

-- Whether an instance should claim a suspect: one is due, and more may run. An instance that holds
-- tasks waits a little longer, so that an idle one, which has nothing to finish first, takes it.
create or replace function rowlock.suspect_due(queue int, held int)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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

-- Takes the suspect that has been due for longest, unless enough of the queue run. No row: there is
-- none to take. Send it again with the same token if its answer was lost.
create or replace function rowlock.claim_suspect(instance bigint, token bigint)
returns table (id bigint, attempt smallint, priority smallint)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
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

-- Which of the tasks are suspects, and how often the handler has ended while each ran alone, this
-- time included.
create or replace function rowlock.ran_alone(ids bigint[])
returns table (id bigint, times int)
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
  select s.id, s.alone + 1
  from rowlock.suspect s
  where s.id = any (ran_alone.ids)
$$;

-- Records that the handler ended while these tasks ran: they use no attempt, and wait to run alone.
create or replace function rowlock.write_suspects(
  queue int,
  instance bigint,
  ids bigint[],
  attempts smallint[],
  priorities smallint[]
)
returns void
language sql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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

-- Puts suspects where they wait. They become ordinary available tasks at `until`, not at `due`.
create or replace function rowlock.delay_suspects(
  queue int,
  ids bigint[],
  attempts smallint[],
  priorities smallint[]
)
returns void
language sql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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

-- Makes tasks available again. The suspects among them run alone again, and are due at once.
create or replace function rowlock.return_tasks(
  queue int,
  ids bigint[],
  attempts smallint[],
  priorities smallint[]
)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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

-- The handler has answered for these tasks, or they have finished: they are no suspects any more.
create or replace function rowlock.clear_suspects(ids bigint[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
  if pg_relation_size('rowlock.suspect') > 0 then
    delete from rowlock.suspect s where s.id = any (clear_suspects.ids);
  end if;
end $$;

-- Adds to errors of the last minute why the handler ended. The worker of a pod sees only that its
-- handler is gone. The kubelet reports the reason to the operator a moment later. `how`: that
-- reason, such as `OOMKilled, exit code 137`. Returns the number of errors that it was added to,
-- those of tasks that ran in the pod with this UID. It is added once.
create or replace function rowlock.name_handler_end(
  queue text,
  owner text,
  pod uuid,
  how text
)
returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set datestyle = 'ISO, YMD'
set timezone = 'UTC'
as $$
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
end $$;
