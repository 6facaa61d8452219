-- How an instance joins, drains and leaves, and the checks that every function for instances makes.
-- Called by workers (queue/src/instances.rs); heartbeat, claim and settle are in files of their
-- own.
--
-- An instance's id is a number from a sequence, followed by 21 random bits: a failover may rewind
-- the sequence while the process that drew the number still runs. A lock on the instance's row
-- separates its own calls from a rescue (R5): a heartbeat takes it FOR KEY SHARE, a claim that
-- found tasks FOR SHARE, a rescue and a leave FOR UPDATE. Each sees the newest version of the row.
-- A settlement needs no such lock: it locks its leases, which a rescue takes.

-- Raises RL007 under REPEATABLE READ and SERIALIZABLE: the function must see what was committed
-- while it waited for a lock.
create or replace function rowlock.require_read_committed()
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'this function needs READ COMMITTED'
      using errcode = 'RL007',
        hint = 'Begin the transaction with ISOLATION LEVEL READ COMMITTED.';
  end if;
end $$;

-- For an instance whose row could not be locked. Returns false if the instance has ended. If
-- another session is still ending it, raises an error that makes the instance try again, because a
-- rescue or a delete may yet fail.
create or replace function rowlock.check_ending(instance bigint)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
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

-- For a claim that could not lock the row of its instance. Returns true if another session only
-- marks the instance (rowlock.drain_pods), so the claim takes nothing. Raises an error if the
-- instance has ended or is being ended.
create or replace function rowlock.check_marking(instance bigint)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
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

-- Adds an instance to a queue. Its first heartbeat is written with it. `pod` is the UID of the pod
-- that it runs in, if any: the end of that pod ends the instance (rowlock.rescue_pod).
create or replace function rowlock.join(
  queue text,
  name text,
  capacity int,
  pod uuid default null
)
returns rowlock.instance
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
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

-- The policy that instances follow: retries, timeout and so on of their queue.
create or replace function rowlock.policy(queue int)
returns table (generation bigint, policy json, max_attempts smallint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select q.generation, q.policy, q.max_attempts
  from rowlock.queue q
  where q.id = policy.queue
$$;

-- Marks an instance that will claim no more tasks, so that its slots go to others.
create or replace function rowlock.drain(instance bigint)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform rowlock.require_worker(i.queue)
    from rowlock.instance i
    where i.id = drain.instance;
  update rowlock.instance i
    set drains = true
    where i.id = drain.instance and i.ended_at is null and not i.drains;
end $$;

-- Returns every task that the instance holds, without using an attempt, and ends the instance.
-- Returns the number of those tasks. The lock on the instance's row waits for a claim in progress,
-- whose lease would otherwise belong to an ended instance.
create or replace function rowlock.leave(instance bigint)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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
