-- Retention of tasks (R8). Deletes finished and dead tasks once they are old enough. Partitions are
-- emptied here; the caller detaches and drops them. Called by the cleanup of the operator and of
-- instances (queue/src/retention.rs), one session at a time.

-- Works on the oldest partition of `task`. It can be dropped when its last task is older than the
-- longest cleanup period of any queue. Tasks in it that are unfinished, dead, or finished too
-- recently are first copied to task_kept in batches. Each batch is a separate call and transaction,
-- so an interruption loses at most one. Then another call empties the partition. TRUNCATE waits 50
-- ms for its lock; if the partition is in use, the next pass tries again. Returns the partition to
-- detach and drop; `more`: call it again. `failed`: this partition cannot be emptied, and why. Call
-- it again with that partition among the `skipped` ones. No row: nothing to do, or not now.
drop function if exists rowlock.empty_task_partition(int);
create or replace function rowlock.empty_task_partition(
  most int default 5000,
  skipped text[] default '{}'
)
returns table (part text, more boolean, failed text, why text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
set jit = off
as $$
declare
  v_part text;
  v_lo bigint;
  v_hi bigint;
  keep interval;
  last bigint;   -- the highest id that was copied before
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(1, 0) then
    return;
  end if;
  if not rowlock.clock_is_steady() then
    return;
  end if;
  select coalesce(greatest(max(keep_completed), max(keep_cancelled)), interval '1 day')
    into keep
    from rowlock.queue;
  select p.part, rowlock.id_at(p.lo), rowlock.id_at(p.hi)
    into v_part, v_lo, v_hi
    from rowlock.partitions_of('task') p
    where p.part <> all (empty_task_partition.skipped)
    order by p.detaches desc, p.hi
    limit 1;
  -- Ten minutes more, so that a task that is enqueued at the end of the partition and done at once
  -- is not copied.
  if v_part is null or rowlock.id_time(v_hi) > now() - keep - interval '10 minutes' then
    return;
  end if;
  select max(k.id) into last from rowlock.task_kept k where k.id >= v_lo and k.id < v_hi;
  if rowlock.copy_unexpired_tasks(v_part, greatest(last + 1, v_lo), v_hi, most) > 0 then
    return query select null::text, true, null::text, null::text;
    return;
  end if;
  begin
    execute format('lock table rowlock.%I in access exclusive mode', v_part);
    raise exception using errcode = 'RL000';
  exception
    when sqlstate 'RL000' then null;   -- the lock is available; it is released for now
    when lock_not_available then return;
  end;
  -- From here on no task is added. Tasks can still be read until all tasks to keep are copied.
  execute format('lock table rowlock.%I in share mode', v_part);
  if rowlock.copy_unexpired_tasks(v_part, v_lo, v_hi, most) >= most then
    return query select null::text, true, null::text, null::text;
    return;
  end if;
  execute format('lock table rowlock.%I in access exclusive mode', v_part);
  execute format('truncate rowlock.%I', v_part);
  return query select v_part, false, null::text, null::text;
exception
  when lock_not_available then return;   -- another session took the lock in between
  when others then
    if v_part is null or rowlock.concerns_all_rows(sqlstate) then
      raise;
    end if;
    return query select null::text, true, v_part, sqlerrm;
end $$;

-- Copies up to `most` tasks with `lo` <= id < `hi` from a partition to task_kept, by id. Returns
-- how many; fewer than `most` means that all are copied. Raises an error that names a task if one
-- cannot be copied.
create or replace function rowlock.copy_unexpired_tasks(part text, lo bigint, hi bigint, most int)
returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_ids bigint[];
  v_finished timestamptz[];
begin
  execute $q$
    with wanted as (
      (
        select d.id, null::timestamptz at
        from rowlock.delayed d
        where d.id >= $1
          and d.id < $2
          and not exists (select 1 from rowlock.task_kept k where k.id = d.id)
        order by d.id
        limit $3
      )
      union all
      (
        select d.id, null
        from rowlock.dead d
        where d.id >= $1
          and d.id < $2
          and not exists (select 1 from rowlock.task_kept k where k.id = d.id)
        order by d.id
        limit $3
      )
      union all
      select task.id, null
      from
        rowlock.ready r,
        generate_series(greatest(r.id, $1), least(r.id + r.n, $2) - 1) task(id)
      where r.id < $2 and r.id + r.n > $1
      union all
      select task.id, null
      from
        rowlock.lease l,
        unnest(l.firsts, l.ns) range(first_id, n),
        generate_series(
          greatest(range.first_id, $1),
          least(range.first_id + range.n, $2) - 1
        ) task(id)
      where task.id <> all (l.settled)
      union all
      select task.id, r.at
      from
        rowlock.queue q,
        rowlock.receipt r,
        unnest(r.firsts, r.ns) range(first_id, n),
        generate_series(
          greatest(range.first_id, $1),
          least(range.first_id + range.n, $2) - 1
        ) task(id)
      where r.queue = q.id
        and r.state in (1, 3)
        and r.firsts[1] > $1 - 8589934592
        and r.firsts[1] < $2
        and r.at > now() - case r.state when 1 then q.keep_completed else q.keep_cancelled end
        and r.at > now() - (
          select greatest(max(every.keep_completed), max(every.keep_cancelled))
          from rowlock.queue every
        )
    )
    select array_agg(chosen.id order by chosen.id), array_agg(chosen.at order by chosen.id)
    from (
      select wanted.id, max(wanted.at) at
      from wanted
      where not exists (
        select 1
        from rowlock.task_kept k
        where k.id = wanted.id and k.id >= $1 and k.id < $2
      )
      group by wanted.id
      order by wanted.id
      limit $3
    ) chosen
    $q$
    into v_ids, v_finished
    using lo, hi, most;
  return rowlock.copy_tasks(part, v_ids, v_finished);
end $$;

-- Copies these tasks. Returns how many the partition has. If that fails, tries each half, so that
-- the error names a task.
create or replace function rowlock.copy_tasks(part text, ids bigint[], finished timestamptz[])
returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  n int;
  half int := cardinality(ids) / 2;
begin
  begin
    -- The lateral query reads each task by its id: a join would read the whole partition.
    execute format($q$
      insert into rowlock.task_kept (
          id, queue, k_low, priority, max_attempts, type, payload, trace, finished_at
        )
        select t.*, chosen.at
        from
          unnest($1, $2) chosen(id, at),
          lateral (
            select p.* from rowlock.%I p where p.id = chosen.id offset 0
          ) t
        on conflict do nothing
      $q$, part)
      using ids, finished;
    get diagnostics n = row_count;
    return n;
  exception when others then
    if rowlock.concerns_all_rows(sqlstate) then
      raise;
    end if;
    if half = 0 then
      raise exception 'task % cannot be copied: %', ids[1], sqlerrm using errcode = sqlstate;
    end if;
  end;
  return rowlock.copy_tasks(part, ids[:half], finished[:half])
    + rowlock.copy_tasks(part, ids[half + 1:], finished[half + 1:]);
end $$;

-- Deletes dead tasks older than cleanup.dead, and kept tasks that finished long enough ago, up to
-- `most` of each. Returns how many were deleted.
create or replace function rowlock.delete_expired_tasks(most int)
returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  deleted record;
  gone bigint[];
  kept bigint[];
  n int := 0;
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(4, 0) then
    return 0;
  end if;
  if not rowlock.clock_is_steady() then
    return 0;
  end if;
  for deleted in
    with old as (
      delete from rowlock.dead d
        where d.id in (
          select expired.id
          from
            rowlock.queue q,
            lateral (
              select candidate.id
              from rowlock.dead candidate
              where candidate.queue = q.id and candidate.at < now() - q.keep_dead
              order by candidate.at
              limit delete_expired_tasks.most
              for update skip locked
            ) expired
          limit delete_expired_tasks.most
        )
        returning d.id, d.queue, d.attempt
    )
    select old.queue, array_agg(old.id) ids, array_agg(old.attempt) attempts
    from old
    group by old.queue
  loop
    -- A receipt remains, so that a task whose partition still exists has a state.
    perform rowlock.write_receipt(
      deleted.queue, null, 2::smallint, deleted.ids, deleted.attempts
    );
    gone := gone || deleted.ids;
    n := n + cardinality(deleted.ids);
  end loop;
  kept := array(
    select expired.id
    from
      rowlock.queue q,
      lateral (
        select k.id
        from rowlock.task_kept k
        where k.queue = q.id
          and k.finished_at < now() - greatest(q.keep_completed, q.keep_cancelled)
        order by k.finished_at
        limit delete_expired_tasks.most
      ) expired
    limit delete_expired_tasks.most
  );
  delete from rowlock.task_kept k where k.id = any (gone || kept);
  delete from rowlock.task_error_kept e where e.id = any (gone || kept);
  return n + cardinality(kept);
end $$;

-- Marks kept tasks that finished at the moment when they were copied. Each pass looks at up to
-- `most` of the tasks that are not marked.
create or replace function rowlock.mark_finished(most int)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  start bigint;
begin
  -- Drawn once. Inside the query below it would be drawn for each row, and the first rows would
  -- never be chosen.
  select floor(random() * (max(k.id) - min(k.id) + 1))::bigint + min(k.id)
    into start
    from rowlock.task_kept k;
  update rowlock.task_kept k
    set finished_at = receipt.at
    from
      (
        select unmarked.*
        from (
          (
            select candidate.id, candidate.queue
            from rowlock.task_kept candidate
            where candidate.finished_at is null and candidate.id >= start
            order by candidate.id
            limit mark_finished.most
          )
          union all
          (
            select candidate.id, candidate.queue
            from rowlock.task_kept candidate
            where candidate.finished_at is null and candidate.id < start
            order by candidate.id
            limit mark_finished.most
          )
        ) unmarked
        limit mark_finished.most
      ) looked,
      lateral rowlock.find_receipt(looked.queue, looked.id) receipt
    where k.id = looked.id and receipt.state in (1, 3);
end $$;
