-- Dead tasks become available again, with all their attempts. `ids` null: every dead task of the queue, at most 10,000 a call.
create or replace function rowlock.retry(queue text, ids bigint[]) returns bigint language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set jit = off as $$
#variable_conflict use_column
declare q record; n bigint := 0;
begin
  perform rowlock.require_read_committed();
  if $1 is null and $2 is null then
    raise exception 'neither a queue nor ids were given' using errcode = 'RL005', hint = 'Name the queue whose dead tasks are to run again, or list their ids.';
  end if;
  if $1 is not null and not exists (select 1 from rowlock.queue y where y.name = $1) then perform rowlock.refuse_unknown_queue($1); end if;
  for q in
    with back as (delete from rowlock.dead d where d.id in (
        select x.id from rowlock.dead x join rowlock.queue y on y.id = x.queue where ($1 is null or y.name = $1) and ($2 is null or x.id = any ($2)) order by x.id limit 10000 for update of x skip locked) returning d.*)
    select b.queue, array_agg(b.id order by b.id) ids, array_agg(0::smallint) attempts, array_agg(b.priority order by b.id) priorities from back b group by b.queue
  loop
    begin
      perform rowlock.requeue(q.queue, q.ids, q.attempts, q.priorities);
    exception when others then
      perform rowlock.requeue_singly(q.queue, q.ids, q.attempts, q.priorities);
    end;
    n := n + cardinality(q.ids);
    -- A request that crossed the last attempt's end was for that one.
    delete from rowlock.cancel_request c where c.id = any (q.ids);
    -- It may be put off as often as a new one.
    delete from rowlock.snooze s where s.id = any (q.ids);
  end loop;
  return n;
end $$;
