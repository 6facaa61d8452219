-- At most this many payloads in one call: it bounds the memory of a statement.
create or replace function rowlock.enqueue_many_limit() returns int language sql immutable return 100000;

create or replace function rowlock.enqueue_many(queue text, type text, payloads json[], options jsonb default '{}') returns setof bigint
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
  if due > clock_timestamp() + q.max_delay then perform rowlock.refuse_delay(q); end if;
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
      execute format('create or replace function rowlock.%s(queue text, type text, %s, options %s) returns %s
          language sql volatile as %L',
        f[1], f[2], o[1], f[4], format(' select rowlock.%s($1, $2, %s, %s) ', f[1], f[3], o[2]));
    end loop;
  end loop;
end $$;
