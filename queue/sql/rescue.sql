-- Takes back the tasks of instances that are gone. `rescue` is called by instances only, in their
-- maintenance (queue/src/maintenance.rs). `rescue_pod` is called by the operator only, for a pod
-- that has ended (queue/src/rescue_pod.rs). rowlock.maintain calls `newest_heartbeats`.

-- The number of the newest heartbeat of every live instance. An instance may be rescued if that
-- number has not changed for a whole lease on the caller's own monotonic clock (R4).
create or replace function rowlock.newest_heartbeats()
returns table (instance bigint, heartbeat bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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

-- How old the newest heartbeat of an instance must be for a rescue. It is a lease
-- (queue/src/timeouts.rs), less the time between two heartbeats and the slack of clocks. The caller
-- has measured a whole lease on its own clock. This protects against a caller that has not.
create or replace function rowlock.rescue_after()
returns interval
language sql immutable
return interval '12 seconds';

-- Whether a heartbeat is that old by this server's clock. After the clock was stepped back, the
-- heartbeat is in the future. Then any live instance counts that has sent a heartbeat with a higher
-- number which is that old. (Instances send one a second, so only the newest of each matter.)
create or replace function rowlock.is_silent(instance bigint, heartbeat bigint)
returns boolean
language sql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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

-- Ends an instance that stopped sending heartbeats, and takes its tasks back. `heartbeat` is the
-- number that the caller saw unchanged. Returns the number of those tasks. Null: the instance is
-- alive, has ended, or is being ended.
create or replace function rowlock.rescue(instance bigint, heartbeat bigint)
returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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

-- Ends the live instances of a pod that has ended, without waiting for their leases, and takes
-- their tasks back. The caller has proof: the kubelet reported that every container of the pod with
-- this UID ended, and that none will start again. `how` says how they ended. Returns the number of
-- those tasks. Null: no live instance of that queue and owner runs in the pod. While a statement of
-- the instance is still in progress, it raises lock_not_available: try again.
create or replace function rowlock.rescue_pod(queue text, owner text, pod uuid, how text)
returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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

-- Ends an instance whose row the caller has locked, and takes its tasks back. `why` completes the
-- sentence "instance x …" of their errors. Returns the number of those tasks.
--
-- An instance starts tasks in the order of its claims, and never runs more than its slots. So of
-- the tasks that it holds, those beyond its slots have not started, and use no attempt. (If it had
-- outcomes that it could not write, some of them may have started.)
create or replace function rowlock.end_lost_instance(instance bigint, why text)
returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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

-- How often a task may be interrupted without using an attempt. After that the task itself may be
-- the reason why its instances end.
create or replace function rowlock.interruption_limit()
returns int
language sql immutable
return 10;

-- Settles the tasks of a lost lease, which uses an attempt: available again at once, dead if it was
-- the last attempt, cancelled if that was requested. If the instance was draining when it vanished,
-- its tasks were interrupted: the grace period of its pod was too short for them. That uses no
-- attempt, and is recorded as attempt 0. It also works if the queue's row has been deleted: a task
-- that is not written here would be lost with its lease.
create or replace function rowlock.settle_lost_tasks(
  queue int,
  instance bigint,
  name text,
  why text,
  drains boolean,
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
