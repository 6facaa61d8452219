-- Enqueue, and what happens at the commit of the enqueuing transaction.
-- SQLSTATEs of ours: RL001 unknown queue, RL002 unknown option, RL003 payload too large, RL004 backlog full, RL005 bad value,
-- RL006 instance gone, RL007 wrong isolation level, RL008 queue owned by another, RL009 queue in use.

-- Options: priority 0..3 (0 first; default 1), run_at (timestamptz) or delay (interval), max_attempts, bell (false: no NOTIFY, for
-- PREPARE TRANSACTION). An option we do not know is refused, so that a typing error loses nothing.
create function rowlock.check_options(options jsonb) returns void language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare bad text;
begin
  if jsonb_typeof(options) is distinct from 'object' then
    raise exception 'options must be a JSON object' using errcode = 'RL005', hint = 'Leave them out, or pass for example {"priority": 0}.';
  end if;
  select key into bad from jsonb_object_keys(options) key where key not in ('priority', 'run_at', 'delay', 'max_attempts', 'bell') limit 1;
  if found then
    raise exception 'unknown option "%"', bad using errcode = 'RL002', hint = 'Options are priority, run_at, delay, max_attempts and bell.';
  end if;
  if options ? 'run_at' and options ? 'delay' then
    raise exception 'run_at and delay exclude each other' using errcode = 'RL005', hint = 'Give one of them.';
  end if;
  if options ? 'priority' and (options->>'priority') !~ '^[0-3]$' then
    raise exception 'priority must be 0, 1, 2 or 3' using errcode = 'RL005', hint = '0 is claimed first; the default is 1.';
  end if;
  if options ? 'max_attempts' and not ((options->>'max_attempts') ~ '^[0-9]{1,4}$' and (options->>'max_attempts')::int between 1 and 1000) then
    raise exception 'max_attempts must be a whole number from 1 to 1000' using errcode = 'RL005', hint = 'Leave it out for the queue''s own.';
  end if;
  if options ? 'bell' and jsonb_typeof(options->'bell') <> 'boolean' then
    raise exception 'bell must be true or false' using errcode = 'RL005', hint = 'false enqueues without NOTIFY, for PREPARE TRANSACTION.';
  end if;
end $$;

-- The time that the options say; null: at once.
create function rowlock.due_of(options jsonb) returns timestamptz language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare delay interval; due timestamptz;
begin
  if options ? 'delay' then
    begin
      delay := (options->>'delay')::interval;
    exception when data_exception then
      raise exception 'delay is not an interval' using errcode = 'RL005', hint = 'For example "15 seconds" or "PT15S".';
    end;
    if delay < interval '0' then
      raise exception 'delay must not be negative' using errcode = 'RL005', hint = 'Leave it out to run the task now.';
    end if;
    begin
      due := now() + delay;
    exception when data_exception then
      due := 'infinity';
    end;
  elsif options ? 'run_at' then
    begin
      due := greatest((options->>'run_at')::timestamptz, now());
    exception when data_exception then
      raise exception 'run_at is not a time' using errcode = 'RL005', hint = 'For example "2030-01-31T08:00:00Z".';
    end;
  end if;
  -- Clients know no infinity, and few a year with five digits.
  if due > now() + interval '100 years' then
    raise exception 'the task would be due in more than 100 years' using errcode = 'RL005', hint = 'To run it never, do not enqueue it.';
  end if;
  return nullif(due, now());
end $$;

create function rowlock.refuse_unknown_queue(queue text) returns void language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'unknown queue "%"', queue using errcode = 'RL001',
    hint = coalesce('Queues of this database: ' || (select string_agg(q.name, ', ' order by q.name) from rowlock.queue q) || '.',
                    'This database has no queue yet: apply a TaskQueue.');
end $$;

create function rowlock.refuse_payload(q rowlock.queue, bytes int) returns void language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'payload of % bytes is larger than limits.payloadBytes (%) of queue "%"', bytes, q.payload_limit, q.name
    using errcode = 'RL003', hint = 'Store it elsewhere and enqueue a reference, or raise limits.payloadBytes of the TaskQueue.';
end $$;

create function rowlock.refuse_full(q rowlock.queue) returns void language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'queue "%" is full: its backlog reached limits.backlog (%)', q.name, q.backlog_limit
    using errcode = 'RL004', hint = 'Enqueue again later, add workers, or raise limits.backlog of the TaskQueue.';
end $$;

create function rowlock.refuse_type(type text) returns void language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'the type of a task has 1 to 200 characters, not %', length(type) using errcode = 'RL005', hint = 'It names what the handler shall do, for example "send-invoice"; data belongs into the payload.';
end $$;

create function rowlock.refuse_null(what text) returns void language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'the % is null', what using errcode = 'RL005', hint = case when what like 'array%' then 'No task at all is an empty array.' else 'A task without data has the payload {}.' end;
end $$;

-- What a producer sends as text is read here, so that what is no JSON is refused with a code of ours. The text itself is in no message.
create function rowlock.as_json(payload text) returns json language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  return payload::json;
exception when data_exception then
  raise exception 'the payload is not JSON' using errcode = 'RL005', hint = 'A text within JSON has double quotes: "hello", or to_json(''hello''::text).';
end $$;

create function rowlock.as_json(payloads text[]) returns json[] language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare bad record;
begin
  return payloads::json[];
exception when data_exception then
  for bad in select * from unnest(payloads) with ordinality p(p, o) loop
    begin
      perform bad.p::json;
    exception when data_exception then
      raise exception 'payload % of % is not JSON', bad.o, cardinality(payloads) using errcode = 'RL005', hint = 'A text within JSON has double quotes: "hello", or to_json(''hello''::text).';
    end;
  end loop;
end $$;

-- PL/pgSQL on purpose: its plans are cached, a SQL-language function measured 1.7 times slower.
create function rowlock.enqueue(queue text, type text, payload json, options jsonb default '{}') returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  q rowlock.queue; prio smallint := 1; due timestamptz; attempts smallint; v_k bigint;
  v_id bigint := ((floor(date_part('epoch', clock_timestamp()))::bigint - 1704067200) << 31) | ((nextval('rowlock.chunk_seq') & 8388607) << 8);
begin
  select * into q from rowlock.queue where name = $1;
  if not found then perform rowlock.refuse_unknown_queue($1); end if;
  if length($2) between 1 and 200 is not true then perform rowlock.refuse_type(coalesce($2, '')); end if;
  if payload is null then perform rowlock.refuse_null('payload'); end if;
  if octet_length(payload::text) > q.payload_limit then
    perform rowlock.refuse_payload(q, octet_length(payload::text));
  end if;
  if q.backlog_full then
    perform rowlock.refuse_full(q);
  end if;
  if options <> '{}' then
    perform rowlock.check_options(options);
    prio := coalesce((options->>'priority')::smallint, prio);
    attempts := (options->>'max_attempts')::smallint;
    due := rowlock.due_of(options);
    if (options->>'bell')::boolean is false then perform set_config('rowlock.bell', 'off', true); q.bell_until := '-infinity'; end if;
  end if;
  -- The transaction has its xid before it draws k, which the exact watermark relies on (R6).
  if due is null then v_k := case when pg_current_xact_id() is not null then nextval('rowlock.k_seq') end; end if;
  insert into rowlock.task (id, queue, k_low, priority, max_attempts, type, payload)
    values (v_id, q.id, ((v_k & 4294967295) - 2147483648)::int, prio, attempts, $2, $3);
  if due is null then
    insert into rowlock.ready (queue, shard, priority, since, k, id, n, attempt, fresh, ring) values (q.id, v_k & 3, prio, (v_id >> 31)::int, v_k, v_id, 1, 0, true, q.bell_until > now());
  else
    insert into rowlock.delayed (id, queue, priority, attempt, run_at, due) values (v_id, q.id, prio, 0, due, due);
  end if;
  return v_id;
end $$;

-- At most this many payloads in one call: it bounds the memory of a statement.
create function rowlock.enqueue_many_limit() returns int language sql immutable return 100000;

create function rowlock.enqueue_many(queue text, type text, payloads json[], options jsonb default '{}') returns setof bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  q rowlock.queue; prio smallint := 1; due timestamptz; attempts smallint; n int := cardinality(payloads); size int; bases bigint[]; ks bigint[]; largest int; missing bigint;
  second bigint := (floor(date_part('epoch', clock_timestamp()))::bigint - 1704067200) << 31;
begin
  select * into q from rowlock.queue where name = $1;
  if not found then perform rowlock.refuse_unknown_queue($1); end if;
  if length($2) between 1 and 200 is not true then perform rowlock.refuse_type(coalesce($2, '')); end if;
  if n > rowlock.enqueue_many_limit() then
    raise exception '% payloads in one call: at most % are taken', n, rowlock.enqueue_many_limit() using errcode = 'RL005', hint = 'Call it again for the rest, in the same transaction.';
  end if;
  if n is null then perform rowlock.refuse_null('array of payloads'); end if;
  select max(octet_length(p::text)), min(o) filter (where p is null) into largest, missing from unnest(payloads) with ordinality p(p, o);
  if missing is not null then perform rowlock.refuse_null(format('payload %s of %s', missing, n)); end if;
  if largest > q.payload_limit then
    perform rowlock.refuse_payload(q, largest);
  end if;
  if q.backlog_full then
    perform rowlock.refuse_full(q);
  end if;
  options := coalesce(options, '{}');
  perform rowlock.check_options(options);
  prio := coalesce((options->>'priority')::smallint, prio);
  attempts := (options->>'max_attempts')::smallint;
  due := rowlock.due_of(options);
  if (options->>'bell')::boolean is false then perform set_config('rowlock.bell', 'off', true); q.bell_until := '-infinity'; end if;
  size := q.range_size;
  bases := array(select second | ((nextval('rowlock.chunk_seq') & 8388607) << 8) from generate_series(1, (n + size - 1) / size));
  -- The transaction has its xid before it draws k, which the exact watermark relies on (R6).
  if due is null and pg_current_xact_id() is not null then
    ks := array(select nextval('rowlock.k_seq') from generate_series(1, (n + size - 1) / size));
  end if;
  insert into rowlock.task (id, queue, k_low, priority, max_attempts, type, payload)
    select bases[(p.o - 1) / size + 1] + (p.o - 1) % size, q.id, ((ks[(p.o - 1) / size + 1] & 4294967295) - 2147483648)::int, prio, attempts, $2, p.p
    from unnest(payloads) with ordinality p(p, o);
  if due is null then
    insert into rowlock.ready (queue, shard, priority, k, id, n, attempt, fresh, ring)
      select q.id, b.k & 3, prio, b.k, b.base, least(size, n - (b.o - 1) * size), 0, true, q.bell_until > now()
      from unnest(bases, ks) with ordinality b(base, k, o);
  else
    insert into rowlock.delayed (id, queue, priority, attempt, run_at, due)
      select bases[(o - 1) / size + 1] + (o - 1) % size, q.id, prio, 0, due, due from generate_series(1, n) o;
  end if;
  return query select bases[(o - 1) / size + 1] + (o - 1) % size from generate_series(1, n) o;
end $$;

-- Payloads of other types. With `text` a literal needs no cast: of several candidates Postgres takes that one.
create function rowlock.enqueue(queue text, type text, payload text, options jsonb default '{}') returns bigint language sql volatile
  as $$ select rowlock.enqueue($1, $2, rowlock.as_json($3), $4) $$;
create function rowlock.enqueue(queue text, type text, payload jsonb, options jsonb default '{}') returns bigint language sql volatile
  as $$ select rowlock.enqueue($1, $2, $3::pg_catalog.json, $4) $$;
create function rowlock.enqueue_many(queue text, type text, payloads text[], options jsonb default '{}') returns setof bigint language sql volatile
  as $$ select rowlock.enqueue_many($1, $2, rowlock.as_json($3), $4) $$;
create function rowlock.enqueue_many(queue text, type text, payloads jsonb[], options jsonb default '{}') returns setof bigint language sql volatile
  as $$ select rowlock.enqueue_many($1, $2, $3::pg_catalog.json[], $4) $$;

-- A row whose transaction took long: a new k, or claims would already have walked past it (R3); and a fresh look whether anybody sleeps.
create function rowlock.commit_late(r rowlock.ready) returns boolean language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
  update rowlock.ready y set k = nextval('rowlock.k_seq'), fresh = false
    where y.queue = r.queue and y.shard = r.shard and y.lane = r.lane and y.priority = r.priority and y.k = r.k;
  return current_setting('rowlock.bell', true) is distinct from 'off'
    and exists (select 1 from rowlock.queue q where q.id = r.queue and q.bell_until > clock_timestamp());
end $$;

-- At commit, for every enqueuing statement: it costs a single task's enqueue about a twentieth (measurements 10), so it asks no table unless late.
-- SECURITY DEFINER: on 14 to 17 a deferred trigger runs as the committing role (R10).
create function rowlock.on_ready() returns trigger language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare v_context text;
begin
  -- What was cut off a range keeps its place (rowlock.take_ready): it is the only one whose shard is not of its k, and nobody has walked past it.
  if clock_timestamp() - now() > interval '50 milliseconds' and new.shard = (new.k & 3) then
    new.ring := rowlock.commit_late(new);
  end if;
  if new.ring and pg_notification_queue_usage() < 0.5 then
    -- One notifier per database at a time (R12), and never into a queue that fills up: that would fail the producer's commit (R11). Whoever set constraints
    -- immediate is here within its own call, long before its commit perhaps: it would keep the lock from all others until then.
    get diagnostics v_context = pg_context;
    if position(chr(10) in v_context) > 0 or pg_try_advisory_xact_lock(1902601, 0) then
      perform pg_notify('rowlock', new.queue::text);
    end if;
  end if;
  return null;
end $$;
create constraint trigger at_commit after insert on rowlock.ready deferrable initially deferred
  for each row execute function rowlock.on_ready();

create function rowlock.on_delayed() returns trigger language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
  if new.due < clock_timestamp() then
    update rowlock.delayed set due = clock_timestamp() where id = new.id;
  end if;
  return null;
end $$;
create constraint trigger at_commit after insert on rowlock.delayed deferrable initially deferred
  for each row execute function rowlock.on_delayed();
