-- Counts the open and dead tasks of each queue, at a cost that does not grow with their number.
-- Called by rowlock.statistics, which the operator calls every two seconds, and to check the limits
-- of queues.

-- Small tables are counted exactly. For a larger table, a sample is counted and scaled up. The
-- sample always has the same pages, so that the number does not jump. Available tasks are also
-- counted by index, up to some hundred rows in each of a queue's 16 parts. So a small queue has an
-- exact number even next to a large one, and no estimate is below what was counted. The oldest task
-- is among the first of its part. `far_future` counts the delayed tasks that are not part of the
-- backlog.
create or replace function rowlock.backlog()
returns table (
  queue int,
  available bigint,
  scheduled bigint,
  retryable bigint,
  far_future bigint,
  oldest int
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
  v_ready real := rowlock.sample_percent('rowlock.ready');
  v_delayed real := rowlock.sample_percent('rowlock.delayed');
  most int;   -- rows to count in each part
begin
  select greatest(least(20000 / greatest(count(*), 1), 1000), 50) into most from rowlock.queue;
  return query
    select
      q.id,
      coalesce(
        case
          when counted.more is null then sample.n
          when counted.more then greatest(counted.n, sample.n)
          else counted.n
        end,
        0
      ),
      coalesce(delayed.scheduled, 0),
      coalesce(delayed.retryable, 0),
      coalesce(delayed.far_future, 0),
      coalesce(counted.oldest, sample.oldest)
    from rowlock.queue q
    left join (
      select r.queue, (sum(r.n) * 100 / v_ready)::bigint n, min(r.since) oldest
      from rowlock.ready r tablesample system (v_ready) repeatable (0)
      group by r.queue
    ) sample on sample.queue = q.id
    left join lateral (
      select sum(first.n)::bigint n, min(first.oldest) oldest, bool_or(first.rows = most) more
      from
        coalesce(
          rowlock.published_watermarks(q.id),
          array_fill(0::bigint, array[16])
        ) watermarks,
        generate_series(0, 15) part,
        lateral (
          select sum(ranges.n) n, min(ranges.since) oldest, count(*) as rows
          from (
            select r.n, r.since
            from rowlock.ready r
            where r.queue = q.id
              and r.shard = (part & 3)::smallint
              and r.lane = 0
              and r.priority = (part >> 2)::smallint
              and r.k >= watermarks[part + 1]
            order by r.k
            limit most
          ) ranges
        ) first
    ) counted on v_ready < 100
    left join (
      select
        d.queue,
        (count(*) filter (where d.waits = 0) * 100 / v_delayed)::bigint scheduled,
        (count(*) filter (where d.waits = 1) * 100 / v_delayed)::bigint retryable,
        (
          count(*) filter (where d.due > now() + rowlock.far_future_after()) * 100 / v_delayed
        )::bigint far_future
      from rowlock.delayed d tablesample system (v_delayed) repeatable (0)
      group by d.queue
    ) delayed on delayed.queue = q.id;
end $$;
