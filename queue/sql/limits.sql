create or replace function rowlock.refuse_unknown_queue(queue text) returns void language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'unknown queue "%"', queue using errcode = 'RL001',
    hint = coalesce('Queues of this database: ' || (select string_agg(q.name, ', ' order by q.name)
        from rowlock.queue q where not q.restricted or rowlock.has_permission(null, q.id)) || '.',
                    case when exists (select 1 from rowlock.queue) then 'There is none that you may use.'
                        else 'This database has no queue yet: apply a TaskQueue.' end);
end $$;

create or replace function rowlock.refuse_payload(q rowlock.queue, bytes int) returns void language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'payload of % bytes is larger than limits.payloadBytes (%) of queue "%"', bytes, q.payload_limit, q.name
    using errcode = 'RL003', hint = 'Store it elsewhere and enqueue a reference, or raise limits.payloadBytes of the TaskQueue.';
end $$;

create or replace function rowlock.refuse_full(q rowlock.queue) returns void language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'queue "%" is full: its backlog reached limits.backlog (%)', q.name, q.backlog_limit
    using errcode = 'RL004', hint = 'Enqueue again later, add workers, or raise limits.backlog of the TaskQueue.';
end $$;

-- What a transaction may add to a queue, whose flag it does not move before its commit: about twice the
-- limit. `added` is what Postgres counts for this session since it last told its statistics: of this
-- transaction and, it may be, of the ones just before; so what there was at the first question is taken off.
-- It counts all queues together. This is against a runaway import; a producer that means harm can commit in
-- between.
create or replace function rowlock.check_added(q rowlock.queue, setting text, added bigint) returns void
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

create or replace function rowlock.refuse_later(q rowlock.queue) returns void language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'queue "%" has its limit of tasks that are due in more than a day (limits.backlog: %)',
      q.name, q.backlog_limit
    using errcode = 'RL004',
        hint = 'Enqueue again later, or raise limits.backlog of the TaskQueue; those that are due sooner are taken.';
end $$;

create or replace function rowlock.refuse_delay(q rowlock.queue) returns void language plpgsql stable
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres' as $$
begin
  raise exception 'queue "%" takes no task that is due in more than % (limits.maxDelay)', q.name,
      justify_hours(q.max_delay)
    using errcode = 'RL005', hint = 'Enqueue it later, or raise limits.maxDelay of the TaskQueue.';
end $$;

-- Whether a partition takes the tasks of this moment.
create or replace function rowlock.has_partition() returns boolean language sql volatile set search_path = pg_catalog, pg_temp
as $$
  select rowlock.partitions_until() > date_part('epoch', clock_timestamp()) - 1704067200::float8
$$;

-- Nobody has maintained this database for longer than partitions are made ahead: the producer makes the next
-- ones, for itself and all others. Of several one does, and the others wait for its commit: less than a client of
-- ours waits for an answer (STATEMENT_TIMEOUT), so that it hears why.
create or replace function rowlock.make_partitions() returns void language plpgsql volatile
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
      from rowlock.mutex_holders() h where h.operation = 1;
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

create or replace function rowlock.refuse_type(type text) returns void language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'the type of a task has 1 to 200 printable characters' using errcode = 'RL005',
    hint = format('It names what the handler does, for example "send-invoice"; data belongs in the payload.'
      ' This one has %s characters.', length(type));
end $$;

create or replace function rowlock.refuse_null(what text) returns void language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'the % is null', what using errcode = 'RL005', hint = case when what like 'array%' then 'No task at all is an empty array.' else 'A task without data has the payload {}.' end;
end $$;

-- What is due later than this is no backlog yet.
create or replace function rowlock.later_after() returns interval language sql immutable return interval '24 hours';

-- How much of a table is looked at to say how much it holds: all of it up to 512 pages (some 50,000 rows), of a larger one about so many, by chance.
create or replace function rowlock.sample_percent(what regclass) returns real language sql stable set search_path = pg_catalog, pg_temp
  return least(100, 512 * 100 / greatest(pg_relation_size(what) / current_setting('block_size')::int, 1)::real);

-- Whether so many tasks of a queue wait, counted, and no further than that. What is due in more than a day is
-- no backlog yet.
create or replace function rowlock.backlog_reaches(queue int, backlog_limit bigint) returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce((select sum(r.n) from (select x.n from rowlock.ready x where x.queue = $1 limit $2) r), 0)
    + (select count(*) from (select 1 from rowlock.delayed d where d.queue = $1
        and d.due <= now() + rowlock.later_after() limit $2) d) >= $2
$$;
