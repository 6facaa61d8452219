-- Retention (R8): the oldest partition goes when its last task is as old as the longest cleanup of any queue. What of it is unfinished, dead, or
-- finished too lately is copied to task_kept first, in batches, each of them a call and a transaction, so that no interruption costs more
-- than one. Then the partition is emptied, in a call of its own: TRUNCATE waits 50 ms, and where somebody reads or writes there the next
-- pass tries again. Answers with the partition to be detached and dropped; `more`: call it again. No row: nothing is to be done, or not now.
create or replace function rowlock.empty_task_partition(most int default 5000) returns table (part text, more boolean) language plpgsql volatile security definer
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
create or replace function rowlock.copy_unexpired_tasks(part text, lo bigint, hi bigint, most int) returns int language plpgsql volatile
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
create or replace function rowlock.expired_partitions() returns table (parent text, part text, hi timestamptz) language plpgsql stable
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
create or replace function rowlock.move_kept_errors(most int default 5000) returns int language plpgsql volatile security definer
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
create or replace function rowlock.empty_other_partitions() returns text[] language plpgsql volatile security definer
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
create or replace function rowlock.delete_expired_tasks(most int) returns int language plpgsql volatile security definer
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
create or replace function rowlock.mark_finished(most int) returns void language plpgsql volatile security definer
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
