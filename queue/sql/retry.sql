-- Makes dead tasks available again. Called by administrators (queue/src/retry.rs).

-- The tasks start again with all their attempts. `ids` null: every dead task of the queue, up to
-- 10,000 in a call. Returns the number of tasks.
create or replace function rowlock.retry(queue text, ids bigint[])
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  tasks record;
  n bigint := 0;
begin
  perform rowlock.require_read_committed();
  if retry.queue is null and retry.ids is null then
    raise exception 'neither a queue nor ids were given'
      using errcode = 'RL005',
        hint = 'Name the queue whose dead tasks to retry, or list their ids.';
  end if;
  if retry.queue is not null
    and not exists (select 1 from rowlock.queue q where q.name = retry.queue) then
    perform rowlock.refuse_unknown_queue(retry.queue);
  end if;
  for tasks in
    with revived as (
      delete from rowlock.dead d
        where d.id in (
          select chosen.id
          from rowlock.dead chosen
          join rowlock.queue q on q.id = chosen.queue
          where (retry.queue is null or q.name = retry.queue)
            and (retry.ids is null or chosen.id = any (retry.ids))
          order by chosen.id
          limit 10000
          for update of chosen skip locked
        )
        returning d.*
    )
    select
      revived.queue,
      array_agg(revived.id order by revived.id) ids,
      array_agg(0::smallint) attempts,
      array_agg(revived.priority order by revived.id) priorities
    from revived
    group by revived.queue
  loop
    perform rowlock.requeue(tasks.queue, tasks.ids, tasks.attempts, tasks.priorities);
    n := n + cardinality(tasks.ids);
    -- A request to cancel that was made while the last attempt ended applied only to that attempt.
    delete from rowlock.cancel_request c where c.id = any (tasks.ids);
    -- The handler may snooze it as often as a new task.
    delete from rowlock.snooze s where s.id = any (tasks.ids);
  end loop;
  return n;
end $$;
