-- What lies between the exact and the quick watermark is given a new k: claims walk from the quick one and would not see it.
create or replace function rowlock.move_missed(queue int, exact bigint[], quick bigint[], most int) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
#variable_conflict use_column
declare r record; moved_rows int := 0;
begin
  perform rowlock.require_read_committed();
  perform rowlock.require_worker($1);
  if not rowlock.try_mutex(6, $1) then return null; end if;
  for r in
    select x.* from generate_series(0, 3) p, generate_series(0, 3) s, lateral (
      select r.shard, r.priority, r.k from rowlock.ready r where r.queue = $1 and r.shard = s::smallint and r.lane = 0 and r.priority = p::smallint
        and r.k >= $2[p * 4 + s + 1] and r.k < $3[p * 4 + s + 1] order by r.k limit least($4, 10000)
            for update skip locked) x limit least($4, 10000)
  loop
    update rowlock.ready y set k = nextval('rowlock.k_seq'), fresh = false, moved = rowlock.chunk_of(y.id) where y.queue = $1 and y.shard = r.shard and y.lane = 0 and y.priority = r.priority and y.k = r.k;
    moved_rows := moved_rows + 1;
  end loop;
  return moved_rows;
end $$;
