-- Whether the caller may begin maintenance: make partitions, or clean up. One session of a database at a time has it, for at most five
-- minutes, and gives it back by rowlock.end_maintenance. What lies further ahead was written by a clock that was.
create or replace function rowlock.begin_maintenance(cleanup boolean) returns boolean
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
create or replace function rowlock.end_maintenance(cleanup boolean) returns void language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  update rowlock.maintenance m set
    next_partitions_at = case when $1 then m.next_partitions_at else now() + interval '1 minute' end,
    next_cleanup_at = case when $1 then now() + interval '1 minute' else m.next_cleanup_at end;
end $$;

-- Whether the clock has made a step since then, or nobody has looked for so long that nobody would know.
create or replace function rowlock.is_step(seen_at timestamptz) returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
  select now() not between $1 - interval '1 minute' and $1 + interval '1 hour'
$$;

-- Whether anything may be deleted because it is old: not until the clock has gone on for an hour without a step. A clock that is ahead for
-- minutes has nothing deleted.
create or replace function rowlock.clock_is_steady() returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
  select m.steady_since <= now() - interval '1 hour' and not rowlock.is_step(m.seen_at) from rowlock.maintenance m
$$;
