-- Reads the payloads of claimed tasks. Called by workers after a claim (queue/src/fetch.rs).

-- The condition of a query of rowlock.task for the ids $1, of which $2 is the least and $3 the
-- greatest. Planned with the values in it, such a query locks only their partitions (R18).
-- Planning takes some microseconds for each id, unless they are hidden in a subquery. Then the
-- least and the greatest show the partitions, and the subquery is worth its cost for many ids.
create or replace function rowlock.with_ids(number int)
returns text
language sql immutable
return case
  when with_ids.number < 48 then 't.id = any ($1)'
  else 't.id = any ((select $1)::bigint[]) and t.id >= $2 and t.id <= $3'
end;

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
    where ' || rowlock.with_ids(cardinality(held))
    using held,
      (select min(task.id) from unnest(held) task(id)),
      (select max(task.id) from unnest(held) task(id));
  if exists (select 1 from rowlock.task_kept) then
    return query
      select t.id, t.type, t.payload::text, t.max_attempts, t.trace
      from rowlock.task_kept t
      where t.id = any (held);
  end if;
end $$;
