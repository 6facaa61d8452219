-- Gives a new k to tasks that claims would miss. Called by workers (queue/src/watermark_sweep.rs).

-- Claims start at the quick watermark. A range below it, and at or above the exact one, was
-- committed late and gets a new k. At most `most` ranges in a call. Null: another session is doing
-- it.
create or replace function rowlock.move_missed(
  queue int,
  exact bigint[],
  quick bigint[],
  most int
)
returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
  r record;
  moved_rows int := 0;
begin
  perform rowlock.require_read_committed();
  perform rowlock.require_worker(move_missed.queue);
  if not rowlock.try_mutex(6, move_missed.queue) then
    return null;
  end if;
  for r in
    select missed.*
    from
      generate_series(0, 3) p,
      generate_series(0, 3) s,
      lateral (
        select r.shard, r.priority, r.k
        from rowlock.ready r
        where r.queue = move_missed.queue
          and r.shard = s::smallint
          and r.lane = 0
          and r.priority = p::smallint
          and r.k >= move_missed.exact[p * 4 + s + 1]
          and r.k < move_missed.quick[p * 4 + s + 1]
        order by r.k
        limit least(move_missed.most, 10000)
        for update skip locked
      ) missed
    limit least(move_missed.most, 10000)
  loop
    update rowlock.ready missed
      set k = nextval('rowlock.k_seq'), fresh = false, moved = rowlock.chunk_of(missed.id)
      where missed.queue = move_missed.queue
        and missed.shard = r.shard
        and missed.lane = 0
        and missed.priority = r.priority
        and missed.k = r.k;
    moved_rows := moved_rows + 1;
  end loop;
  return moved_rows;
end $$;
