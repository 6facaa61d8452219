-- For administrators, the operator and audits: declare, statistics, one task's details, cancel, retry.

-- What a TaskQueue declares. `owner` names the control plane and the TaskQueue: another one is refused until it adopts the queue, naming the
-- owner it takes it from: an adoption that was written down and forgotten takes nothing back.
create or replace function rowlock.declare_queue(name text, owner text, generation bigint, policy json, max_attempts int, total_workers int, paused boolean,
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
