-- Maintenance: move due tasks, move missed rows, rescue, clean up. Each pass is bounded and taken by one session at a time (a try-lock each).

-- Due tasks become ready. `watermark` is the due time below which nothing is left: see Maintainer in queue/src/maintenance.rs.
create function rowlock.move_due(watermark timestamptz, most int) returns table (moved int, more boolean, next timestamptz)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
#variable_conflict use_column
declare q record; v_moved int := 0; v_ids bigint[];
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(2, 0) then return; end if;
  v_ids := array(select d.id from rowlock.delayed d where d.due >= $1 and d.due <= now() order by d.due, d.id limit $2 for update skip locked);
  for q in
    with gone as (delete from rowlock.delayed d where d.id = any (v_ids) returning d.*)
    select g.queue, c.id is not null as cancelled, array_agg(g.id order by g.due, g.id) ids, array_agg(g.attempt order by g.due, g.id) attempts, array_agg(g.priority order by g.due, g.id) priorities
    from gone g left join rowlock.cancel_request c on c.id = g.id group by 1, 2
  loop
    if q.cancelled then
      perform rowlock.write_receipt(q.queue, null, 3::smallint, q.ids, q.attempts);
      delete from rowlock.cancel_request c where c.id = any (q.ids);
    else
      begin
        perform rowlock.requeue(q.queue, q.ids, q.attempts, q.priorities);
      exception when others then
        perform rowlock.requeue_singly(q.queue, q.ids, q.attempts, q.priorities);
      end;
    end if;
    v_moved := v_moved + cardinality(q.ids);
  end loop;
  return query select v_moved, v_moved >= $2, (select d.due from rowlock.delayed d where d.due >= $1 order by d.due limit 1);
end $$;

-- What lies between the exact and the quick watermark is given a new k: claims walk from the quick one and would not see it.
create function rowlock.move_missed(queue int, exact bigint[], quick bigint[], most int) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
#variable_conflict use_column
declare r record; moved_rows int := 0;
begin
  perform rowlock.require_read_committed();
  perform rowlock.require_worker($1);
  if not rowlock.try_mutex(6, $1) then return null; end if;
  for r in
    select x.* from generate_series(0, 3) p, generate_series(0, 3) s, lateral (
      select r.shard, r.priority, r.k from rowlock.ready r where r.queue = $1 and r.shard = s::smallint and r.lane = 0 and r.priority = p::smallint
        and r.k >= $2[p * 4 + s + 1] and r.k < $3[p * 4 + s + 1] order by r.k limit least($4, 10000)
            for update skip locked) x limit least($4, 10000)
  loop
    update rowlock.ready y set k = nextval('rowlock.k_seq'), fresh = false, moved = rowlock.chunk_of(y.id) where y.queue = $1 and y.shard = r.shard and y.lane = 0 and y.priority = r.priority and y.k = r.k;
    moved_rows := moved_rows + 1;
  end loop;
  return moved_rows;
end $$;

-- The newest heartbeat of every live instance: whose number stands still for a lease on the caller's own monotonic clock may be rescued (R4).
create function rowlock.newest_heartbeats() returns table (instance bigint, heartbeat bigint) language sql stable security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
  select i.id, coalesce((select b.n from rowlock.heartbeat b where b.instance = i.id order by b.n desc limit 1), 0) from rowlock.instance i where i.ended_at is null
$$;

-- How long ago the newest heartbeat of an instance must be, at least, for a rescue: a lease (queue/src/db.rs),
-- less the time between two heartbeats and the slack of clocks. The caller has measured a whole lease on its own
-- clock; this is for a caller who says so and has not.
create function rowlock.rescue_after() returns interval language sql immutable return interval '12 seconds';

-- Whether so long has passed since a heartbeat by the clock here. A clock that was stepped back puts that heartbeat
-- into the future: then a heartbeat of anybody counts that came later, by its number, and is old enough (a heartbeat a
-- second, so the newest of each are the ones to look at).
create function rowlock.is_silent(instance bigint, heartbeat bigint) returns boolean language sql volatile
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
create function rowlock.rescue(instance bigint, heartbeat bigint) returns int language plpgsql volatile security definer
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
create function rowlock.interruption_limit() returns int language sql immutable return 10;

-- A lost lease uses an attempt: ready again at once, dead when it was the last, cancelled when somebody asked for that. An instance that was told to
-- end, and drained when it vanished, was interrupted: its node granted it less time than its tasks take. That uses no attempt, and is recorded as
-- attempt 0. Also where somebody deleted the queue: whatever is not written here is gone with its lease.
create function rowlock.lose_tasks(queue int, instance bigint, name text, drains boolean, ids bigint[], attempts smallint[], priorities smallint[]) returns void
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

-- What is due later than this is no backlog yet.
create function rowlock.later_after() returns interval language sql immutable return interval '24 hours';

-- How much of a table is looked at to say how much it holds: all of it up to 512 pages (some 50,000 rows), of a larger one about so many, by chance.
create function rowlock.sample_percent(what regclass) returns real language sql stable set search_path = pg_catalog, pg_temp
  return least(100, 512 * 100 / greatest(pg_relation_size(what) / current_setting('block_size')::int, 1)::real);

-- What waits in each queue, at a cost that does not grow with it: the operator asks every two seconds, and a maintainer for the limits. Exact while the
-- tables are small. Of larger ones a sample is counted, scaled up, the same pages each time so that the number does not flicker; what is ready is also counted by the index, up to some hundred rows of each of a
-- queue's 16 parts, so that a small queue beside a large one has its exact number, and none less than was counted. The oldest is among
-- the first of its part.
create function rowlock.backlog()
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

-- Whether so many tasks of a queue wait, counted, and no further than that. What is due in more than a day is
-- no backlog yet.
create function rowlock.backlog_reaches(queue int, backlog_limit bigint) returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce((select sum(r.n) from (select x.n from rowlock.ready x where x.queue = $1 limit $2) r), 0)
    + (select count(*) from (select 1 from rowlock.delayed d where d.queue = $1
        and d.due <= now() + rowlock.later_after() limit $2) d) >= $2
$$;

-- Sets and clears backlog_full, and forgets instances that ended long ago, and requests that nobody needs. Cheap enough for every few seconds.
create function rowlock.update_backlog_limits() returns void language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
#variable_conflict use_column
declare v record;
begin
  if not rowlock.try_mutex(3, 0) then return; end if;
  for v in
    -- An estimate may be far off where rows lie together: no producer is refused for that, so what it says is counted.
    select x.queue, case when q.backlog_full then x.n >= q.backlog_limit * 0.95
             when x.n >= q.backlog_limit then rowlock.backlog_reaches(q.id, q.backlog_limit)
                 else false end backlog_full,
           -- Tasks of next year have a limit of their own, of the same size: they keep nobody from enqueuing
           -- what is due today.
           x.later >= case when q.later_full then q.backlog_limit * 0.95 else q.backlog_limit end later_full
    from (select y.*, y.available + y.scheduled + y.retryable - y.later n from rowlock.backlog() y) x
        join rowlock.queue q on q.id = x.queue
  loop
    update rowlock.queue y set backlog_full = v.backlog_full, later_full = v.later_full
      where y.id = v.queue and (y.backlog_full, y.later_full) <> (v.backlog_full, v.later_full);
  end loop;
  if rowlock.clock_is_steady() then
    delete from rowlock.instance i where i.ended_at < now() - interval '7 days' and not exists (select 1 from rowlock.lease l where l.instance = i.id);
  end if;
  -- A request that crossed the end of its task is nobody's any more, and would lengthen every settlement.
  delete from rowlock.cancel_request c where c.id in (
    select x.id from rowlock.cancel_request x where x.at < now() - interval '1 minute'
      and coalesce((select rowlock.state_of(t.id, t.queue, t.priority, t.k_low) from rowlock.every_task t where t.id = x.id), '')
         not in ('scheduled', 'retryable', 'available', 'running') order by x.at limit 100);
end $$;

-- Retention (R8): the oldest partition goes when its last task is as old as the longest cleanup of any queue. What of it is unfinished, dead, or
-- finished too lately is copied to task_kept first, in batches, each of them a call and a transaction, so that no interruption costs more
-- than one. Then the partition is emptied, in a call of its own: TRUNCATE waits 50 ms, and where somebody reads or writes there the next
-- pass tries again. Answers with the partition to be detached and dropped; `more`: call it again. No row: nothing is to be done, or not now.
create function rowlock.empty_task_partition(most int default 5000) returns table (part text, more boolean) language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' set jit = off as $$
declare v_part text; v_lo bigint; v_hi bigint; keep interval; last bigint;
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(1, 0) then return; end if;
  if not rowlock.clock_is_steady() then return; end if;
  select coalesce(greatest(max(keep_completed), max(keep_cancelled)), interval '1 day') into keep from rowlock.queue;
  select p.part, rowlock.id_at(p.lo), rowlock.id_at(p.hi) into v_part, v_lo, v_hi from rowlock.partitions_of('task') p order by p.detaches desc, p.hi limit 1;
  -- Ten minutes more, so that what is done at once is not copied because it was enqueued in the last second.
  if v_part is null or rowlock.id_time(v_hi) > now() - keep - interval '10 minutes' then return; end if;
  select max(k.id) into last from rowlock.task_kept k where k.id >= v_lo and k.id < v_hi;
  if rowlock.copy_unexpired_tasks(v_part, greatest(last + 1, v_lo), v_hi, $1) > 0 then return query select null::text, true; return; end if;
  begin
    execute format('lock table rowlock.%I in access exclusive mode', v_part);
    raise exception using errcode = 'RL000';
  exception
    when sqlstate 'RL000' then null;   -- it can be had, and is given back for now
    when lock_not_available then return;
  end;
  -- Nobody adds to it any more, and its tasks are read until the rest is kept elsewhere, however many that are.
  execute format('lock table rowlock.%I in share mode', v_part);
  if rowlock.copy_unexpired_tasks(v_part, v_lo, v_hi, $1) >= $1 then return query select null::text, true; return; end if;
  execute format('lock table rowlock.%I in access exclusive mode', v_part);
  execute format('truncate rowlock.%I', v_part);
  return query select v_part, false;
exception when lock_not_available then
  return;   -- somebody came between
end $$;

-- Copies at most so many of a partition's tasks with `lo` <= id < `hi`, by id. Answers how many: fewer than `most` are all there were.
create function rowlock.copy_unexpired_tasks(part text, lo bigint, hi bigint, most int) returns int language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare n int;
begin
  -- The lateral look takes each task by its id: a join would read the whole partition.
  execute format($q$
    with wanted as (
      (select d.id, null::timestamptz at from rowlock.delayed d
        where d.id >= $1 and d.id < $2 and not exists (select 1 from rowlock.task_kept k where k.id = d.id) order by d.id limit $3)
      union all (select d.id, null from rowlock.dead d
        where d.id >= $1 and d.id < $2 and not exists (select 1 from rowlock.task_kept k where k.id = d.id) order by d.id limit $3)
      union all select g, null from rowlock.ready r, generate_series(greatest(r.id, $1), least(r.id + r.n, $2) - 1) g where r.id < $2 and r.id + r.n > $1
      union all select g, null from rowlock.lease l, unnest(l.firsts, l.ns) u(f, n), generate_series(greatest(u.f, $1), least(u.f + u.n, $2) - 1) g
        where g <> all (l.settled)
      union all select g, r.at from rowlock.queue q, rowlock.receipt r, unnest(r.firsts, r.ns) u(f, n),
          generate_series(greatest(u.f, $1), least(u.f + u.n, $2) - 1) g
        where r.queue = q.id and r.state in (1, 3) and r.firsts[1] > $1 - 8589934592 and r.firsts[1] < $2
          and r.at > now() - case r.state when 1 then q.keep_completed else q.keep_cancelled end
          and r.at > now() - (select greatest(max(x.keep_completed), max(x.keep_cancelled)) from rowlock.queue x))
    insert into rowlock.task_kept (id, queue, k_low, priority, max_attempts, type, payload, finished_at)
    select t.*, w.at from (
        select x.id, max(x.at) at from wanted x
        where not exists (select 1 from rowlock.task_kept k where k.id = x.id and k.id >= $1 and k.id < $2) group by x.id order by x.id limit $3) w,
      lateral (select y.* from rowlock.%I y where y.id = w.id offset 0) t
    on conflict do nothing$q$, part) using lo, hi, most;
  get diagnostics n = row_count;
  return n;
end $$;

-- The partitions of the other tables that no task of a remaining partition needs, those that a detach left pending first: until that is
-- finished, Postgres detaches no other partition of the table.
create function rowlock.expired_partitions() returns table (parent text, part text, hi timestamptz) language plpgsql stable
set search_path = pg_catalog, pg_temp set jit = off as $$
#variable_conflict use_column
declare keep interval; oldest timestamptz;
begin
  select coalesce(greatest(max(keep_completed), max(keep_cancelled)), interval '1 day') into keep from rowlock.queue;
  -- A task is younger than the upper bound of the partition before its own; what was settled earlier belongs to no task that is left.
  select min(p.hi) - 2 * rowlock.partition_width() into oldest from rowlock.partitions_of('task') p;
  return query
    select t.parent, p.part, p.hi from unnest(array['receipt', 'result', 'task_error', 'heartbeat', 'allocation']) t(parent), rowlock.partitions_of(t.parent) p
    where p.hi <= case when t.parent in ('heartbeat', 'allocation') then now() - interval '1 hour' else least(oldest, now() - keep) end
      -- What is kept has a receipt, and its result: it goes first.
      and (t.parent not in ('receipt', 'result') or not exists (select 1 from rowlock.task_kept k where k.finished_at < p.hi))
    order by p.detaches desc, p.hi;
end $$;

-- Moves at most so many errors of kept tasks out of the partitions that are to go, in a transaction of its own. Answers how many: fewer are all.
create function rowlock.move_kept_errors(most int default 5000) returns int language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' set jit = off as $$
declare p record; n int; moved int := 0;
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(1, 0) then return 0; end if;
  if not rowlock.clock_is_steady() then return 0; end if;
  for p in select x.part from rowlock.expired_partitions() x where x.parent = 'task_error' loop
    execute format('with moved as (delete from rowlock.%1$I x where x.ctid = any (array(
        select f.ctid from rowlock.%1$I f where exists (select 1 from rowlock.task_kept t where t.id = f.id) limit $1)) returning x.*)
      insert into rowlock.task_error_kept (at, id, attempt, instance, error) select m.at, m.id, m.attempt, m.instance, m.error from moved m', p.part)
      using $1 - moved;
    get diagnostics n = row_count;
    moved := moved + n;
    exit when moved >= $1;
  end loop;
  return moved;
end $$;

-- Empties the partitions of the other tables that can go, under the same rules, and answers with them: table and partition.
create function rowlock.empty_other_partitions() returns text[] language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' set jit = off as $$
declare p record; done text[] := '{}'; unused boolean;
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(1, 0) then return done; end if;
  -- Detached, but whoever did it was gone before it could drop the table.
  for p in select c.relname part from pg_class c where c.relnamespace = 'rowlock'::regnamespace and c.relkind = 'r' and not c.relispartition
      and c.relname ~ '^(task|receipt|result|task_error|heartbeat|allocation)_[0-9]+$' loop
    begin
      execute format('lock table rowlock.%I in access exclusive mode', p.part);
      execute format('select not exists (select 1 from rowlock.%I)', p.part) into unused;
      if unused then execute format('drop table rowlock.%I', p.part); end if;
    exception
      when lock_not_available then null;
      when others then raise warning 'table % cannot be dropped: %', p.part, sqlerrm;
    end;
  end loop;
  if not rowlock.clock_is_steady() then return done; end if;
  for p in select * from rowlock.expired_partitions() loop
    begin
      execute format('lock table rowlock.%I in access exclusive mode', p.part);
      if p.parent = 'task_error' then
        execute format('select not exists (select 1 from rowlock.%I f where f.id in (select t.id from rowlock.task_kept t))', p.part) into unused;
        continue when not unused;   -- rowlock.move_kept_errors has not come to its end
      end if;
      execute format('truncate rowlock.%I', p.part);
      done := done || (p.parent || ' ' || p.part);
    exception
      when lock_not_available then null;   -- somebody reads this one: the others need not wait for that
      when others then raise warning 'partition % cannot be emptied: %', p.part, sqlerrm;
    end;
  end loop;
  return done;
end $$;

-- Dead tasks older than cleanup.dead, and kept tasks that finished long enough ago; at most so many of each. Answers how many went.
create function rowlock.delete_expired_tasks(most int) returns int language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare q record; gone bigint[]; kept bigint[]; n int := 0;
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(4, 0) then return 0; end if;
  if not rowlock.clock_is_steady() then return 0; end if;
  for q in
    with old as (
      delete from rowlock.dead d where d.id in (
        select x.id from rowlock.queue y, lateral (
          select z.id from rowlock.dead z where z.queue = y.id and z.at < now() - y.keep_dead order by z.at limit $1 for update skip locked) x limit $1)
      returning d.id, d.queue, d.attempt)
    select o.queue, array_agg(o.id) ids, array_agg(o.attempt) attempts from old o group by o.queue
  loop
    -- A receipt stays behind, so that the task of a partition that is still there has a state.
    perform rowlock.write_receipt(q.queue, null, 2::smallint, q.ids, q.attempts);
    gone := gone || q.ids; n := n + cardinality(q.ids);
  end loop;
  kept := array(
    select x.id from rowlock.queue y, lateral (
      select k.id from rowlock.task_kept k where k.queue = y.id and k.finished_at < now() - greatest(y.keep_completed, y.keep_cancelled)
      order by k.finished_at limit $1) x limit $1);
  delete from rowlock.task_kept k where k.id = any (gone || kept);
  delete from rowlock.task_error_kept f where f.id = any (gone || kept);
  return n + cardinality(kept);
end $$;

-- A task that finished in the very moment in which it was copied is not marked: some of those that are not are looked at in each pass.
create function rowlock.mark_finished(most int) returns void language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare start bigint;
begin
  -- Drawn once: within the query it would be drawn for each row, and the first rows would never be the ones.
  select floor(random() * (max(k.id) - min(k.id) + 1))::bigint + min(k.id) into start from rowlock.task_kept k;
  update rowlock.task_kept k set finished_at = f.at
    from (select z.* from (
            (select x.id, x.queue from rowlock.task_kept x where x.finished_at is null and x.id >= start order by x.id limit $1)
            union all (select x.id, x.queue from rowlock.task_kept x where x.finished_at is null and x.id < start order by x.id limit $1)) z limit $1) y,
      lateral rowlock.find_receipt(y.queue, y.id) f
    where k.id = y.id and f.state in (1, 3);
end $$;

-- Keeps where claims may start in queues without instances, so that what waits there is counted without a walk
-- over all that died: the exact watermark (R6), for nobody is there who would sweep. Call it as a transaction of its
-- own, about once a minute: k is read before this transaction has an id. A note is good once every transaction that was
-- open is over. What was kept is found anew every ten minutes: a failover may take back k_seq.
create function rowlock.keep_lows() returns void language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
#variable_conflict use_column
declare v_k bigint; m rowlock.maintenance; none bigint[] := array_fill(0::bigint, array[16]);
begin
  perform rowlock.require_read_committed();
  select s.last_value + s.is_called::int into v_k from rowlock.k_seq s;
  select x.* into m from rowlock.maintenance x for update skip locked;
  if not found then return; end if;
  if v_k < m.noted_k then
    update rowlock.queue q set watermarks = null, lows_at = '-infinity' where q.watermarks is not null;
  elsif m.noted_xid > pg_snapshot_xmin(pg_current_snapshot())::text::bigint then
    return;
  elsif m.noted_xid > 0 then
    update rowlock.queue q set watermarks = (
        select array_agg(least(coalesce(u.k, m.noted_k), m.noted_k) order by u.o)
        from unnest(rowlock.least_k(q.id, none)) with ordinality u(k, o)), lows_at = m.noted_at
      where q.id in (
        select x.id from rowlock.queue x
        where not exists (select 1 from rowlock.instance i where i.queue = x.id and i.ended_at is null)
          and (x.lows_at not between now() - interval '10 minutes' and now()
            or exists (select 1 from rowlock.instance i where i.queue = x.id and i.ended_at > x.lows_at))
        for no key update skip locked);
  end if;
  update rowlock.maintenance x set noted_k = v_k, noted_xid = pg_current_xact_id()::text::bigint, noted_at = now();
end $$;

-- What a maintainer asks in each pass, in one statement: due tasks, and a note for the watermarks; with `check_limits` the backlog against its limit, with
-- `read_heartbeats` the newest heartbeat of every instance that lives. No row: another session does it.
--
-- The note is one step of an exact watermark (R6): the next k, greater than every k drawn before, and an xid drawn after. A transaction has its xid
-- before it draws a k, so once xmin has reached the noted xid, none that drew an older k is open, prepared ones included. So k is read before anything
-- here writes. Not pg_snapshot_xmax in place of the xid: that is the one after the last *completed* one, and an open transaction may lie above it.
create function rowlock.maintain(watermark timestamptz, most int, check_limits boolean, read_heartbeats boolean)
returns table (moved int, more boolean, next timestamptz, k bigint, xid bigint, xmin bigint, at timestamptz, instances bigint[], heartbeats bigint[])
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare v_k bigint; v_at timestamptz;
begin
  select s.last_value + s.is_called::int, clock_timestamp() into v_k, v_at from rowlock.k_seq s;
  if $3 then perform rowlock.update_backlog_limits(); end if;
  return query select p.*, v_k, pg_current_xact_id()::text::bigint, pg_snapshot_xmin(pg_current_snapshot())::text::bigint, v_at, l.* from rowlock.move_due($1, $2) p,
    (select array_agg(y.instance), array_agg(y.heartbeat) from rowlock.newest_heartbeats() y where $4) l;
end $$;
