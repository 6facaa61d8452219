-- Why a queue has its number of pods. `record_scaling_decisions` is called by what scales queues,
-- `delete_old_scaling_decisions` by maintenance, and `scaling_decisions` by people
-- (queue/src/scaling_decisions.rs). Nothing decides by what is recorded.

-- Records decisions: a JSON array of objects with the columns of the table, the name of the
-- `queue`, its `owner`, and `age_seconds`, how long ago it was decided. A queue of another owner is
-- left out, and so is a decision with the same pods and reason as the last one: that is what a new
-- operator decides first. Returns how many were recorded.
create or replace function rowlock.record_scaling_decisions(decisions json)
returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  recorded int;
begin
  perform rowlock.require_read_committed();
  insert into rowlock.scaling_decision (
      queue, number, at, pods_before, pods, workers, reason, demand, waiting, running,
      arrivals_per_second, service_seconds, service_assumed, pod_start_seconds, for_rate,
      for_backlog, detail
    )
    select
      q.id,
      coalesce(last.number, 0) + 1,
      clock_timestamp() - make_interval(secs => least(greatest(d.age_seconds, 0), 86400)),
      d.pods_before,
      d.pods,
      d.workers,
      d.reason,
      d.demand,
      d.waiting,
      d.running,
      d.arrivals_per_second,
      d.service_seconds,
      d.service_assumed,
      d.pod_start_seconds,
      d.for_rate,
      d.for_backlog,
      left(d.detail, 500)
    from json_to_recordset(record_scaling_decisions.decisions) d(
      queue text,
      owner text,
      age_seconds double precision,
      pods_before int,
      pods int,
      workers int,
      reason text,
      demand int,
      waiting bigint,
      running bigint,
      arrivals_per_second double precision,
      service_seconds double precision,
      service_assumed boolean,
      pod_start_seconds double precision,
      for_rate double precision,
      for_backlog double precision,
      detail text
    )
    join rowlock.queue q on q.name = d.queue and q.owner = d.owner
    left join lateral (
      select l.number, l.pods, l.reason
      from rowlock.scaling_decision l
      where l.queue = q.id
      order by l.number desc
      limit 1
    ) last on true
    where (d.pods, d.reason) is distinct from (last.pods, last.reason)
    -- Another operator has recorded at the same moment.
    on conflict do nothing;
  get diagnostics recorded = row_count;
  return recorded;
end $$;

-- Returns up to `most` decisions of a queue (at most 1000), the newest first. `as_of`: only those
-- that were made by then, so the first one is the one that held at that time.
create or replace function rowlock.scaling_decisions(
  queue text,
  as_of timestamptz default null,
  most int default 20
)
returns table (
  at timestamptz,
  age_seconds double precision,
  pods_before int,
  pods int,
  workers int,
  reason text,
  demand int,
  waiting bigint,
  running bigint,
  arrivals_per_second double precision,
  service_seconds double precision,
  service_assumed boolean,
  pod_start_seconds double precision,
  for_rate double precision,
  for_backlog double precision,
  detail text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  v_queue int := rowlock.readable_queue(scaling_decisions.queue);
begin
  return query
    select
      d.at,
      greatest(date_part('epoch', clock_timestamp() - d.at), 0),
      d.pods_before,
      d.pods,
      d.workers,
      d.reason,
      d.demand,
      d.waiting,
      d.running,
      d.arrivals_per_second,
      d.service_seconds,
      d.service_assumed,
      d.pod_start_seconds,
      d.for_rate,
      d.for_backlog,
      d.detail
    from rowlock.scaling_decision d
    where d.queue = v_queue and (scaling_decisions.as_of is null or d.at <= scaling_decisions.as_of)
    order by d.number desc
    limit least(greatest(scaling_decisions.most, 1), 1000);
end $$;

-- Deletes decisions that are older than seven days, and all but the newest 10,000 of a queue, up to
-- `most`. The newest one of a queue stays: it holds. Returns how many were deleted.
create or replace function rowlock.delete_old_scaling_decisions(most int)
returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  n int;
begin
  perform rowlock.require_read_committed();
  if not rowlock.clock_is_steady() then
    return 0;
  end if;
  delete from rowlock.scaling_decision d
    using (
      select old.queue, old.number
      from
        rowlock.queue q,
        lateral (
          select max(l.number) number
          from rowlock.scaling_decision l
          where l.queue = q.id
        ) newest,
        lateral (
          (
            select o.queue, o.number
            from rowlock.scaling_decision o
            where o.queue = q.id
              and o.at < now() - interval '7 days'
              and o.number < newest.number
            order by o.at
            limit delete_old_scaling_decisions.most
          )
          union
          (
            select o.queue, o.number
            from rowlock.scaling_decision o
            where o.queue = q.id and o.number <= newest.number - 10000
            order by o.number
            limit delete_old_scaling_decisions.most
          )
        ) old
      limit delete_old_scaling_decisions.most
    ) expired
    where d.queue = expired.queue and d.number = expired.number;
  get diagnostics n = row_count;
  return n;
end $$;
