-- Moves due tasks from `delayed` to `ready`. Called by rowlock.maintain, which instances and the
-- operator call. One session at a time moves tasks, at most `most` in a call.

-- `watermark` is the due time below which no task is left: see Maintainer in
-- queue/src/maintenance.rs. Returns how many tasks were moved, whether there may be more, and when
-- the next one is due. No row: another session is doing it.
create or replace function rowlock.move_due(watermark timestamptz, most int)
returns table (moved int, more boolean, next timestamptz)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
  tasks record;
  v_moved int := 0;
  v_ids bigint[];
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(2, 0) then
    return;
  end if;
  v_ids := array(
    select d.id
    from rowlock.delayed d
    where d.due >= move_due.watermark and d.due <= now()
    order by d.due, d.id
    limit move_due.most
    for update skip locked
  );
  for tasks in
    with due as (
      delete from rowlock.delayed d where d.id = any (v_ids) returning d.*
    )
    select
      due.queue,
      c.id is not null as cancelled,
      array_agg(due.id order by due.due, due.id) ids,
      array_agg(due.attempt order by due.due, due.id) attempts,
      array_agg(due.priority order by due.due, due.id) priorities
    from due
    left join rowlock.cancel_request c on c.id = due.id
    group by 1, 2
  loop
    if tasks.cancelled then
      perform rowlock.write_receipt(tasks.queue, null, 3::smallint, tasks.ids, tasks.attempts);
      delete from rowlock.cancel_request c where c.id = any (tasks.ids);
    else
      perform rowlock.requeue(tasks.queue, tasks.ids, tasks.attempts, tasks.priorities);
    end if;
    perform rowlock.clear_suspects(tasks.ids);
    v_moved := v_moved + cardinality(tasks.ids);
  end loop;
  return query
    select
      v_moved,
      v_moved >= move_due.most,
      (
        select d.due
        from rowlock.delayed d
        where d.due >= move_due.watermark
        order by d.due
        limit 1
      );
end $$;
