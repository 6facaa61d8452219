-- A row whose transaction took long: a new k, or claims would already have walked past it (R3); and a fresh look whether anybody sleeps.
create or replace function rowlock.commit_late(r rowlock.ready) returns boolean language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
  update rowlock.ready y set k = nextval('rowlock.k_seq'), fresh = false, moved = rowlock.chunk_of(y.id)
    where y.queue = r.queue and y.shard = r.shard and y.lane = r.lane and y.priority = r.priority and y.k = r.k;
  return current_setting('rowlock.notify', true) is distinct from 'off'
    and exists (select 1 from rowlock.queue q where q.id = r.queue and q.notify_until > clock_timestamp());
end $$;

-- At commit, for every enqueuing statement: it costs a single task's enqueue about a twentieth (measurements 10), so it asks no table unless late.
-- SECURITY DEFINER: on 14 to 17 a deferred trigger runs as the committing role (R10).
create or replace function rowlock.on_ready() returns trigger language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare v_context text;
begin
  -- What was cut off a range keeps its place (rowlock.take_ready): it is the only one whose shard is not of its k, and nobody has walked past it.
  if clock_timestamp() - now() > interval '50 milliseconds' and new.shard = (new.k & 3) then
    new.notify := rowlock.commit_late(new);
  end if;
  if new.notify and pg_notification_queue_usage() < 0.5 then
    -- One notifier per database at a time (R12), and never into a queue that fills up: that would fail the producer's commit (R11). Whoever set constraints
    -- immediate is here within its own call, long before its commit perhaps: it would keep the lock from all others until then.
    get diagnostics v_context = pg_context;
    if position(chr(10) in v_context) > 0 or rowlock.try_mutex(0, 0) then
      perform pg_notify('rowlock', new.queue::text);
    end if;
  end if;
  return null;
end $$;

do $$ begin
  if not exists (select 1 from pg_trigger t where t.tgname = 'at_commit' and t.tgrelid = 'rowlock.ready'::regclass) then
    create constraint trigger at_commit after insert on rowlock.ready deferrable initially deferred
      for each row execute function rowlock.on_ready();
  end if;
end $$;

create or replace function rowlock.on_delayed() returns trigger language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
  if new.due < clock_timestamp() then
    update rowlock.delayed set due = clock_timestamp() where id = new.id;
  end if;
  return null;
end $$;

do $$ begin
  if not exists (select 1 from pg_trigger t where t.tgname = 'at_commit' and t.tgrelid = 'rowlock.delayed'::regclass) then
    create constraint trigger at_commit after insert on rowlock.delayed deferrable initially deferred
      for each row execute function rowlock.on_delayed();
  end if;
end $$;
