-- The limits of a queue, and the errors of enqueue and enqueue_many. Called by those two.
-- `backlog_reaches`, `sample_percent` and `far_future_after` are also called by the functions that
-- count.

-- Raises RL001, with the queues that the caller may use.
create or replace function rowlock.refuse_unknown_queue(queue text)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'unknown queue "%"', queue
    using errcode = 'RL001',
      hint = coalesce(
        'Queues of this database: ' || (
          select string_agg(q.name, ', ' order by q.name)
          from rowlock.queue q
          where not q.restricted or rowlock.has_permission(null, q.id)
        ) || '.',
        case
          when exists (select 1 from rowlock.queue)
            then 'You have no permission for any queue of this database.'
          else 'This database has no queue yet: apply a TaskQueue.'
        end
      );
end $$;

-- Raises RL003.
create or replace function rowlock.refuse_payload(q rowlock.queue, bytes int)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'payload of % bytes is larger than limits.payloadBytes (%) of queue "%"',
      bytes, q.payload_limit, q.name
    using errcode = 'RL003',
      hint = 'Store it elsewhere and enqueue a reference, or raise limits.payloadBytes of the'
        ' TaskQueue.';
end $$;

-- Raises RL004.
create or replace function rowlock.refuse_full(q rowlock.queue)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'queue "%" is full: its backlog reached limits.backlog (%)',
      q.name, q.backlog_limit
    using errcode = 'RL004',
      hint = 'Enqueue again later, add workers, or raise limits.backlog of the TaskQueue.';
end $$;

-- Raises RL004 once a transaction has added about twice the limit to a queue: the queue's flag
-- `backlog_full` does not include its rows before it commits. `added` is Postgres' row count for
-- this session since the session last reported its statistics. It includes this transaction's rows,
-- and perhaps those of the transactions just before. So the count at the first call is subtracted.
-- It counts all queues together. This stops a runaway import, but not a malicious producer, which
-- can commit in between. `setting` is the name of the session setting that keeps the transaction's
-- id and first count.
create or replace function rowlock.check_transaction_limit(
  q rowlock.queue,
  setting text,
  added bigint
)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  noted text[] := string_to_array(current_setting(setting, true), ' ');
  xid text := pg_current_xact_id()::text;
begin
  if noted[1] is distinct from xid then
    perform set_config(setting, xid || ' ' || added, true);
  elsif added - noted[2]::bigint >= q.backlog_limit then
    -- The tasks may belong to other queues. So this queue is counted, and again after the same
    -- number of further tasks.
    if rowlock.backlog_reaches(q.id, q.backlog_limit) then
      perform rowlock.refuse_full(q);
    end if;
    perform set_config(setting, xid || ' ' || added, true);
  end if;
end $$;

-- Raises RL004 for a task that is due in the far future: see rowlock.far_future_after.
create or replace function rowlock.refuse_far_future(q rowlock.queue)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception
      'queue "%" has reached its limit of tasks that are due in more than a day'
      ' (limits.backlog: %)',
      q.name, q.backlog_limit
    using errcode = 'RL004',
      hint = 'Enqueue again later, or raise limits.backlog of the TaskQueue; tasks that are due'
        ' sooner are accepted.';
end $$;

-- Raises RL005 for a task that is due too late for its queue.
create or replace function rowlock.refuse_delay(q rowlock.queue)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $$
begin
  raise exception 'queue "%" accepts no task that is due in more than % (limits.maxDelay)',
      q.name, justify_hours(q.max_delay)
    using errcode = 'RL005',
      hint = 'Enqueue it later, or raise limits.maxDelay of the TaskQueue.';
end $$;

-- Whether there is a partition for a task that is enqueued now.
create or replace function rowlock.has_partition()
returns boolean
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select rowlock.partitions_until()
    > date_part('epoch', clock_timestamp()) - 1704067200::float8
$$;

-- Makes the next partitions, if no maintenance has run until the last existing partition ended. If
-- several producers call it, one makes them and the others wait for its commit. They wait for less
-- time than our clients wait for an answer (STATEMENT_TIMEOUT), so that they get the reason.
create or replace function rowlock.make_partitions()
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '4s'
as $$
declare
  holder text;
begin
  if rowlock.has_partition() then
    return;
  end if;
  begin
    perform 1 from rowlock.mutex m where m.operation = 1 and m.queue = 0 for update;
    if not rowlock.has_partition() then
      perform rowlock.extend_partitions();
    end if;
  exception when lock_not_available then
    null;
  end;
  if not rowlock.has_partition() then
    select coalesce('process ' || h.pid, format('the prepared transaction "%s"', h.prepared))
      into holder
      from rowlock.mutex_holders() h
      where h.operation = 1;
    if holder is not null then
      raise exception 'there is no partition for new tasks, and % holds the lock for making one',
          holder
        using errcode = 'RL010',
          hint = 'End that transaction: pg_terminate_backend, or ROLLBACK PREPARED.';
    end if;
    raise exception
        'there is no partition for new tasks: no maintenance of this database has run since %',
        to_timestamp(rowlock.partitions_until() + 1704067200) - interval '3 days'
      using errcode = 'RL010',
        hint = 'Start an instance or the operator, or run: select rowlock.extend_partitions(); as'
          ' the owner of the database.';
  end if;
end $$;

-- Raises RL005 for a task type that is empty, too long, or has control characters.
create or replace function rowlock.refuse_type(type text)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'the type of a task must have 1 to 200 printable characters'
    using errcode = 'RL005',
      hint = format(
        'It names what the handler does, for example "send-invoice"; data belongs in the payload.'
        ' This one has %s characters.',
        length(type)
      );
end $$;

-- Raises RL005 for a null in place of a payload or of an array of payloads.
create or replace function rowlock.refuse_null(what text)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'the % is null', what
    using errcode = 'RL005',
      hint = case
        when what like 'array%' then 'To enqueue no task, pass an empty array.'
        else 'A task without data has the payload {}.'
      end;
end $$;

-- Tasks that are due later than this from now do not count as backlog. They have a separate limit.
create or replace function rowlock.far_future_after()
returns interval
language sql immutable
return interval '24 hours';

-- The percentage of a table that is read to estimate its rows. A table of up to 512 pages (some
-- 50,000 rows) is read completely; of a larger one about 512 pages.
create or replace function rowlock.sample_percent(what regclass)
returns real
language sql stable
set search_path = pg_catalog, pg_temp
return least(
  100,
  512 * 100 / greatest(pg_relation_size(what) / current_setting('block_size')::int, 1)::real
);

-- Whether a queue's backlog has reached the limit. Counts exactly, and stops at the limit.
create or replace function rowlock.backlog_reaches(queue int, backlog_limit bigint)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select
    coalesce(
      (
        select sum(ready.n)
        from (
          select r.n
          from rowlock.ready r
          where r.queue = backlog_reaches.queue
          limit backlog_reaches.backlog_limit
        ) ready
      ),
      0
    ) + (
      select count(*)
      from (
        select 1
        from rowlock.delayed d
        where d.queue = backlog_reaches.queue
          and d.due <= now() + rowlock.far_future_after()
        limit backlog_reaches.backlog_limit
      ) delayed
    ) >= backlog_reaches.backlog_limit
$$;
