-- Chooses the pods that a scale-in ends, and keeps new tasks from them. `drain_pods` is called by
-- the operator alone (queue/src/drain_pods.rs), `is_draining` by claims.

-- How long a mark lasts. The operator repeats it while the scale-in is pending, a few seconds at
-- most. If the operator ends in between, the marked instances claim tasks again after this time.
create or replace function rowlock.drain_mark_duration()
returns interval
language sql immutable
return interval '30 seconds';

-- Whether an instance with this mark gets no tasks. clock_timestamp(), because a claim may have
-- begun before the mark was made.
create or replace function rowlock.is_draining(drain_until timestamptz)
returns boolean
language sql volatile
return coalesce(is_draining.drain_until > clock_timestamp(), false);

-- How many tasks the live instances of these pods hold, by their leases: heartbeats are up to a
-- second old. A pod without an instance holds none.
create or replace function rowlock.tasks_of_pods(queue int, pods uuid[])
returns table (pod uuid, number bigint, marked boolean, held int)
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
  select
    given.pod,
    given.number,
    coalesce(bool_or(i.drain_until > now()), false),
    coalesce(sum(lease.held), 0)::int
  from unnest(tasks_of_pods.pods) with ordinality given(pod, number)
  left join rowlock.instance i
    on i.queue = tasks_of_pods.queue and i.ended_at is null and i.pod = given.pod
  left join lateral (
    select
      sum((select sum(range.n) from unnest(l.ns) range(n)) - cardinality(l.settled)) as held
    from rowlock.lease l
    where l.instance = i.id
  ) lease on true
  group by given.pod, given.number
$$;

-- Chooses the `most` of these pods that hold the fewest tasks, and marks their instances: they
-- claim nothing until the mark lapses, and continue what they run. The marks of the other pods are
-- removed, so `most` = 0 undoes all. `ranks`, one for each pod: Kubernetes ends pods of a lower
-- rank first, whatever their deletion cost, so those are chosen first. Returns the chosen pods, and
-- how many tasks each of them holds. No row: the queue has another owner.
--
-- A claim locks its instance's row. So after the rows are locked here, each claim has either
-- committed its lease, which is counted, or will see the mark.
create or replace function rowlock.drain_pods(
  queue text,
  owner text,
  pods uuid[],
  ranks int[],
  most int
)
returns table (pod uuid, held int)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
  v_queue int;
  chosen uuid[];
begin
  perform rowlock.require_read_committed();
  select q.id
    into v_queue
    from rowlock.queue q
    where q.name = drain_pods.queue and q.owner = drain_pods.owner;
  if not found then
    return;
  end if;
  -- Among equals, those that are marked already.
  chosen := array(
    select p.pod
    from rowlock.tasks_of_pods(v_queue, drain_pods.pods) p
    order by drain_pods.ranks[p.number], p.held, p.marked desc, p.number
    limit greatest(drain_pods.most, 0)
  );
  -- Only the chosen ones, which are idle if any are: a claim does not wait for this lock, and would
  -- have to be repeated. And those that lose their mark, in the same order as delete_queue: in
  -- another one, the two could wait for each other.
  perform 1
    from rowlock.instance i
    where i.queue = v_queue
      and i.ended_at is null
      and i.pod = any (drain_pods.pods)
      and (i.drain_until is not null or i.pod = any (chosen))
    order by i.id
    for no key update;
  update rowlock.instance i
    set drain_until = now() + rowlock.drain_mark_duration()
    where i.queue = v_queue
      and i.ended_at is null
      and i.pod = any (chosen)
      -- Repeated only when a third of it is over, since each update leaves a dead row.
      and coalesce(i.drain_until < now() + rowlock.drain_mark_duration() * (2 / 3.0), true);
  update rowlock.instance i
    set drain_until = null
    where i.queue = v_queue
      and i.ended_at is null
      and i.drain_until is not null
      and i.pod = any (drain_pods.pods)
      and i.pod <> all (chosen);
  return query
    select p.pod, p.held
    from rowlock.tasks_of_pods(v_queue, chosen) p
    order by p.number;
end $$;
