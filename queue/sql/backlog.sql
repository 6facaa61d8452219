-- What waits in each queue, at a cost that does not grow with it: the operator asks every two seconds, and a maintainer for the limits. Exact while the
-- tables are small. Of larger ones a sample is counted, scaled up, the same pages each time so that the number does not flicker; what is ready is also counted by the index, up to some hundred rows of each of a
-- queue's 16 parts, so that a small queue beside a large one has its exact number, and none less than was counted. The oldest is among
-- the first of its part.
create or replace function rowlock.backlog()
returns table (queue int, available bigint, scheduled bigint, retryable bigint, later bigint, oldest int)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
#variable_conflict use_column
declare v_ready real := rowlock.sample_percent('rowlock.ready'); v_delayed real := rowlock.sample_percent('rowlock.delayed'); most int;
begin
  select greatest(least(20000 / greatest(count(*), 1), 1000), 50) into most from rowlock.queue;
  return query
    select q.id, coalesce(case when c.more is null then s.n when c.more then greatest(c.n, s.n)
        else c.n end, 0), coalesce(d.scheduled, 0), coalesce(d.retryable, 0), coalesce(d.later, 0),
            coalesce(c.oldest, s.oldest)
    from rowlock.queue q
    left join (select r.queue, (sum(r.n) * 100 / v_ready)::bigint n, min(r.since) oldest from rowlock.ready r tablesample system (v_ready) repeatable (0) group by r.queue) s on s.queue = q.id
    left join lateral (
      select sum(x.n)::bigint n, min(x.oldest) oldest, bool_or(x.rows = most) more
      from coalesce(rowlock.published_watermarks(q.id), array_fill(0::bigint, array[16])) watermarks, generate_series(0, 15) p, lateral (
        select sum(y.n) n, min(y.since) oldest, count(*) as rows from (
          select r.n, r.since from rowlock.ready r where r.queue = q.id and r.shard = (p & 3)::smallint and r.lane = 0 and r.priority = (p >> 2)::smallint and r.k >= watermarks[p + 1]
          order by r.k limit most) y) x) c on v_ready < 100
    left join (select d.queue, (count(*) filter (where d.waits = 0) * 100 / v_delayed)::bigint scheduled,
        (count(*) filter (where d.waits = 1) * 100 / v_delayed)::bigint retryable,
                      (count(*) filter (where d.due > now() + rowlock.later_after()) * 100 / v_delayed)::bigint later
               from rowlock.delayed d tablesample system (v_delayed) repeatable (0) group by d.queue) d on d.queue = q.id;
end $$;
