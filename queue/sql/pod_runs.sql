-- The runs of some pods of a queue, for a canary. `pod_runs` is called by the operator alone
-- (queue/src/pod_runs.rs).

-- What the newest heartbeats of the live instances in these pods report: the runs of the last two
-- minutes, summed up over the pods with the new template and over the others. Always two rows; none
-- if the queue has another owner.
create or replace function rowlock.pod_runs(
  queue text,
  owner text,
  new_pods uuid[],
  old_pods uuid[]
)
returns table (
  new boolean,
  runs bigint,
  failures bigint,
  run_seconds double precision,
  run_seconds_squared double precision
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
  select
    given.new,
    coalesce(sum(newest.runs), 0)::bigint,
    coalesce(sum(newest.failures), 0)::bigint,
    coalesce(sum(newest.run_seconds::double precision), 0),
    coalesce(sum(newest.run_seconds_squared::double precision), 0)
  from rowlock.queue q
  cross join (values (true, pod_runs.new_pods), (false, pod_runs.old_pods)) given(new, pods)
  left join rowlock.instance i
    on i.queue = q.id and i.ended_at is null and i.pod = any (given.pods)
  left join lateral (
    select h.runs, h.failures, h.run_seconds, h.run_seconds_squared
    from rowlock.heartbeat h
    where h.instance = i.id and h.at > now() - interval '1 minute'
    order by h.n desc
    limit 1
  ) newest on true
  where q.name = pod_runs.queue and q.owner = pod_runs.owner
  group by given.new
$$;
