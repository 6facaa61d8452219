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
create function rowlock.room_until() returns int language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce((max(substring(c.relname from '_([0-9]+)$')::bigint) - 1704067200)::int, 0)
  from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'rowlock.task'::regclass
$$;

-- Makes every partition up to `ahead` from now, finished tables attached: CREATE ... PARTITION OF would lock out producers.
create function rowlock.extend_partitions(ahead interval default '3 days') returns double precision
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '100ms'
set datestyle = 'ISO, YMD' set timezone = 'UTC' as $$
declare
  parent text; width interval; lo timestamptz; hi timestamptz; child text; hours double precision := 'infinity';
begin
  if not rowlock.try_mutex(1, 0) then return null; end if;
  if ahead > interval '31 days' then
    raise exception 'partitions are made at most 31 days ahead' using errcode = 'RL005',
        hint = 'Each is a table: three days, the default, are enough.';
  end if;
  foreach parent in array array['task', 'receipt', 'result', 'failure', 'beat', 'allocation'] loop
    width := case when parent in ('beat', 'allocation') then interval '6 hours' else rowlock.partition_width() end;
    select to_timestamp(max(substring(c.relname from '_([0-9]+)$')::bigint)) into lo
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = format('rowlock.%I', parent)::regclass;
    -- The first partition reaches back two days: a clock that steps back finds its place.
    if lo is null then lo := date_trunc('hour', now()) - interval '2 days'; hi := date_trunc('hour', now()) + width;
    else hi := lo + width; end if;
    while lo < now() + ahead loop
      -- Nobody cared for longer than partitions were made ahead: one takes in all that time.
      hi := greatest(hi, date_trunc('hour', now()) + width);
      child := format('%s_%s', parent, floor(date_part('epoch', hi))::bigint);
      execute format('create table rowlock.%I (like rowlock.%I including defaults including constraints)', child, parent);
      if parent = 'task' then
        execute format('alter table rowlock.task attach partition rowlock.%I for values from (%s) to (%s)', child, rowlock.id_at(lo), rowlock.id_at(hi));
      else
        execute format('alter table rowlock.%I attach partition rowlock.%I for values from (%L) to (%L)', parent, child, lo, hi);
      end if;
      lo := hi; hi := hi + width;
    end loop;
    hours := least(hours, date_part('epoch', lo - now()) / 3600);
  end loop;
  -- For enqueue, which makes partitions itself where nobody has. A row that somebody changes is left for the
  -- next time.
  update rowlock.queue q set room_until = rowlock.room_until() where q.id in (
    select x.id from rowlock.queue x where x.room_until <> rowlock.room_until()
        for no key update skip locked);
  return hours;
end $$;
select rowlock.extend_partitions();
