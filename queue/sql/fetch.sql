-- The payloads of claimed tasks: of those that a lease with this token holds. Planned anew with the ids in it,
-- so that it locks only the partitions that hold them (R18).
-- VOLATILE, so that the second statement has a snapshot of its own: the first may wait for a cleanup that empties the partition, and sees nothing then.
create or replace function rowlock.fetch(token bigint, ids bigint[])
returns table (id bigint, type text, payload text, max_attempts smallint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare held bigint[] := array(
  select u.id from unnest($2) u(id)
  intersect select g.id
      from rowlock.lease l, unnest(l.firsts, l.ns) r(f, n), generate_series(r.f, r.f + r.n - 1) g(id)
          where l.token = $1);
begin
  return query execute 'select t.id, t.type, t.payload::text, t.max_attempts from rowlock.task t where t.id = any ($1)' using held;
  if exists (select 1 from rowlock.task_kept) then
    return query select t.id, t.type, t.payload::text, t.max_attempts from rowlock.task_kept t
        where t.id = any (held);
  end if;
end $$;
