-- PL/pgSQL on purpose: its plans are cached, a SQL-language function measured 1.7 times slower.
create or replace function rowlock.enqueue(queue text, type text, payload json, options jsonb default '{}') returns bigint
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
    if due > clock_timestamp() + q.max_delay then perform rowlock.refuse_delay(q); end if;
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
