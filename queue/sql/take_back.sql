-- Takes tasks back from instances that end, and goes on if some of them cannot be written. Called
-- by rescue and release. `take_back_left_tasks` is called by maintenance (queue/src/retention.rs).

-- Makes the tasks available again: as lost ones, or, if `why` is null, as released ones. If that
-- fails, tries each half, so that a damaged row keeps only its own task. Returns the tasks that
-- cannot be written, and why. They must stay leased.
create or replace function rowlock.take_back(
  queue int,
  instance bigint,
  name text,
  why text,
  drains boolean,
  ids bigint[],
  attempts smallint[],
  priorities smallint[]
)
returns table (id bigint, error text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  n int := cardinality(take_back.ids);
  part record;
begin
  if n = 0 then
    return;
  end if;
  begin
    if take_back.why is null then
      perform rowlock.release_tasks(
        take_back.queue,
        take_back.instance,
        take_back.ids,
        take_back.attempts,
        take_back.priorities
      );
    else
      perform rowlock.settle_lost_tasks(
        take_back.queue,
        take_back.instance,
        take_back.name,
        take_back.why,
        take_back.drains,
        take_back.ids,
        take_back.attempts,
        take_back.priorities
      );
    end if;
    return;
  exception when others then
    if rowlock.concerns_all_rows(sqlstate) then
      raise;
    end if;
    if n = 1 then
      raise warning 'task % cannot be taken back: %', take_back.ids[1], sqlerrm;
      return query select take_back.ids[1], sqlerrm;
      return;
    end if;
  end;
  for part in
    select * from (values (1, n / 2), (n / 2 + 1, n)) half(low, high)
  loop
    return query
      select failed.id, failed.error
      from rowlock.take_back(
        take_back.queue,
        take_back.instance,
        take_back.name,
        take_back.why,
        take_back.drains,
        take_back.ids[part.low:part.high],
        take_back.attempts[part.low:part.high],
        take_back.priorities[part.low:part.high]
      ) failed;
  end loop;
end $$;

-- Whether an error is not about the rows of a statement, so that other rows would fail too: a
-- deadlock (40), no memory or disk (53), a lock that others hold (55), a read-only server (25), an
-- end of the session (57), a disk error (58).
create or replace function rowlock.concerns_all_rows(state text)
returns boolean
language sql immutable
return left(state, 2) in ('25', '40', '53', '55', '57', '58');

-- Tries again to take back tasks that stayed leased when their instance ended. Returns those that
-- still cannot be written, and why. The order is random, so that tasks that fail every time do not
-- hold up others.
create or replace function rowlock.take_back_left_tasks()
returns table (id bigint, error text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  l record;
  held record;
  left_ids bigint[];
  errors text[];
begin
  perform rowlock.require_read_committed();
  for l in
    select lost.token, lost.instance, lost.queue, i.name, i.gone, i.drains
    from rowlock.lease lost
    join rowlock.instance i on i.id = lost.instance
    where i.ended_at is not null
    order by random()
    limit 100
    for update of lost skip locked
  loop
    select * into held from rowlock.unsettled_tasks(l.token);
    select
      coalesce(array_agg(failed.id), '{}'), array_agg(failed.error)
      into left_ids, errors
      from rowlock.take_back(
        l.queue,
        l.instance,
        l.name,
        case when l.gone then 'has ended' end,
        l.drains,
        coalesce(held.ids, '{}'),
        held.attempts,
        held.priorities
      ) failed;
    perform rowlock.end_lease(l.token, held.ids, left_ids);
    return query select * from unnest(left_ids, errors);
  end loop;
end $$;
