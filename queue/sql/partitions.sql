-- Partitions. They are made days ahead, and there is never a default one (R8). `extend_partitions`
-- is called by the maintenance of instances and of the operator, and by an enqueue that finds no
-- partition; `partition_statistics` for metrics; the rest by other functions.

-- How much time a partition covers: an eighth of the longest cleanup.completed. So about a dozen
-- partitions exist.
create or replace function rowlock.partition_width()
returns interval
language sql stable
return (
  select greatest(
    interval '1 hour',
    date_trunc(
      'hour',
      coalesce(max(greatest(keep_completed, keep_cancelled)), interval '24 hours') / 8
    )
  )
  from rowlock.queue
);

-- When the last partition of `task` ends, in seconds since 2024.
create or replace function rowlock.partitions_until()
returns int
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((max(substring(c.relname from '_([0-9]+)$')::bigint) - 1704067200)::int, 0)
  from pg_inherits i
  join pg_class c on c.oid = i.inhrelid
  where i.inhparent = 'rowlock.task'::regclass
$$;

-- The partitions of a table, and the period [lo, hi) that each covers.
create or replace function rowlock.partitions_of(parent text)
returns table (part text, lo timestamptz, hi timestamptz, detaches boolean)
language sql stable
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
set timezone = 'UTC'
as $$
  select
    c.relname::text,
    case
      when partitions_of.parent = 'task' then rowlock.id_time(bound.parts[1]::bigint)
      else bound.parts[1]::timestamptz
    end,
    case
      when partitions_of.parent = 'task' then rowlock.id_time(bound.parts[2]::bigint)
      else bound.parts[2]::timestamptz
    end,
    i.inhdetachpending
  from pg_inherits i
  join pg_class c on c.oid = i.inhrelid,
    regexp_match(
      pg_get_expr(c.relpartbound, c.oid),
      '\(''?([^'')]+)''?\) TO \(''?([^'')]+)''?\)'
    ) bound(parts)
  where i.inhparent = format('rowlock.%I', partitions_of.parent)::regclass
$$;

-- Makes one partition, named after the time at which it ends. If an empty table has that name, it
-- was detached and not dropped yet.
create or replace function rowlock.make_partition(parent text, lo timestamptz, hi timestamptz)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
set timezone = 'UTC'
as $$
declare
  child text := format('%s_%s', parent, floor(date_part('epoch', hi))::bigint);
  in_use boolean;
begin
  -- A query would not do. Under REPEATABLE READ it would see neither a partition that was attached
  -- since the transaction began nor the tasks enqueued since.
  if pg_get_partition_constraintdef(to_regclass(format('rowlock.%I', child))) is not null then
    raise exception 'another session has made the partition %', child
      using errcode = 'serialization_failure',
        hint = 'Start the transaction again.';
  end if;
  if to_regclass(format('rowlock.%I', child)) is not null then
    execute format('select exists (select 1 from rowlock.%I)', child) into in_use;
    if not in_use then
      execute format('drop table rowlock.%I', child);
    end if;
  end if;
  execute format(
    'create table rowlock.%I (like rowlock.%I including defaults including constraints)',
    child, parent
  );
  -- rowlock.move_kept_errors deletes from it, which a publication FOR ALL TABLES would refuse (R9).
  if parent = 'task_error' then
    execute format('alter table rowlock.%I replica identity full', child);
  end if;
  if parent = 'task' then
    execute format(
      'alter table rowlock.task attach partition rowlock.%I for values from (%s) to (%s)',
      child, rowlock.id_at(lo), rowlock.id_at(hi)
    );
  else
    execute format(
      'alter table rowlock.%I attach partition rowlock.%I for values from (%L) to (%L)',
      parent, child, lo, hi
    );
  end if;
end $$;

-- Makes a partition for the present if it is missing although later ones exist: the clock was ahead
-- when older ones were dropped, or went back to before the oldest. It fills the whole gap.
create or replace function rowlock.fill_partition_gap(parent text)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  ends timestamptz;     -- where the partition before the gap ends
  begins timestamptz;   -- where the partition after it begins
begin
  if exists (
    select 1
    from rowlock.partitions_of(parent) p
    where p.lo <= now() and now() < p.hi
  ) then
    return;
  end if;
  select max(p.hi) filter (where p.hi <= now()), min(p.lo) filter (where p.lo > now())
    into ends, begins
    from rowlock.partitions_of(parent) p;
  if begins is null then
    return;
  end if;
  perform rowlock.make_partition(
    parent,
    coalesce(ends, date_trunc('hour', now()) - interval '2 days'),
    begins
  );
end $$;

-- Makes every partition up to `ahead` from now. Tables are first created and then attached, because
-- CREATE ... PARTITION OF would lock out producers. Returns for how many hours partitions exist;
-- null if another session is making them.
create or replace function rowlock.extend_partitions(ahead interval default '3 days')
returns double precision
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
set datestyle = 'ISO, YMD'
set timezone = 'UTC'
as $$
declare
  parent text;
  width interval;
  lo timestamptz;
  hi timestamptz;
  hours double precision := 'infinity';
begin
  if not rowlock.try_mutex(1, 0) then
    return null;
  end if;
  if ahead > interval '31 days' then
    raise exception 'partitions are made at most 31 days ahead'
      using errcode = 'RL005',
        hint = 'Each partition is a table. The default of three days is enough.';
  end if;
  foreach parent in array
    array['task', 'receipt', 'result', 'task_error', 'heartbeat', 'allocation']
  loop
    perform rowlock.fill_partition_gap(parent);
    width := case
      when parent in ('heartbeat', 'allocation') then interval '6 hours'
      else rowlock.partition_width()
    end;
    select to_timestamp(max(substring(c.relname from '_([0-9]+)$')::bigint))
      into lo
      from pg_inherits i
      join pg_class c on c.oid = i.inhrelid
      where i.inhparent = format('rowlock.%I', parent)::regclass;
    if lo is null then
      -- The first partition reaches back two days, in case the clock steps back.
      lo := date_trunc('hour', now()) - interval '2 days';
      hi := date_trunc('hour', now()) + width;
    else
      hi := lo + width;
    end if;
    while lo < now() + ahead loop
      -- Without maintenance for a long time, the last partition ended in the past. Then one
      -- partition covers all of that time.
      hi := greatest(hi, date_trunc('hour', now()) + width);
      perform rowlock.make_partition(parent, lo, hi);
      lo := hi;
      hi := hi + width;
    end loop;
    hours := least(hours, date_part('epoch', lo - now()) / 3600);
  end loop;
  -- For enqueue, which makes partitions itself if there is none. Skips a row that another session
  -- is changing; the next call updates it.
  update rowlock.queue q
    set partitions_until = rowlock.partitions_until()
    where q.id in (
      select outdated.id
      from rowlock.queue outdated
      where outdated.partitions_until <> rowlock.partitions_until()
      for no key update skip locked
    );
  return hours;
end $$;

-- For how many seconds partitions exist without a gap (below zero: one is missing now), and how
-- long ago the oldest one of tasks ended. Reads the catalog, without a lock.
create or replace function rowlock.partition_statistics()
returns table (left_seconds double precision, oldest_seconds double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  with parts as materialized (
    select tables.parent, p.lo, p.hi
    from
      unnest(array['task', 'receipt', 'result', 'task_error', 'heartbeat', 'allocation'])
        tables(parent),
      rowlock.partitions_of(tables.parent) p
    where not p.detaches
  ),
  gapless as (
    select p.parent, min(p.hi) hi
    from parts p
    where p.hi > now()
      and not exists (select 1 from parts next where next.parent = p.parent and next.lo = p.hi)
    group by p.parent
  ),
  covered as (
    select
      case
        when exists (
          select 1
          from parts p
          where p.parent = gapless.parent and p.lo <= now() and now() < p.hi
        ) then gapless.hi
      end hi
    from
      unnest(array['task', 'receipt', 'result', 'task_error', 'heartbeat', 'allocation'])
        tables(parent)
    left join gapless on gapless.parent = tables.parent
  )
  select
    case
      when bool_and(covered.hi is not null) then date_part('epoch', min(covered.hi) - now())
      else -1
    end,
    date_part('epoch', now() - (select min(p.hi) from parts p where p.parent = 'task'))
  from covered
$$;
