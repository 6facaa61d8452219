-- Enqueue, and what happens at the commit of the enqueuing transaction.
-- SQLSTATEs of ours: RL001 unknown queue, RL002 unknown option, RL003 payload too large, RL004 backlog full, RL005 bad value,
-- RL006 instance gone, RL007 wrong isolation level, RL008 queue owned by another, RL009 queue in use, RL010
-- no partition, RL011 no right.
--
-- A value means the same whatever the session is set to: functions that read or write times pin DateStyle,
-- TimeZone and IntervalStyle, and no plain literal here has a backslash, which standard_conforming_strings
-- would decide about.

-- Who asks: the role that the session has taken on, or else its user. Not current_user, which is the owner
-- within these functions; of an application's own SECURITY DEFINER function it is still the session's user
-- that counts.
create function rowlock.caller() returns name language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(nullif(current_setting('role', true), 'none')::name, session_user)
$$;

-- Whether the caller may act as `permission` (null: as any) for a queue. Asked only where some role has rights for
-- some queues alone (queue.restricted).
create function rowlock.has_permission(permission text, queue int) returns boolean language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
declare who name := rowlock.caller();
begin
  return pg_has_role(who, (select n.nspowner from pg_namespace n where n.nspname = 'rowlock'), 'usage')
      or exists (
    select 1 from rowlock.access a join pg_roles r on r.rolname = a.role
    where a.queue in (0, $2) and ($1 is null or a.permission = $1) and pg_has_role(who, r.oid, 'usage'));
end $$;

create function rowlock.refuse_permission(permission text, queue text) returns void language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'the role "%" is no % of queue "%"', rowlock.caller(), permission, queue using errcode = 'RL011',
    hint = format('The owner of the database can run: select rowlock.grant_role(%L, %L, array[%L]);',
        rowlock.caller(), permission, queue);
end $$;

-- For instances: whether they may work for this queue.
create function rowlock.require_worker(queue int) returns void language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
declare v_name text;
begin
  select q.name into v_name from rowlock.queue q where q.id = $1 and q.restricted;
  if found and not rowlock.has_permission('worker', $1) then perform rowlock.refuse_permission('worker', v_name); end if;
end $$;

-- Options: priority 0..3 (0 first; default 1), run_at (timestamptz) or delay (interval), max_attempts, notify (false: no NOTIFY, for
-- PREPARE TRANSACTION). An option we do not know is refused, so that a typing error loses nothing.
create function rowlock.check_options(options jsonb) returns void language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare bad text;
begin
  if jsonb_typeof(options) is distinct from 'object' then
    raise exception 'options must be a JSON object' using errcode = 'RL005', hint = 'Leave them out, or pass for example {"priority": 0}.';
  end if;
  select key into bad from jsonb_object_keys(options) key where key not in ('priority', 'run_at', 'delay', 'max_attempts', 'notify') limit 1;
  if found then
    raise exception 'unknown option "%"', bad using errcode = 'RL002', hint = 'Options are priority, run_at, delay, max_attempts and notify.';
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
  if options ? 'notify' and jsonb_typeof(options->'notify') <> 'boolean' then
    raise exception 'notify must be true or false' using errcode = 'RL005', hint = 'false enqueues without NOTIFY, for PREPARE TRANSACTION.';
  end if;
end $$;

-- The time that the options say; null: at once.
create function rowlock.due_of(options jsonb) returns timestamptz language plpgsql stable
set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set timezone = 'UTC'
    set intervalstyle = 'postgres' as $$
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
      -- Of a transaction that is open for a while, from this moment on.
      due := clock_timestamp() + delay;
    exception when data_exception then
      due := 'infinity';
    end;
  elsif options ? 'run_at' then
    -- Without an offset it would be another moment in each session's time zone; "tomorrow" another one each
    -- day.
    if (options->>'run_at') !~ ('^[0-9]{4,5}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?'
        || ' ?(Z|[+-][0-9]{2}(:?[0-9]{2})?)$') then
      raise exception 'run_at is not a time with an offset from UTC' using errcode = 'RL005',
          hint = 'For example "2030-01-31T08:00:00Z" or "2030-01-31T09:00:00+01:00".';
    end if;
    begin
      due := greatest((options->>'run_at')::timestamptz, now());
    exception when data_exception then
      raise exception 'run_at is not a time' using errcode = 'RL005', hint = 'For example "2030-01-31T08:00:00Z".';
    end;
  end if;
  -- Clients know no infinity, and few a year with five digits.
  if due > now() + interval '100 years' then
    raise exception 'the task would be due in more than 100 years' using errcode = 'RL005',
        hint = 'The latest possible time is 100 years from now.';
  end if;
  return case when due > clock_timestamp() then due end;
end $$;

create function rowlock.refuse_unknown_queue(queue text) returns void language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'unknown queue "%"', queue using errcode = 'RL001',
    hint = coalesce('Queues of this database: ' || (select string_agg(q.name, ', ' order by q.name)
        from rowlock.queue q where not q.restricted or rowlock.has_permission(null, q.id)) || '.',
                    case when exists (select 1 from rowlock.queue) then 'There is none that you may use.'
                        else 'This database has no queue yet: apply a TaskQueue.' end);
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

-- What a transaction may add to a queue, whose flag it does not move before its commit: about twice the
-- limit. `added` is what Postgres counts for this session since it last told its statistics: of this
-- transaction and, it may be, of the ones just before; so what there was at the first question is taken off.
-- It counts all queues together. This is against a runaway import; a producer that means harm can commit in
-- between.
create function rowlock.check_added(q rowlock.queue, setting text, added bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare noted text[] := string_to_array(current_setting(setting, true),
    ' '); xid text := pg_current_xact_id()::text;
begin
  if noted[1] is distinct from xid then perform set_config(setting, xid || ' ' || added, true);
  elsif added - noted[2]::bigint >= q.backlog_limit then
    -- It may have been other queues' tasks: counted, and again only after as many more.
    if rowlock.backlog_reaches(q.id, q.backlog_limit) then perform rowlock.refuse_full(q); end if;
    perform set_config(setting, xid || ' ' || added, true);
  end if;
end $$;

create function rowlock.refuse_later(q rowlock.queue) returns void language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'queue "%" has its limit of tasks that are due in more than a day (limits.backlog: %)',
      q.name, q.backlog_limit
    using errcode = 'RL004',
        hint = 'Enqueue again later, or raise limits.backlog of the TaskQueue; those that are due sooner are taken.';
end $$;

create function rowlock.refuse_delay(q rowlock.queue) returns void language plpgsql stable
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres' as $$
begin
  raise exception 'queue "%" takes no task that is due in more than % (limits.maxDelay)', q.name,
      justify_hours(q.max_delay)
    using errcode = 'RL005', hint = 'Enqueue it later, or raise limits.maxDelay of the TaskQueue.';
end $$;

-- Whether a partition takes the tasks of this moment.
create function rowlock.has_partition() returns boolean language sql volatile set search_path = pg_catalog, pg_temp
as $$
  select rowlock.partitions_until() > date_part('epoch', clock_timestamp()) - 1704067200::float8
$$;

-- Nobody has maintained this database for longer than partitions are made ahead: the producer makes the next
-- ones, for itself and all others. Of several one does, and the others wait for its commit: less than a client of
-- ours waits for an answer (STATEMENT_TIMEOUT), so that it hears why.
create function rowlock.make_partitions() returns void language plpgsql volatile
set search_path = pg_catalog, pg_temp set lock_timeout = '4s' as $$
declare holder text;
begin
  if rowlock.has_partition() then return; end if;
  begin
    perform 1 from rowlock.mutex m where m.operation = 1 and m.queue = 0 for update;
    if not rowlock.has_partition() then perform rowlock.extend_partitions(); end if;
  exception when lock_not_available then null;
  end;
  if not rowlock.has_partition() then
    select coalesce('process ' || h.pid, format('the prepared transaction "%s"', h.prepared)) into holder
      from rowlock.mutex_holders() h where h.permission = 1;
    if holder is not null then
      raise exception 'there is no partition for new tasks, and % holds the lock for making one', holder
        using errcode = 'RL010', hint = 'End that transaction: pg_terminate_backend, or ROLLBACK PREPARED.';
    end if;
    raise exception 'there is no partition for new tasks: nothing has maintained this database since %',
        to_timestamp(rowlock.partitions_until() + 1704067200) - interval '3 days'
      using errcode = 'RL010',
          hint = 'Start an instance or the operator, or run: select rowlock.extend_partitions(); as the owner of the database.';
  end if;
end $$;

create function rowlock.refuse_type(type text) returns void language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'the type of a task has 1 to 200 printable characters' using errcode = 'RL005',
    hint = format('It names what the handler does, for example "send-invoice"; data belongs in the payload.'
      ' This one has %s characters.', length(type));
end $$;

create function rowlock.refuse_null(what text) returns void language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'the % is null', what using errcode = 'RL005', hint = case when what like 'array%' then 'No task at all is an empty array.' else 'A task without data has the payload {}.' end;
end $$;

-- What a producer sends as text is read here, so that what is no JSON is refused with a code of ours. The text itself is in no message.
create function rowlock.as_json(payload text) returns json language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  return payload::json;
exception
  when data_exception then
    raise exception 'the payload is not JSON' using errcode = 'RL005',
        hint = 'A text within JSON has double quotes: "hello", or to_json(''hello''::text).';
  when statement_too_complex then
    raise exception 'the payload is nested too deeply' using errcode = 'RL005',
        hint = 'Postgres reads some thousand levels (max_stack_depth).';
end $$;

create function rowlock.as_json(payloads text[]) returns json[] language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare bad record;
begin
  return payloads::json[];
exception when data_exception or statement_too_complex then
  for bad in select * from unnest(payloads) with ordinality p(p, o) loop
    begin
      perform bad.p::json;
    exception when data_exception or statement_too_complex then
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
  if q.restricted and not rowlock.has_permission('producer', q.id) then perform rowlock.refuse_permission('producer', q.name);
      end if;
  if (length($2) between 1 and 200 and $2 !~ '[[:cntrl:]]') is not true then
      perform rowlock.refuse_type(coalesce($2, '')); end if;
  if payload is null then perform rowlock.refuse_null('payload'); end if;
  if octet_length(payload::text) > q.payload_limit then
    perform rowlock.refuse_payload(q, octet_length(payload::text));
  end if;
  if q.backlog_full then
    perform rowlock.refuse_full(q);
  end if;
  -- What a transaction has enqueued itself is in no flag yet.
  if pg_stat_get_xact_tuples_inserted('rowlock.ready'::regclass)
      + pg_stat_get_xact_tuples_inserted('rowlock.delayed'::regclass) >= q.backlog_limit then
    perform rowlock.check_added(q, 'rowlock.added',
      pg_stat_get_xact_tuples_inserted('rowlock.ready'::regclass)
        + pg_stat_get_xact_tuples_inserted('rowlock.delayed'::regclass));
  end if;
  if v_id >> 31 >= q.partitions_until then perform rowlock.make_partitions(); end if;
  if options <> '{}' then
    perform rowlock.check_options(options);
    prio := coalesce((options->>'priority')::smallint, prio);
    attempts := (options->>'max_attempts')::smallint;
    due := rowlock.due_of(options);
    if due > now() + q.max_delay then perform rowlock.refuse_delay(q); end if;
    if q.later_full and due > now() + rowlock.later_after() then perform rowlock.refuse_later(q); end if;
    if (options->>'notify')::boolean is false then perform set_config('rowlock.notify', 'off', true); q.notify_until := '-infinity'; end if;
  end if;
  -- The transaction has its xid before it draws k, which the exact watermark relies on (R6).
  if due is null then v_k := case when pg_current_xact_id() is not null then nextval('rowlock.k_seq') end; end if;
  insert into rowlock.task (id, queue, k_low, priority, max_attempts, type, payload)
    values (v_id, q.id, ((v_k & 4294967295) - 2147483648)::int, prio, attempts, $2, $3);
  if due is null then
    insert into rowlock.ready (queue, shard, priority, since, k, id, n, attempt, fresh, notify) values (q.id, v_k & 3, prio, (v_id >> 31)::int, v_k, v_id, 1, 0, true, q.notify_until > now());
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
  q rowlock.queue; prio smallint := 1; due timestamptz; attempts smallint; n int := cardinality(payloads); size int;
  bases bigint[]; largest int; missing bigint; added bigint; ks bigint[];
  second bigint := (floor(date_part('epoch', clock_timestamp()))::bigint - 1704067200) << 31;
begin
  select * into q from rowlock.queue where name = $1;
  if not found then perform rowlock.refuse_unknown_queue($1); end if;
  if q.restricted and not rowlock.has_permission('producer', q.id) then perform rowlock.refuse_permission('producer', q.name);
      end if;
  if (length($2) between 1 and 200 and $2 !~ '[[:cntrl:]]') is not true then
      perform rowlock.refuse_type(coalesce($2, '')); end if;
  if n > rowlock.enqueue_many_limit() then
    raise exception '% payloads in one call: at most % are taken', n, rowlock.enqueue_many_limit() using errcode = 'RL005', hint = 'Call it again for the rest, in the same transaction.';
  end if;
  if n is null then perform rowlock.refuse_null('array of payloads'); end if;
  select max(octet_length(p::text)), min(o) filter (where p is null) into largest, missing from unnest(payloads) with ordinality p(p, o);
  if missing is not null then perform rowlock.refuse_null(format('payload %s of %s', missing, n)); end if;
  if largest > q.payload_limit then
    perform rowlock.refuse_payload(q, largest);
  end if;
  if q.backlog_full or n > q.backlog_limit then
    perform rowlock.refuse_full(q);
  end if;
  if second >> 31 >= q.partitions_until then perform rowlock.make_partitions(); end if;
  options := coalesce(options, '{}');
  perform rowlock.check_options(options);
  prio := coalesce((options->>'priority')::smallint, prio);
  attempts := (options->>'max_attempts')::smallint;
  due := rowlock.due_of(options);
  if due > now() + q.max_delay then perform rowlock.refuse_delay(q); end if;
  if q.later_full and due > now() + rowlock.later_after() then perform rowlock.refuse_later(q); end if;
  if (options->>'notify')::boolean is false then perform set_config('rowlock.notify', 'off', true); q.notify_until := '-infinity'; end if;
  size := q.range_size;
  bases := array(select second | ((nextval('rowlock.chunk_seq') & 8388607) << 8) from generate_series(1, (n + size - 1) / size));
  -- The transaction has its xid before it draws k, which the exact watermark relies on (R6).
  if due is null and pg_current_xact_id() is not null then
    ks := array(select nextval('rowlock.k_seq') from generate_series(1, (n + size - 1) / size));
  end if;
  insert into rowlock.task (id, queue, k_low, priority, max_attempts, type, payload)
    select bases[(p.o - 1) / size + 1] + (p.o - 1) % size, q.id, ((ks[(p.o - 1) / size + 1] & 4294967295) - 2147483648)::int, prio, attempts, $2, p.p
    from unnest(payloads) with ordinality p(p, o);
  added := pg_stat_get_xact_tuples_inserted((select t.tableoid from rowlock.task t where t.id = bases[1]));
  if added > q.backlog_limit then perform rowlock.check_added(q, 'rowlock.added_many', added); end if;
  if due is null then
    insert into rowlock.ready (queue, shard, priority, k, id, n, attempt, fresh, notify)
      select q.id, b.k & 3, prio, b.k, b.base, least(size, n - (b.o - 1) * size), 0, true, q.notify_until > now()
      from unnest(bases, ks) with ordinality b(base, k, o);
  else
    insert into rowlock.delayed (id, queue, priority, attempt, run_at, due)
      select bases[(o - 1) / size + 1] + (o - 1) % size, q.id, prio, 0, due, due from generate_series(1, n) o;
  end if;
  return query select bases[(o - 1) / size + 1] + (o - 1) % size from generate_series(1, n) o;
end $$;

-- Payloads as clients send them. A parameter of unknown type, and a literal, is taken as text, the preferred
-- type of several. A text is a JSON array, or an array literal of Postgres, which some drivers send for a
-- list of strings: its first character tells.
create function rowlock.as_payloads(payloads json) returns json[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if json_typeof(payloads) <> 'array' then
    raise exception 'the payloads are no array' using errcode = 'RL005',
      hint = 'Pass a JSON array, [{"order": 1}, {"order": 2}]; rowlock.enqueue takes one task alone.';
  end if;
  return case when payloads is not null then array(
    select e.value from json_array_elements(payloads) with ordinality e(value, o) order by e.o) end;
end $$;

create function rowlock.as_payloads(payloads text) returns json[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if ltrim(payloads, E' \t\n\r') not like '{%' then return rowlock.as_payloads(rowlock.as_json(payloads)); end if;
  return rowlock.as_json(payloads::text[]);
exception when data_exception then
  raise exception 'the payloads are no array' using errcode = 'RL005',
    hint = 'Pass a JSON array, [{"order": 1}, {"order": 2}]; rowlock.enqueue takes one task alone.';
end $$;

create function rowlock.as_options(options text) returns jsonb language plpgsql immutable
set search_path = pg_catalog, pg_temp as $$
begin
  return options::jsonb;
exception when data_exception or statement_too_complex then
  raise exception 'options must be a JSON object' using errcode = 'RL005',
      hint = 'Leave them out, or pass for example {"priority": 0}.';
end $$;

-- With options of each type, so that one of them fits whatever a client makes of its values. Each only calls
-- one of the two above.
do $$
declare f text[]; o text[];
begin
  foreach f slice 1 in array array[
    ['enqueue', 'payload json', '$3', 'bigint'], ['enqueue', 'payload jsonb', '$3::pg_catalog.json',
        'bigint'],
    ['enqueue', 'payload text', 'rowlock.as_json($3)', 'bigint'],
    ['enqueue_many', 'payloads json[]', '$3', 'setof bigint'], ['enqueue_many', 'payloads jsonb[]',
        '$3::pg_catalog.json[]', 'setof bigint'],
    ['enqueue_many', 'payloads text[]', 'rowlock.as_json($3)', 'setof bigint'], ['enqueue_many',
        'payloads text', 'rowlock.as_payloads($3)', 'setof bigint'],
    ['enqueue_many', 'payloads json', 'rowlock.as_payloads($3)', 'setof bigint'],
    ['enqueue_many', 'payloads jsonb', 'rowlock.as_payloads($3::pg_catalog.json)', 'setof bigint']] loop
    foreach o slice 1 in array array[['jsonb default ''{}''', '$4'], ['json', '$4::pg_catalog.jsonb'],
        ['text', 'rowlock.as_options($4)']] loop
      continue when f[3] = '$3' and o[2] = '$4';
      execute format('create function rowlock.%s(queue text, type text, %s, options %s) returns %s
          language sql volatile as %L',
        f[1], f[2], o[1], f[4], format(' select rowlock.%s($1, $2, %s, %s) ', f[1], f[3], o[2]));
    end loop;
  end loop;
end $$;

-- A row whose transaction took long: a new k, or claims would already have walked past it (R3); and a fresh look whether anybody sleeps.
create function rowlock.commit_late(r rowlock.ready) returns boolean language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
  update rowlock.ready y set k = nextval('rowlock.k_seq'), fresh = false, moved = rowlock.chunk_of(y.id)
    where y.queue = r.queue and y.shard = r.shard and y.lane = r.lane and y.priority = r.priority and y.k = r.k;
  return current_setting('rowlock.notify', true) is distinct from 'off'
    and exists (select 1 from rowlock.queue q where q.id = r.queue and q.notify_until > clock_timestamp());
end $$;

-- At commit, for every enqueuing statement: it costs a single task's enqueue about a twentieth (measurements 10), so it asks no table unless late.
-- SECURITY DEFINER: on 14 to 17 a deferred trigger runs as the committing role (R10).
create function rowlock.on_ready() returns trigger language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
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
