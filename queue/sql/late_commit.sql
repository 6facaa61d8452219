-- What happens when an enqueuing transaction commits: deferred triggers on `ready` and `delayed`.

-- Handles a row whose transaction took long. The row gets a new k, because claims may already have
-- passed its old one (R3). Returns whether to send a NOTIFY: instances may have gone to sleep since
-- the row was inserted.
create or replace function rowlock.handle_late_commit(r rowlock.ready)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  update rowlock.ready late
    set k = nextval('rowlock.k_seq'), fresh = false, moved = rowlock.chunk_of(late.id)
    where late.queue = r.queue
      and late.shard = r.shard
      and late.lane = r.lane
      and late.priority = r.priority
      and late.k = r.k;
  return current_setting('rowlock.notify', true) is distinct from 'off'
    and exists (
      select 1
      from rowlock.queue q
      where q.id = r.queue and q.notify_until > clock_timestamp()
    );
end $$;

-- Runs for every row that enters `ready`. It takes about a twentieth of the time of a single
-- enqueue, so it reads no table unless the commit is late. SECURITY DEFINER: on 14 to 17 a
-- deferred trigger runs as the role that commits (R10).
create or replace function rowlock.on_ready()
returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_context text;
begin
  -- Normally the shard of a range follows from its k. It does not for a part that
  -- rowlock.remove_from_range cut off. Such a part keeps its place: no claim has passed it.
  if clock_timestamp() - now() > interval '50 milliseconds' and new.shard = (new.k & 3) then
    new.notify := rowlock.handle_late_commit(new);
  end if;
  if new.notify and pg_notification_queue_usage() < 0.5 then
    -- Only one transaction per database sends NOTIFY at a time (R12). None does while Postgres'
    -- notification queue is filling up, because a full queue would fail the producer's commit
    -- (R11). With SET CONSTRAINTS IMMEDIATE the trigger runs inside the call, perhaps long before
    -- the commit. Then it takes no lock, which it would hold until the commit.
    get diagnostics v_context = pg_context;
    if position(chr(10) in v_context) > 0 or rowlock.try_mutex(0, 0) then
      perform pg_notify('rowlock', new.queue::text);
    end if;
  end if;
  return null;
end $$;

do $$ begin
  if not exists (
    select 1
    from pg_trigger t
    where t.tgname = 'at_commit' and t.tgrelid = 'rowlock.ready'::regclass
  ) then
    create constraint trigger at_commit
      after insert on rowlock.ready
      deferrable initially deferred
      for each row execute function rowlock.on_ready();
  end if;
end $$;

-- A task that became due before its transaction committed is due at the commit: the maintenance
-- that moves due tasks may already have passed its time (R13).
create or replace function rowlock.on_delayed()
returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  if new.due < clock_timestamp() then
    update rowlock.delayed
      set due = clock_timestamp()
      where id = new.id;
  end if;
  return null;
end $$;

do $$ begin
  if not exists (
    select 1
    from pg_trigger t
    where t.tgname = 'at_commit' and t.tgrelid = 'rowlock.delayed'::regclass
  ) then
    create constraint trigger at_commit
      after insert on rowlock.delayed
      deferrable initially deferred
      for each row execute function rowlock.on_delayed();
  end if;
end $$;
