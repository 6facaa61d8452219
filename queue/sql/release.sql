-- Returns the tasks of leases without using an attempt. `release_unknown_leases` is called by
-- workers (queue/src/release.rs), the rest by leave and rescue.

-- The tasks that a lease still holds, as parallel arrays.
create or replace function rowlock.unsettled_tasks(token bigint)
returns table (ids bigint[], attempts smallint[], priorities smallint[])
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
  select array_agg(task.id), array_agg(range.attempt), array_agg(range.priority)
  from
    rowlock.lease l,
    unnest(l.firsts, l.ns, l.attempts, l.priorities) range(first_id, n, attempt, priority),
    generate_series(range.first_id, range.first_id + range.n - 1) task(id)
  where l.token = unsettled_tasks.token and task.id <> all (l.settled)
$$;

-- Releases tasks of a lease, which uses no attempt. Tasks with a request to cancel are cancelled.
create or replace function rowlock.release_tasks(
  queue int,
  instance bigint,
  ids bigint[],
  attempts smallint[],
  priorities smallint[]
)
returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select rowlock.write_outcomes(
    release_tasks.queue,
    release_tasks.instance,
    array_fill(1, array[cardinality(release_tasks.ids)]),
    release_tasks.ids,
    (
      -- 5 released, 6 cancelled
      select array_agg(
        case when c.id is null then 5 else 6 end::smallint order by task.number
      )
      from unnest(release_tasks.ids) with ordinality task(id, number)
      left join rowlock.cancel_request c on c.id = task.id
    ),
    release_tasks.attempts,
    release_tasks.priorities,
    '{0}',
    '{}'
  )
$$;

-- Ends a lease, except for the tasks that could not be taken back: they stay leased.
create or replace function rowlock.end_lease(token bigint, ids bigint[], left_ids bigint[])
returns void
language sql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  delete from rowlock.lease l
    where l.token = end_lease.token and cardinality(end_lease.left_ids) = 0;
  update rowlock.lease l
    set settled = l.settled || array(
      select task.id
      from unnest(end_lease.ids) task(id)
      where task.id <> all (end_lease.left_ids)
    )
    where l.token = end_lease.token and cardinality(end_lease.left_ids) > 0
$$;

-- Releases the tasks that a lease still holds, and ends the lease. The caller has locked the
-- lease's row. Returns how many were released.
create or replace function rowlock.release_lease(instance bigint, queue int, token bigint)
returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  held record;
  left_ids bigint[] := '{}';
begin
  select * into held from rowlock.unsettled_tasks(release_lease.token);
  if held.ids is not null then
    left_ids := array(
      select failed.id
      from rowlock.take_back(
        release_lease.queue,
        release_lease.instance,
        null,
        null,
        false,
        held.ids,
        held.attempts,
        held.priorities
      ) failed
    );
  end if;
  perform rowlock.end_lease(release_lease.token, held.ids, left_ids);
  return coalesce(cardinality(held.ids), 0) - cardinality(left_ids);
end $$;

-- Releases leases over a minute old that the instance does not know. They belong to claims that ran
-- after the instance had given up on them.
create or replace function rowlock.release_unknown_leases(instance bigint, known bigint[])
returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  l record;
  released int := 0;
begin
  perform rowlock.require_read_committed();
  perform rowlock.require_worker(i.queue)
    from rowlock.instance i
    where i.id = release_unknown_leases.instance;
  for l in
    select held.token, held.queue
    from rowlock.lease held
    where held.instance = release_unknown_leases.instance
      and held.at < now() - interval '1 minute'
      and held.token <> all (release_unknown_leases.known)
    order by held.token
    for update
  loop
    released := released
      + rowlock.release_lease(release_unknown_leases.instance, l.queue, l.token);
  end loop;
  return released;
end $$;
