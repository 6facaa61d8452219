-- Enqueues many tasks of one type, as ranges of neighbouring ids. Called by producers.

-- The most payloads in one call. The limit bounds the memory of a statement.
create or replace function rowlock.enqueue_many_limit()
returns int
language sql immutable
return 100000;

-- Returns the tasks' ids in the order of the payloads.
create or replace function rowlock.enqueue_many(
  queue text,
  type text,
  payloads json[],
  options jsonb default '{}'
)
returns setof bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  q rowlock.queue;
  v_priority smallint := 1;
  v_attempts smallint;
  v_trace text;
  due timestamptz;
  n int := cardinality(payloads);
  size int;                        -- tasks in a range, which is a chunk of ids
  second bigint := (floor(date_part('epoch', clock_timestamp()))::bigint - 1704067200) << 31;
  bases bigint[];                  -- the first id of each range
  ks bigint[];                     -- the k of each range
  largest int;
  missing bigint;
  added bigint;
begin
  select * into q from rowlock.queue where name = enqueue_many.queue;
  if not found then
    perform rowlock.refuse_unknown_queue(enqueue_many.queue);
  end if;
  if q.restricted and not rowlock.has_permission('producer', q.id) then
    perform rowlock.refuse_permission('producer', q.name);
  end if;
  if (length(enqueue_many.type) between 1 and 200
      and enqueue_many.type !~ '[[:cntrl:]]') is not true then
    perform rowlock.refuse_type(coalesce(enqueue_many.type, ''));
  end if;
  if n > rowlock.enqueue_many_limit() then
    raise exception '% payloads in one call: the limit is %', n, rowlock.enqueue_many_limit()
      using errcode = 'RL005',
        hint = 'Call it again for the rest, in the same transaction.';
  end if;
  if n is null then
    perform rowlock.refuse_null('array of payloads');
  end if;
  select
    max(octet_length(list.payload::text)),
    min(list.place) filter (where list.payload is null)
    into largest, missing
    from unnest(payloads) with ordinality list(payload, place);
  if missing is not null then
    perform rowlock.refuse_null(format('payload %s of %s', missing, n));
  end if;
  if largest > q.payload_limit then
    perform rowlock.refuse_payload(q, largest);
  end if;
  if q.backlog_full or n > q.backlog_limit then
    perform rowlock.refuse_full(q);
  end if;
  if second >> 31 >= q.partitions_until then
    perform rowlock.make_partitions();
  end if;
  options := coalesce(options, '{}');
  perform rowlock.check_options(options);
  v_priority := coalesce((options->>'priority')::smallint, v_priority);
  v_attempts := (options->>'max_attempts')::smallint;
  v_trace := coalesce(
    options->>'traceparent',
    nullif(current_setting('rowlock.traceparent', true), '')
  );
  if v_trace is not null then
    v_trace := '*' || rowlock.producer_trace(v_trace, options);
  end if;
  due := rowlock.due_time(options);
  if due > clock_timestamp() + q.max_delay then
    perform rowlock.refuse_delay(q);
  end if;
  if q.far_future_full and due > now() + rowlock.far_future_after() then
    perform rowlock.refuse_far_future(q);
  end if;
  if (options->>'notify')::boolean is false then
    perform set_config('rowlock.notify', 'off', true);
    q.notify_until := '-infinity';
  end if;
  size := q.range_size;
  bases := array(
    select second | ((nextval('rowlock.chunk_seq') & 8388607) << 8)
    from generate_series(1, (n + size - 1) / size)
  );
  -- The transaction gets its xid before it draws k. The exact watermark relies on that order (R6).
  if due is null and pg_current_xact_id() is not null then
    ks := array(
      select nextval('rowlock.k_seq')
      from generate_series(1, (n + size - 1) / size)
    );
  end if;
  insert into rowlock.task (id, queue, k_low, priority, max_attempts, type, payload, trace)
    select
      bases[(list.place - 1) / size + 1] + (list.place - 1) % size,
      q.id,
      ((ks[(list.place - 1) / size + 1] & 4294967295) - 2147483648)::int,
      v_priority,
      v_attempts,
      enqueue_many.type,
      list.payload,
      v_trace
    from unnest(payloads) with ordinality list(payload, place);
  added := pg_stat_get_xact_tuples_inserted(
    (select t.tableoid from rowlock.task t where t.id = bases[1])
  );
  if added > q.backlog_limit then
    perform rowlock.check_transaction_limit(q, 'rowlock.added_many', added);
  end if;
  if due is null then
    insert into rowlock.ready (queue, shard, priority, k, id, n, attempt, fresh, notify)
      select
        q.id,
        range.k & 3,
        v_priority,
        range.k,
        range.base,
        least(size, n - (range.place - 1) * size),
        0,
        true,
        q.notify_until > now()
      from unnest(bases, ks) with ordinality range(base, k, place);
  else
    insert into rowlock.delayed (id, queue, priority, attempt, run_at, due)
      select bases[(place - 1) / size + 1] + (place - 1) % size, q.id, v_priority, 0, due, due
      from generate_series(1, n) place;
  end if;
  return query
    select bases[(place - 1) / size + 1] + (place - 1) % size
    from generate_series(1, n) place;
end $$;

-- Overloads for the types that clients send for payloads and options. Each of them only calls one
-- of the two functions that take json and jsonb.
do $$
declare
  form text[];     -- function, payload parameter, how it is passed on, result type
  option text[];   -- type of the options, how they are passed on
begin
  foreach form slice 1 in array array[
    ['enqueue', 'payload json', '$3', 'bigint'],
    ['enqueue', 'payload jsonb', '$3::pg_catalog.json', 'bigint'],
    ['enqueue', 'payload text', 'rowlock.as_json($3)', 'bigint'],
    ['enqueue_many', 'payloads json[]', '$3', 'setof bigint'],
    ['enqueue_many', 'payloads jsonb[]', '$3::pg_catalog.json[]', 'setof bigint'],
    ['enqueue_many', 'payloads text[]', 'rowlock.as_json($3)', 'setof bigint'],
    ['enqueue_many', 'payloads text', 'rowlock.as_payloads($3)', 'setof bigint'],
    ['enqueue_many', 'payloads json', 'rowlock.as_payloads($3)', 'setof bigint'],
    [
      'enqueue_many', 'payloads jsonb', 'rowlock.as_payloads($3::pg_catalog.json)',
      'setof bigint'
    ]
  ] loop
    foreach option slice 1 in array array[
      ['jsonb default ''{}''', '$4'],
      ['json', '$4::pg_catalog.jsonb'],
      ['text', 'rowlock.as_options($4)']
    ] loop
      continue when form[3] = '$3' and option[2] = '$4';
      execute format(
        'create or replace function rowlock.%s(queue text, type text, %s, options %s) returns %s
          language sql volatile as %L',
        form[1],
        form[2],
        option[1],
        form[4],
        format(' select rowlock.%s($1, $2, %s, %s) ', form[1], form[3], option[2])
      );
    end loop;
  end loop;
end $$;
