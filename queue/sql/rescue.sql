-- The newest heartbeat of every live instance: whose number stands still for a lease on the caller's own monotonic clock may be rescued (R4).
create or replace function rowlock.newest_heartbeats() returns table (instance bigint, heartbeat bigint) language sql stable security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
  select i.id, coalesce((select b.n from rowlock.heartbeat b where b.instance = i.id order by b.n desc limit 1), 0) from rowlock.instance i where i.ended_at is null
$$;

-- How long ago the newest heartbeat of an instance must be, at least, for a rescue: a lease (queue/src/timeouts.rs),
-- less the time between two heartbeats and the slack of clocks. The caller has measured a whole lease on its own
-- clock; this is for a caller who says so and has not.
create or replace function rowlock.rescue_after() returns interval language sql immutable return interval '12 seconds';

-- Whether so long has passed since a heartbeat by the clock here. A clock that was stepped back puts that heartbeat
-- into the future: then a heartbeat of anybody counts that came later, by its number, and is old enough (a heartbeat a
-- second, so the newest of each are the ones to look at).
create or replace function rowlock.is_silent(instance bigint, heartbeat bigint) returns boolean language sql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
  select not exists (select 1 from rowlock.heartbeat b where b.instance = $1 and b.n = $2
      and b.at > clock_timestamp() - rowlock.rescue_after())
    or exists (select 1 from rowlock.instance i, lateral (
      select 1 from rowlock.heartbeat x where x.instance = i.id and x.n > $2
        and x.at between clock_timestamp() - interval '1 minute'
            and clock_timestamp() - rowlock.rescue_after() order by x.n desc limit 1) later
      where i.ended_at is null)
$$;

-- Ends an instance that stopped sending heartbeats and takes its tasks back. `heartbeat` is the number the caller saw standing still.
create or replace function rowlock.rescue(instance bigint, heartbeat bigint) returns int language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare l record; u record; rescued int := 0; v_name text; v_queue int; v_drains boolean;
begin
  perform rowlock.require_read_committed();
  -- First without the lock, which would tell an instance that lives that it is gone; then with it.
  if coalesce((select b.n from rowlock.heartbeat b where b.instance = $1 order by b.n desc limit 1), 0) <> $2 then return null; end if;
  if not rowlock.is_silent($1, $2) then return null; end if;
  perform 1 from rowlock.instance i where i.id = $1 and i.ended_at is null for update skip locked;
  if not found then return null; end if;
  if coalesce((select b.n from rowlock.heartbeat b where b.instance = $1 order by b.n desc limit 1), 0) <> $2 then return null; end if;
  update rowlock.instance i set ended_at = now(), gone = true where i.id = $1 and i.ended_at is null returning i.name, i.queue, i.drains into v_name, v_queue, v_drains;
  if not found then return null; end if;
  for l in select x.token from rowlock.lease x where x.instance = $1 order by x.token for update loop
    select * into u from rowlock.unsettled(l.token);
    if u.ids is not null then
      perform rowlock.lose_tasks(v_queue, $1, v_name, v_drains, u.ids, u.attempts, u.priorities);
      rescued := rescued + cardinality(u.ids);
    end if;
    delete from rowlock.lease x where x.token = l.token;
  end loop;
  return rescued;
end $$;

-- So often a task may be interrupted for nothing: from then on it may well be what ends its instances.
create or replace function rowlock.interruption_limit() returns int language sql immutable return 10;

-- A lost lease uses an attempt: ready again at once, dead when it was the last, cancelled when somebody asked for that. An instance that was told to
-- end, and drained when it vanished, was interrupted: its node granted it less time than its tasks take. That uses no attempt, and is recorded as
-- attempt 0. Also where somebody deleted the queue: whatever is not written here is gone with its lease.
create or replace function rowlock.lose_tasks(queue int, instance bigint, name text, drains boolean, ids bigint[], attempts smallint[], priorities smallint[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare outcomes smallint[]; used smallint[]; lost text := format('lease lost: instance %s stopped sending heartbeats', $3);
begin
  select array_agg(case when c.id is not null then 6 when x.attempt + x.costs >= m.max_attempts and x.costs = 1 then 3 else 5 end::smallint order by x.p),
         array_agg(x.costs::smallint order by x.p) into outcomes, used
  from (select u.id, u.attempt, u.p, case when $4 and (select count(*) from rowlock.task_error f where f.id = u.id and f.attempt = 0) < rowlock.interruption_limit() then 0 else 1 end costs
        from unnest($5, $6) with ordinality u(id, attempt, p)) x
  left join rowlock.max_attempts($1, $5) m on m.id = x.id left join rowlock.cancel_request c on c.id = x.id;
  insert into rowlock.task_error (id, attempt, instance, error)
    select x.id, (x.attempt + 1) * x.costs, $2, case x.costs when 1 then lost else format('interrupted: instance %s was ended before it had drained; no attempt was used', $3) end
    from unnest($5, $6, outcomes, used) x(id, attempt, outcome, costs) where x.outcome = 5;
  perform rowlock.write_outcomes($1, $2, array_fill(1, array[cardinality($5)]), $5, outcomes,
    (select array_agg((case x.outcome when 5 then x.attempt + x.costs else x.attempt end)::smallint order by x.p) from unnest($6, outcomes, used) with ordinality x(attempt, outcome, costs, p)),
    $7, '{0}', array[lost]);
end $$;
