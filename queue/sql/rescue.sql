-- Takes back the tasks of instances that are gone. `newest_heartbeats` (by way of rowlock.maintain)
-- and `rescue` are called by the maintenance of instances and of the operator.

-- The newest heartbeat of every live instance. An instance may be rescued when that number has not
-- changed for a lease on the caller's own monotonic clock (R4).
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

-- How old the newest heartbeat of an instance must be for a rescue: a lease (queue/src/timeouts.rs), less
-- the time between two heartbeats and the slack of clocks. The caller has measured a whole lease on
-- its own clock; this protects against a caller that claims so and has not.
create or replace function rowlock.rescue_after()
returns interval
language sql immutable
return interval '12 seconds';

-- Whether a heartbeat is that old by this server's clock. After the clock was stepped back the
-- heartbeat lies in the future: then it is enough that any live instance has sent a heartbeat with
-- a higher number which is that old (instances send one a second, so only the newest of each
-- matter).
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
-- number that the caller saw unchanged. Answers how many tasks those were; null: the instance is
-- alive, has ended, or is being ended.
create or replace function rowlock.rescue(instance bigint, heartbeat bigint)
returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
  l record;
  held record;
  rescued int := 0;
  v_name text;
  v_queue int;
  v_drains boolean;
begin
  perform rowlock.require_read_committed();
  -- First without the lock, which would make a live instance believe that it is being ended; then
  -- with it.
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
  update rowlock.instance i
    set ended_at = now(), gone = true
    where i.id = rescue.instance and i.ended_at is null
    returning i.name, i.queue, i.drains into v_name, v_queue, v_drains;
  if not found then
    return null;
  end if;
  for l in
    select lost.token
    from rowlock.lease lost
    where lost.instance = rescue.instance
    order by lost.token
    for update
  loop
    select * into held from rowlock.unsettled_tasks(l.token);
    if held.ids is not null then
      perform rowlock.settle_lost_tasks(
        v_queue,
        rescue.instance,
        v_name,
        v_drains,
        held.ids,
        held.attempts,
        held.priorities
      );
      rescued := rescued + cardinality(held.ids);
    end if;
    delete from rowlock.lease lost where lost.token = l.token;
  end loop;
  return rescued;
end $$;

-- How often a task may be interrupted without using an attempt. After that the task itself may be
-- what ends its instances.
create or replace function rowlock.interruption_limit()
returns int
language sql immutable
return 10;

-- Settles the tasks of a lost lease, which uses an attempt: available again at once, dead if it
-- was the last attempt, cancelled if that was requested. If the instance was draining when it
-- vanished, its tasks were interrupted: its node gave it less time than they need. That uses no
-- attempt, and is recorded as attempt 0. It works without the row of the queue too, which may have
-- been deleted: a task that is not written here would be lost with its lease.
create or replace function rowlock.settle_lost_tasks(
  queue int,
  instance bigint,
  name text,
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
    'lease lost: instance %s stopped sending heartbeats', settle_lost_tasks.name
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
