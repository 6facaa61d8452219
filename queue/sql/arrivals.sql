-- Counts when tasks came, for `rowlock simulate --from-db` (queue/src/arrivals.rs).

-- Counts the tasks of a queue by the second in which they came, among the newest `most` tasks of
-- all queues (at most 100,000) that came within the last `ago_seconds` and have ids below `before`,
-- if it is given. Tasks with a delay are counted in `scheduled` only: when they became due is not
-- kept. `next` is the `before` of the next call; null: there are no older ones. `kept_seconds` is
-- the age of the oldest partition.
create or replace function rowlock.arrivals(
  queue text,
  ago_seconds double precision,
  before bigint default null,
  most int default 100000
)
returns table (
  next bigint,
  seconds bigint[],
  counts bigint[],
  scheduled bigint,
  kept_seconds double precision
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
  v_queue int := rowlock.readable_queue(arrivals.queue);
  bound int := least(greatest(arrivals.most, 1), 100000);
begin
  return query
    with page as materialized (
      select t.id, t.queue, t.k_low
      from rowlock.task t
      where t.id >= rowlock.id_at(now() - make_interval(secs => arrivals.ago_seconds))
        and t.id < coalesce(arrivals.before, rowlock.id_at(now() + interval '1 second'))
      order by t.id desc
      limit bound
    ),
    by_second as (
      select p.id >> 31 as second, count(*) n
      from page p
      where p.queue = v_queue and p.k_low is not null
      group by p.id >> 31
    ),
    whole as (
      select
        case when count(*) = bound then min(p.id) end oldest,
        count(*) filter (where p.queue = v_queue and p.k_low is null) scheduled
      from page p
    )
    select
      whole.oldest,
      coalesce((select array_agg(b.second order by b.second) from by_second b), '{}'),
      coalesce((select array_agg(b.n::bigint order by b.second) from by_second b), '{}'),
      whole.scheduled,
      (
        select greatest(date_part('epoch', now() - min(k.lo)), 0)
        from rowlock.partitions_of('task') k
      )
    from whole;
end $$;
