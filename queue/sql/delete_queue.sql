-- Deletes a queue that no TaskQueue declares any more. Called by administrators and `rowlock
-- delete` (queue/src/delete_queue.rs).

-- Deletes the contents of a queue and writes receipts: unfinished tasks are cancelled, dead ones
-- deleted. Returns the number of cancelled tasks.
create or replace function rowlock.clear_queue(queue int)
returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  cancelled bigint;
begin
  with ready as (
    delete from rowlock.ready r
      where r.queue = clear_queue.queue
      returning r.id, r.n, r.attempt
  ),
  delayed as (
    delete from rowlock.delayed d
      where d.queue = clear_queue.queue
      returning d.id, d.attempt
  ),
  lease as (
    delete from rowlock.lease l
      where l.queue = clear_queue.queue
      returning l.firsts, l.ns, l.attempts, l.settled
  ),
  unfinished as (
    select id, n, attempt from ready
    union all
    select id, 1::smallint, attempt from delayed
    union all
    select task, 1::smallint, range.attempt
    from
      lease,
      unnest(lease.firsts, lease.ns, lease.attempts) range(first_id, n, attempt),
      generate_series(range.first_id, range.first_id + range.n - 1) task
    where task <> all (lease.settled)
  ),
  written as (
    insert into rowlock.receipt (queue, state, firsts, ns, attempts)
      select
        clear_queue.queue,
        3,   -- cancelled
        array_agg(u.id order by u.id),
        array_agg(u.n order by u.id),
        array_agg(u.attempt order by u.id)
      from unfinished u
      having count(*) > 0
  )
  select coalesce(sum(u.n), 0) into cancelled from unfinished u;
  with dead as (
    delete from rowlock.dead d
      where d.queue = clear_queue.queue
      returning d.id, d.attempt
  )
  insert into rowlock.receipt (queue, state, firsts, ns, attempts)
    select
      clear_queue.queue,
      2,   -- dead and deleted
      array_agg(dead.id order by dead.id),
      array_agg(1::smallint),
      array_agg(dead.attempt order by dead.id)
    from dead
    having count(*) > 0;
  return cancelled;
end $$;

-- Refused while instances live or tasks are unfinished. With `force` the instances are ended and
-- the tasks cancelled. Returns the number of cancelled tasks. Payloads and receipts are deleted
-- with their partitions.
create or replace function rowlock.delete_queue(queue text, force boolean default false)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
set jit = off
as $$
#variable_conflict use_column
declare
  v rowlock.queue;
  i record;
  living bigint;
  cancelled bigint := 0;
begin
  perform rowlock.require_read_committed();
  select * into v from rowlock.queue q where q.name = delete_queue.queue;
  if not found then
    perform rowlock.refuse_unknown_queue(delete_queue.queue);
  end if;
  select count(*)
    into living
    from rowlock.instance live
    where live.queue = v.id and live.ended_at is null;
  if living > 0 and force is not true then
    raise exception 'queue "%" has % instances', delete_queue.queue, living
      using errcode = 'RL009',
        hint = 'Delete its TaskQueue and wait until they have left; force => true ends them.';
  end if;
  begin
    for i in
      select live.id
      from rowlock.instance live
      where live.queue = v.id and live.ended_at is null
      order by live.id
    loop
      perform 1 from rowlock.instance live where live.id = i.id for update;
      update rowlock.instance live
        set ended_at = now(), gone = true
        where live.id = i.id and live.ended_at is null;
    end loop;
    -- Most of the work is done before the table is locked. The lock waits for every transaction
    -- that enqueued or moved tasks, and new ones wait behind it.
    if force then
      cancelled := rowlock.clear_queue(v.id);
    end if;
    lock table rowlock.queue in access exclusive mode;
  exception when lock_not_available then
    raise exception 'queue "%" is being used', delete_queue.queue
      using errcode = 'RL009',
        hint = 'A transaction that enqueued, or a statement of an instance, is open: try again when'
          ' it has ended.';
  end;
  if force is not true and (
    exists (select 1 from rowlock.ready r where r.queue = v.id)
    or exists (select 1 from rowlock.delayed d where d.queue = v.id)
    or exists (select 1 from rowlock.lease l where l.queue = v.id)
  ) then
    raise exception 'queue "%" has unfinished tasks', delete_queue.queue
      using errcode = 'RL009',
        hint = 'Wait until they have finished; force => true cancels them all.';
  end if;
  cancelled := cancelled + rowlock.clear_queue(v.id);
  delete from rowlock.cancel_request c
    using rowlock.every_task t
    where t.id = c.id and t.queue = v.id;
  delete from rowlock.snooze s
    using rowlock.every_task t
    where t.id = s.id and t.queue = v.id;
  delete from rowlock.suspect s where s.queue = v.id;
  delete from rowlock.task_kept t where t.queue = v.id;
  delete from rowlock.scaling_decision d where d.queue = v.id;
  delete from rowlock.mutex m where m.queue = v.id;
  delete from rowlock.queue q where q.id = v.id;
  return cancelled;
end $$;
