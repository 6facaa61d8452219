-- Decides which session does maintenance, and whether the clock has stepped. Called by the
-- maintenance of instances and of the operator (queue/src/retention.rs).

-- Whether the caller may begin maintenance: make partitions, or clean up. Only one session of a
-- database has the turn at a time, for at most five minutes, and returns it by
-- rowlock.end_maintenance. A turn that begins further in the future was written while the clock was
-- ahead, and is ignored.
create or replace function rowlock.begin_maintenance(cleanup boolean)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Only the owner may detach and drop.
  if cleanup and not pg_has_role(
    session_user,
    (select c.relowner from pg_class c where c.oid = 'rowlock.task'::regclass),
    'usage'
  ) then
    return false;
  end if;
  update rowlock.maintenance m
    set
      next_partitions_at = case
        when cleanup then m.next_partitions_at
        else now() + interval '5 minutes'
      end,
      next_cleanup_at = case
        when cleanup then now() + interval '5 minutes'
        else m.next_cleanup_at
      end,
      steady_since = case
        when rowlock.clock_stepped(m.seen_at) then now()
        else m.steady_since
      end,
      seen_at = now()
    where m.one_row = (
      select due.one_row
      from rowlock.maintenance due
      where case when cleanup then due.next_cleanup_at else due.next_partitions_at end
        not between now() and now() + interval '5 minutes'
      for update skip locked
    );
  return found;
end $$;

-- Returns the turn. The next one may begin a minute later.
create or replace function rowlock.end_maintenance(cleanup boolean)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update rowlock.maintenance m
    set
      next_partitions_at = case
        when cleanup then m.next_partitions_at
        else now() + interval '1 minute'
      end,
      next_cleanup_at = case
        when cleanup then now() + interval '1 minute'
        else m.next_cleanup_at
      end;
end $$;

-- Whether the clock has stepped since then. After an hour without a check that cannot be known, and
-- it counts as a step.
create or replace function rowlock.clock_stepped(seen_at timestamptz)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select now() not between clock_stepped.seen_at - interval '1 minute'
    and clock_stepped.seen_at + interval '1 hour'
$$;

-- Whether anything may be deleted because of its age: only after an hour in which the clock has not
-- stepped. So a clock that is ahead for minutes deletes nothing.
create or replace function rowlock.clock_is_steady()
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select m.steady_since <= now() - interval '1 hour' and not rowlock.clock_stepped(m.seen_at)
  from rowlock.maintenance m
$$;
