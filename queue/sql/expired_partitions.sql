-- Retention of receipts, results, errors, heartbeats and allocations (R8). Empties the partitions
-- that no task needs; the caller detaches and drops them. Called by the cleanup of the operator and
-- of instances (queue/src/retention.rs), one session at a time.

-- The partitions of the other tables that no remaining task needs. Partitions with a pending detach
-- come first: until it is finished, Postgres detaches no other partition of the table.
create or replace function rowlock.expired_partitions()
returns table (parent text, part text, hi timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  keep interval;
  oldest timestamptz;
begin
  select coalesce(greatest(max(keep_completed), max(keep_cancelled)), interval '1 day')
    into keep
    from rowlock.queue;
  -- A task is younger than the end of the partition before its own. So rows that were written
  -- earlier belong to no remaining task.
  select min(p.hi) - 2 * rowlock.partition_width()
    into oldest
    from rowlock.partitions_of('task') p;
  return query
    select tables.parent, p.part, p.hi
    from
      unnest(array['receipt', 'result', 'task_error', 'heartbeat', 'allocation'])
        tables(parent),
      rowlock.partitions_of(tables.parent) p
    where p.hi <= case
        when tables.parent in ('heartbeat', 'allocation') then now() - interval '1 hour'
        else least(oldest, now() - keep)
      end
      -- A kept task needs its receipt and its result, so the task is deleted first.
      and (
        tables.parent not in ('receipt', 'result')
        or not exists (select 1 from rowlock.task_kept k where k.finished_at < p.hi)
      )
    order by p.detaches desc, p.hi;
end $$;

-- Moves up to `most` errors of kept tasks out of the expired partitions, in a separate transaction.
-- Returns how many; fewer than `most` means that all are moved.
create or replace function rowlock.move_kept_errors(most int default 5000)
returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
set jit = off
as $$
declare
  p record;
  n int;
  moved int := 0;
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(1, 0) then
    return 0;
  end if;
  if not rowlock.clock_is_steady() then
    return 0;
  end if;
  for p in
    select expired.part
    from rowlock.expired_partitions() expired
    where expired.parent = 'task_error'
  loop
    execute format($q$
      with moved as (
        delete from rowlock.%1$I error
          where error.ctid = any (
            array(
              select e.ctid
              from rowlock.%1$I e
              where exists (select 1 from rowlock.task_kept k where k.id = e.id)
              limit $1
            )
          )
          returning error.*
      )
      insert into rowlock.task_error_kept (at, id, attempt, instance, error)
        select moved.at, moved.id, moved.attempt, moved.instance, moved.error
        from moved
      $q$, p.part)
      using most - moved;
    get diagnostics n = row_count;
    moved := moved + n;
    exit when moved >= most;
  end loop;
  return moved;
end $$;

-- Empties the expired partitions of the other tables under the same rules, and returns them as
-- "table partition".
create or replace function rowlock.empty_other_partitions()
returns text[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
set jit = off
as $$
declare
  p record;
  emptied text[] := '{}';
  unused boolean;
begin
  perform rowlock.require_read_committed();
  if not rowlock.try_mutex(1, 0) then
    return emptied;
  end if;
  -- Tables that a session detached and then did not drop.
  for p in
    select c.relname part
    from pg_class c
    where c.relnamespace = 'rowlock'::regnamespace
      and c.relkind = 'r'
      and not c.relispartition
      and c.relname ~ '^(task|receipt|result|task_error|heartbeat|allocation)_[0-9]+$'
  loop
    begin
      execute format('lock table rowlock.%I in access exclusive mode', p.part);
      execute format('select not exists (select 1 from rowlock.%I)', p.part) into unused;
      if unused then
        execute format('drop table rowlock.%I', p.part);
      end if;
    exception
      when lock_not_available then null;
      when others then raise warning 'table % cannot be dropped: %', p.part, sqlerrm;
    end;
  end loop;
  if not rowlock.clock_is_steady() then
    return emptied;
  end if;
  for p in
    select * from rowlock.expired_partitions()
  loop
    begin
      execute format('lock table rowlock.%I in access exclusive mode', p.part);
      if p.parent = 'task_error' then
        execute format(
          'select not exists (
            select 1
            from rowlock.%I e
            where e.id in (select k.id from rowlock.task_kept k)
          )',
          p.part
        ) into unused;
        continue when not unused;   -- rowlock.move_kept_errors has not finished
      end if;
      execute format('truncate rowlock.%I', p.part);
      emptied := emptied || (p.parent || ' ' || p.part);
    exception
      when lock_not_available then null;   -- this one is being read: continue with the others
      when others then raise warning 'partition % cannot be emptied: %', p.part, sqlerrm;
    end;
  end loop;
  return emptied;
end $$;
