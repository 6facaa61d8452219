-- Maintenance: move due tasks, move missed rows, rescue, clean up. Each pass is bounded and taken by one session at a time (a try-lock each).

-- Due tasks become ready. `watermark` is the due time below which nothing is left: see Maintainer in queue/src/maintenance.rs.
create or replace function rowlock.move_due(watermark timestamptz, most int) returns table (moved int, more boolean, next timestamptz)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
#variable_conflict use_column
declare q record; v_moved int := 0; v_ids bigint[];
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(2, 0) then return; end if;
  v_ids := array(select d.id from rowlock.delayed d where d.due >= $1 and d.due <= now() order by d.due, d.id limit $2 for update skip locked);
  for q in
    with gone as (delete from rowlock.delayed d where d.id = any (v_ids) returning d.*)
    select g.queue, c.id is not null as cancelled, array_agg(g.id order by g.due, g.id) ids, array_agg(g.attempt order by g.due, g.id) attempts, array_agg(g.priority order by g.due, g.id) priorities
    from gone g left join rowlock.cancel_request c on c.id = g.id group by 1, 2
  loop
    if q.cancelled then
      perform rowlock.write_receipt(q.queue, null, 3::smallint, q.ids, q.attempts);
      delete from rowlock.cancel_request c where c.id = any (q.ids);
    else
      begin
        perform rowlock.requeue(q.queue, q.ids, q.attempts, q.priorities);
      exception when others then
        perform rowlock.requeue_singly(q.queue, q.ids, q.attempts, q.priorities);
      end;
    end if;
    v_moved := v_moved + cardinality(q.ids);
  end loop;
  return query select v_moved, v_moved >= $2, (select d.due from rowlock.delayed d where d.due >= $1 order by d.due limit 1);
end $$;
