-- What a lease still holds, as parallel arrays.
create or replace function rowlock.unsettled(token bigint) returns table (ids bigint[], attempts smallint[], priorities smallint[])
language sql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
  select array_agg(g.id), array_agg(u.attempt), array_agg(u.priority)
  from rowlock.lease l, unnest(l.firsts, l.ns, l.attempts, l.priorities) u(f, n, attempt, priority), generate_series(u.f, u.f + u.n - 1) g(id)
  where l.token = $1 and g.id <> all (l.settled)
$$;

-- Hands back what a lease still holds, without using an attempt; cancelled where somebody asked for that. The lease's row is locked by the caller.
create or replace function rowlock.release_lease(instance bigint, queue int, token bigint) returns int language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare u record;
begin
  select * into u from rowlock.unsettled($3);
  if u.ids is not null then
    perform rowlock.write_outcomes($2, $1, array_fill(1, array[cardinality(u.ids)]), u.ids,
      (select array_agg(case when c.id is null then 5 else 6 end::smallint order by x.p) from unnest(u.ids) with ordinality x(id, p) left join rowlock.cancel_request c on c.id = x.id),
      u.attempts, u.priorities, '{0}', '{}');
  end if;
  delete from rowlock.lease x where x.token = $3;
  return coalesce(cardinality(u.ids), 0);
end $$;

-- Leases over a minute old that the instance does not know: of a claim that ran after its asker had given it up.
create or replace function rowlock.release_unknown_leases(instance bigint, known bigint[]) returns int language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare l record; back int := 0;
begin
  perform rowlock.require_read_committed();
  perform rowlock.require_worker(i.queue) from rowlock.instance i where i.id = $1;
  for l in select x.token, x.queue from rowlock.lease x
      where x.instance = $1 and x.at < now() - interval '1 minute' and x.token <> all ($2) order by x.token for update loop
    back := back + rowlock.release_lease($1, l.queue, l.token);
  end loop;
  return back;
end $$;
