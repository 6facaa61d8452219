-- Partitions: made days ahead, never a default one (R8).

create function rowlock.id_at(t timestamptz) returns bigint language sql immutable
  return (floor(date_part('epoch', t))::bigint - 1704067200) << 31;
create function rowlock.id_time(i bigint) returns timestamptz language sql immutable
  return to_timestamp((i >> 31) + 1704067200);

-- Width of a partition: an eighth of the longest cleanup.completed, so that about a dozen exist (measurements 13).
create function rowlock.partition_width() returns interval language sql stable
  return (select greatest(interval '1 hour', date_trunc('hour', coalesce(max(greatest(keep_completed, keep_cancelled)), interval '24 hours') / 8))
          from rowlock.queue);

-- Until when partitions of task exist, in seconds since 2024.
create function rowlock.partitions_until() returns int language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce((max(substring(c.relname from '_([0-9]+)$')::bigint) - 1704067200)::int, 0)
  from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'rowlock.task'::regclass
$$;

-- The partitions of a table, and between which moments each takes rows.
create function rowlock.partitions_of(parent text) returns table (part text, lo timestamptz, hi timestamptz, detaches boolean)
language sql stable set search_path = pg_catalog, pg_temp set datestyle = 'ISO' set timezone = 'UTC' as $$
  select c.relname::text,
         case when $1 = 'task' then rowlock.id_time(b.b[1]::bigint) else b.b[1]::timestamptz end,
         case when $1 = 'task' then rowlock.id_time(b.b[2]::bigint) else b.b[2]::timestamptz end, i.inhdetachpending
  from pg_inherits i join pg_class c on c.oid = i.inhrelid,
    regexp_match(pg_get_expr(c.relpartbound, c.oid), '\(''?([^'')]+)''?\) TO \(''?([^'')]+)''?\)') b(b)
  where i.inhparent = format('rowlock.%I', $1)::regclass
$$;

-- Makes one partition, named after the moment it ends. An empty table of that name was detached, and not yet dropped.
create function rowlock.make_partition(parent text, lo timestamptz, hi timestamptz) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set datestyle = 'ISO' set timezone = 'UTC' as $$
declare child text := format('%s_%s', parent, floor(date_part('epoch', hi))::bigint); in_use boolean;
begin
  -- Not by a query: under REPEATABLE READ that would see neither who attached it nor what was enqueued since.
  if pg_get_partition_constraintdef(to_regclass(format('rowlock.%I', child))) is not null then
    raise exception 'another session has made the partition %', child using errcode = 'serialization_failure', hint = 'Begin the transaction again.';
  end if;
  if to_regclass(format('rowlock.%I', child)) is not null then
    execute format('select exists (select 1 from rowlock.%I)', child) into in_use;
    if not in_use then execute format('drop table rowlock.%I', child); end if;
  end if;
  execute format('create table rowlock.%I (like rowlock.%I including defaults including constraints)', child, parent);
  -- rowlock.move_kept_errors deletes from it, which a publication FOR ALL TABLES refuses otherwise (R9).
  if parent = 'task_error' then execute format('alter table rowlock.%I replica identity full', child); end if;
  if parent = 'task' then
    execute format('alter table rowlock.task attach partition rowlock.%I for values from (%s) to (%s)', child, rowlock.id_at(lo), rowlock.id_at(hi));
  else
    execute format('alter table rowlock.%I attach partition rowlock.%I for values from (%L) to (%L)', parent, child, lo, hi);
  end if;
end $$;

-- Makes the partition that now falls into where there is none, although there are later ones: the clock was ahead when the older ones were
-- dropped, or went back to before the oldest. It reaches from neighbour to neighbour.
create function rowlock.fill_partition_gap(parent text) returns void language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare ends timestamptz; begins timestamptz;
begin
  if exists (select 1 from rowlock.partitions_of(parent) p where p.lo <= now() and now() < p.hi) then return; end if;
  select max(p.hi) filter (where p.hi <= now()), min(p.lo) filter (where p.lo > now()) into ends, begins from rowlock.partitions_of(parent) p;
  if begins is null then return; end if;
  perform rowlock.make_partition(parent, coalesce(ends, date_trunc('hour', now()) - interval '2 days'), begins);
end $$;

-- Makes every partition up to `ahead` from now, finished tables attached: CREATE ... PARTITION OF would lock out producers.
create function rowlock.extend_partitions(ahead interval default '3 days') returns double precision
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '100ms'
set datestyle = 'ISO, YMD' set timezone = 'UTC' as $$
declare
  parent text; width interval; lo timestamptz; hi timestamptz; hours double precision := 'infinity';
begin
  if not rowlock.try_mutex(1, 0) then return null; end if;
  if ahead > interval '31 days' then
    raise exception 'partitions are made at most 31 days ahead' using errcode = 'RL005',
        hint = 'Each is a table: three days, the default, are enough.';
  end if;
  foreach parent in array array['task', 'receipt', 'result', 'task_error', 'heartbeat', 'allocation'] loop
    perform rowlock.fill_partition_gap(parent);
    width := case when parent in ('heartbeat', 'allocation') then interval '6 hours' else rowlock.partition_width() end;
    select to_timestamp(max(substring(c.relname from '_([0-9]+)$')::bigint)) into lo
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = format('rowlock.%I', parent)::regclass;
    -- The first partition reaches back two days: a clock that steps back finds its place.
    if lo is null then lo := date_trunc('hour', now()) - interval '2 days'; hi := date_trunc('hour', now()) + width;
    else hi := lo + width; end if;
    while lo < now() + ahead loop
      -- Nobody maintained it for longer than partitions were made ahead: one takes in all that time.
      hi := greatest(hi, date_trunc('hour', now()) + width);
      perform rowlock.make_partition(parent, lo, hi);
      lo := hi; hi := hi + width;
    end loop;
    hours := least(hours, date_part('epoch', lo - now()) / 3600);
  end loop;
  -- For enqueue, which makes partitions itself where nobody has. A row that somebody changes is left for the
  -- next time.
  update rowlock.queue q set partitions_until = rowlock.partitions_until() where q.id in (
    select x.id from rowlock.queue x where x.partitions_until <> rowlock.partitions_until()
        for no key update skip locked);
  return hours;
end $$;

-- For how many seconds partitions are there without a gap, below zero where one is missing now; and how long ago the oldest one of tasks ended.
-- From the catalog, without a lock.
create function rowlock.partition_statistics() returns table (left_seconds double precision, oldest_seconds double precision)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  with parts as materialized (
    select t.parent, p.lo, p.hi from unnest(array['task', 'receipt', 'result', 'task_error', 'heartbeat', 'allocation']) t(parent), rowlock.partitions_of(t.parent) p
    where not p.detaches),
  last as (
    select x.parent, min(x.hi) hi from parts x
    where x.hi > now() and not exists (select 1 from parts y where y.parent = x.parent and y.lo = x.hi) group by x.parent),
  until as (
    select case when exists (select 1 from parts x where x.parent = l.parent and x.lo <= now() and now() < x.hi) then l.hi end hi
    from unnest(array['task', 'receipt', 'result', 'task_error', 'heartbeat', 'allocation']) t(parent) left join last l on l.parent = t.parent)
  select case when bool_and(u.hi is not null) then date_part('epoch', min(u.hi) - now()) else -1 end,
         date_part('epoch', now() - (select min(x.hi) from parts x where x.parent = 'task')) from until u
$$;

-- Whether the caller may begin maintenance: make partitions, or clean up. One session of a database at a time has it, for at most five
-- minutes, and gives it back by rowlock.end_maintenance. What lies further ahead was written by a clock that was.
create function rowlock.begin_maintenance(cleanup boolean) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  -- Only the owner may detach and drop.
  if $1 and not pg_has_role(session_user, (select c.relowner from pg_class c where c.oid = 'rowlock.task'::regclass), 'usage') then return false; end if;
  update rowlock.maintenance m set
    next_partitions_at = case when $1 then m.next_partitions_at else now() + interval '5 minutes' end,
    next_cleanup_at = case when $1 then now() + interval '5 minutes' else m.next_cleanup_at end,
    steady_since = case when rowlock.is_step(m.seen_at) then now() else m.steady_since end,
    seen_at = now()
  where m.one_row = (
    select x.one_row from rowlock.maintenance x
    where case when $1 then x.next_cleanup_at else x.next_partitions_at end not between now() and now() + interval '5 minutes' for update skip locked);
  return found;
end $$;

-- The next turn is a minute later.
create function rowlock.end_maintenance(cleanup boolean) returns void language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  update rowlock.maintenance m set
    next_partitions_at = case when $1 then m.next_partitions_at else now() + interval '1 minute' end,
    next_cleanup_at = case when $1 then now() + interval '1 minute' else m.next_cleanup_at end;
end $$;

-- Whether the clock has made a step since then, or nobody has looked for so long that nobody would know.
create function rowlock.is_step(seen_at timestamptz) returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
  select now() not between $1 - interval '1 minute' and $1 + interval '1 hour'
$$;

-- Whether anything may be deleted because it is old: not until the clock has gone on for an hour without a step. A clock that is ahead for
-- minutes has nothing deleted.
create function rowlock.clock_is_steady() returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
  select m.steady_since <= now() - interval '1 hour' and not rowlock.is_step(m.seen_at) from rowlock.maintenance m
$$;

select rowlock.extend_partitions();
