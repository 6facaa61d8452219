-- Enqueues a task; it runs after the caller's transaction commits. Called by producers.

-- Returns the task's id. The function is in PL/pgSQL because then its plans are cached: as a SQL
-- function it took 1.7 times as long.
create or replace function rowlock.enqueue(
  queue text,
  type text,
  payload json,
  options jsonb default '{}'
)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  q rowlock.queue;
  v_priority smallint := 1;
  v_attempts smallint;
  v_trace text := nullif(current_setting('rowlock.traceparent', true), '');
  due timestamptz;
  v_k bigint;
  v_id bigint :=
    ((floor(date_part('epoch', clock_timestamp()))::bigint - 1704067200) << 31)
    | ((nextval('rowlock.chunk_seq') & 8388607) << 8);
begin
  select * into q from rowlock.queue where name = enqueue.queue;
  if not found then
    perform rowlock.refuse_unknown_queue(enqueue.queue);
  end if;
  if q.restricted and not rowlock.has_permission('producer', q.id) then
    perform rowlock.refuse_permission('producer', q.name);
  end if;
  if (length(enqueue.type) between 1 and 200 and enqueue.type !~ '[[:cntrl:]]') is not true then
    perform rowlock.refuse_type(coalesce(enqueue.type, ''));
  end if;
  if payload is null then
    perform rowlock.refuse_null('payload');
  end if;
  if octet_length(payload::text) > q.payload_limit then
    perform rowlock.refuse_payload(q, octet_length(payload::text));
  end if;
  if q.backlog_full then
    perform rowlock.refuse_full(q);
  end if;
  -- backlog_full does not include what this transaction itself has enqueued.
  if pg_stat_get_xact_tuples_inserted('rowlock.ready'::regclass)
      + pg_stat_get_xact_tuples_inserted('rowlock.delayed'::regclass) >= q.backlog_limit then
    perform rowlock.check_transaction_limit(
      q,
      'rowlock.added',
      pg_stat_get_xact_tuples_inserted('rowlock.ready'::regclass)
        + pg_stat_get_xact_tuples_inserted('rowlock.delayed'::regclass)
    );
  end if;
  if v_id >> 31 >= q.partitions_until then
    perform rowlock.make_partitions();
  end if;
  if options <> '{}' then
    perform rowlock.check_options(options);
    v_priority := coalesce((options->>'priority')::smallint, v_priority);
    v_attempts := (options->>'max_attempts')::smallint;
    v_trace := coalesce(options->>'traceparent', v_trace);
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
  end if;
  if v_trace is not null then
    v_trace := rowlock.producer_trace(v_trace, options);
  end if;
  -- The transaction gets its xid before it draws k. The exact watermark relies on that order (R6).
  if due is null then
    v_k := case when pg_current_xact_id() is not null then nextval('rowlock.k_seq') end;
  end if;
  insert into rowlock.task (id, queue, k_low, priority, max_attempts, type, payload, trace)
    values (
      v_id,
      q.id,
      ((v_k & 4294967295) - 2147483648)::int,
      v_priority,
      v_attempts,
      enqueue.type,
      enqueue.payload,
      v_trace
    );
  if due is null then
    insert into rowlock.ready (queue, shard, priority, since, k, id, n, attempt, fresh, notify)
      values (
        q.id,
        v_k & 3,
        v_priority,
        (v_id >> 31)::int,
        v_k,
        v_id,
        1,
        0,
        true,
        q.notify_until > now()
      );
  else
    insert into rowlock.delayed (id, queue, priority, attempt, run_at, due)
      values (v_id, q.id, v_priority, 0, due, due);
  end if;
  return v_id;
end $$;
