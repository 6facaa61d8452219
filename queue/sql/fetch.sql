-- Reads the payloads of claimed tasks. Called by workers after a claim (queue/src/fetch.rs).

-- Returns only tasks that a lease with this token holds, so that no other session can read
-- payloads. A worker usually asks for all tasks of its lease, in order. Then comparing the arrays
-- is cheaper than an intersection. The unfolded lease is not sorted, because the sort would cost
-- what is saved. If the order differed, the intersection would give the same result.
--
-- The first query is planned at each call with the ids in it, so that it locks only the partitions
-- that hold them (R18). VOLATILE gives the second query another snapshot: the first may wait for a
-- cleanup that empties the partition, and then finds nothing.
create or replace function rowlock.fetch(token bigint, ids bigint[])
returns table (id bigint, type text, payload text, max_attempts smallint, trace text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  lease_token bigint := token;   -- `fetch.token` cannot be written: FETCH is a reserved word
  held bigint[] := array(
    select task.id
    from
      rowlock.lease l,
      unnest(l.firsts, l.ns) range(first_id, n),
      generate_series(range.first_id, range.first_id + range.n - 1) task(id)
    where l.token = lease_token
  );
begin
  if held is distinct from ids then
    held := array(
      select asked.id from unnest(ids) asked(id)
      intersect
      select leased.id from unnest(held) leased(id)
    );
  end if;
  return query execute
    'select t.id, t.type, t.payload::text, t.max_attempts, t.trace
    from rowlock.task t
    where t.id = any ($1)'
    using held;
  if exists (select 1 from rowlock.task_kept) then
    return query
      select t.id, t.type, t.payload::text, t.max_attempts, t.trace
      from rowlock.task_kept t
      where t.id = any (held);
  end if;
end $$;
