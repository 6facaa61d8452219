-- Stores a queue as its TaskQueue declares it. Called by the operator and `rowlock dev`
-- (queue/src/declare.rs).

-- Creates or changes a queue, and returns its number. `owner` names the control plane and the
-- TaskQueue. Another owner is refused unless it adopts the queue: `adopts` must name the owner that
-- it takes the queue from. So an adoption that is left in a manifest does not take the queue back
-- later.
create or replace function rowlock.declare_queue(
  name text,
  owner text,
  generation bigint,
  policy json,
  max_attempts int,
  total_workers int,
  paused boolean,
  backlog_limit bigint,
  payload_limit int,
  keep_completed interval,
  keep_dead interval,
  keep_cancelled interval,
  max_delay interval,
  adopts text default null
)
returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v rowlock.queue;
begin
  -- The owner becomes a part of commands that the operator recommends.
  if declare_queue.owner !~ '^[-a-z0-9./ ]{1,200}$' then
    raise exception 'the owner of queue "%" is not valid', declare_queue.name
      using errcode = 'RL005',
        hint = 'Use up to 200 of a-z, 0-9, "-", ".", "/" and spaces.';
  end if;
  select * into v from rowlock.queue q where q.name = declare_queue.name for update;
  if found
    and v.owner <> declare_queue.owner
    and v.owner is distinct from declare_queue.adopts then
    raise exception 'queue "%" belongs to %', declare_queue.name, v.owner
      using errcode = 'RL008',
        hint = 'Choose another queueName, or, in a cluster, set the annotation rowlock.dev/adopt '
          'to that owner.';
  end if;
  if not found then
    -- Waits for a grant in progress. It would not see this queue, and would leave it unrestricted.
    lock table rowlock.access in share mode;
    insert into rowlock.queue (
        name, owner, generation, policy, max_attempts, total_workers, paused, backlog_limit,
        payload_limit, keep_completed, keep_dead, keep_cancelled, max_delay, partitions_until,
        restricted
      )
      values (
        declare_queue.name,
        declare_queue.owner,
        declare_queue.generation,
        declare_queue.policy,
        declare_queue.max_attempts,
        declare_queue.total_workers,
        declare_queue.paused,
        declare_queue.backlog_limit,
        declare_queue.payload_limit,
        declare_queue.keep_completed,
        declare_queue.keep_dead,
        declare_queue.keep_cancelled,
        declare_queue.max_delay,
        rowlock.partitions_until(),
        exists (select 1 from rowlock.access a where a.queue <> 0)
      )
      on conflict (name) do nothing
      returning * into v;
    -- The rows to lock for allocation (5) and sweeps (6). They are made now, so that no session
    -- waits for the first one that needs them.
    insert into rowlock.mutex (operation, queue)
      select operation, v.id
      from generate_series(5, 6) operation
      where v.id is not null
      on conflict do nothing;
    if v.id is null then
      -- Meanwhile another session has created it.
      return rowlock.declare_queue(
        declare_queue.name,
        declare_queue.owner,
        declare_queue.generation,
        declare_queue.policy,
        declare_queue.max_attempts,
        declare_queue.total_workers,
        declare_queue.paused,
        declare_queue.backlog_limit,
        declare_queue.payload_limit,
        declare_queue.keep_completed,
        declare_queue.keep_dead,
        declare_queue.keep_cancelled,
        declare_queue.max_delay,
        declare_queue.adopts
      );
    end if;
  elsif (
      v.owner, v.generation, v.policy::text, v.max_attempts, v.total_workers, v.paused,
      v.backlog_limit, v.payload_limit, v.keep_completed, v.keep_dead, v.keep_cancelled, v.max_delay
    ) is distinct from (
      declare_queue.owner,
      declare_queue.generation,
      declare_queue.policy::text,
      declare_queue.max_attempts,
      declare_queue.total_workers,
      declare_queue.paused,
      declare_queue.backlog_limit,
      declare_queue.payload_limit,
      declare_queue.keep_completed,
      declare_queue.keep_dead,
      declare_queue.keep_cancelled,
      declare_queue.max_delay
    ) then
    update rowlock.queue q
      set
        owner = declare_queue.owner,
        generation = declare_queue.generation,
        policy = declare_queue.policy,
        max_attempts = declare_queue.max_attempts,
        total_workers = declare_queue.total_workers,
        paused = declare_queue.paused,
        backlog_limit = declare_queue.backlog_limit,
        payload_limit = declare_queue.payload_limit,
        keep_completed = declare_queue.keep_completed,
        keep_dead = declare_queue.keep_dead,
        keep_cancelled = declare_queue.keep_cancelled,
        max_delay = declare_queue.max_delay
      where q.id = v.id;
  end if;
  return v.id;
end $$;
