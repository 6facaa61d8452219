-- The frequent maintenance of a database. Instances and the operator call `maintain` about once a
-- second (queue/src/maintenance.rs).

-- Sets and clears a queue's flags backlog_full and far_future_full. Deletes instances that ended
-- long ago, and obsolete requests to cancel. Cheap enough for every few seconds.
create or replace function rowlock.update_backlog_limits()
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  flags record;
begin
  if not rowlock.try_mutex(3, 0) then
    return;
  end if;
  for flags in
    select
      counted.queue,
      case
        when q.backlog_full then counted.n >= q.backlog_limit * 0.95
        -- An estimate may be far off if a queue's rows are close together. So before producers are
        -- refused, the queue is counted.
        when counted.n >= q.backlog_limit then rowlock.backlog_reaches(q.id, q.backlog_limit)
        else false
      end backlog_full,
      -- A separate limit of the same size, so that tasks of next year do not prevent producers from
      -- enqueuing what is due today.
      counted.far_future >= case
        when q.far_future_full then q.backlog_limit * 0.95
        else q.backlog_limit
      end far_future_full
    from (
      select b.*, b.available + b.scheduled + b.retryable - b.far_future n
      from rowlock.backlog() b
    ) counted
    join rowlock.queue q on q.id = counted.queue
  loop
    update rowlock.queue q
      set backlog_full = flags.backlog_full, far_future_full = flags.far_future_full
      where q.id = flags.queue
        and (q.backlog_full, q.far_future_full) <> (flags.backlog_full, flags.far_future_full);
  end loop;
  if rowlock.clock_is_steady() then
    delete from rowlock.instance i
      where i.ended_at < now() - interval '7 days'
        and not exists (select 1 from rowlock.lease l where l.instance = i.id);
  end if;
  -- A request that was made while its task finished is obsolete, and slows down every settlement.
  delete from rowlock.cancel_request c
    where c.id in (
      select request.id
      from rowlock.cancel_request request
      where request.at < now() - interval '1 minute'
        and coalesce(
          (
            select rowlock.find_state(t.id, t.queue, t.priority, t.k_low)
            from rowlock.every_task t
            where t.id = request.id
          ),
          ''
        ) not in ('scheduled', 'retryable', 'available', 'running')
      order by request.at
      limit 100
    );
end $$;

-- One pass of maintenance in one statement. It moves due tasks, and returns a note for the
-- watermarks. With `check_limits` it compares the backlogs with their limits. With
-- `read_heartbeats` it returns the newest heartbeat of every live instance. No row: another session
-- is doing it.
--
-- The note is one step of an exact watermark (R6): the next k, greater than every k drawn before,
-- and an xid drawn after. A transaction gets its xid before it draws a k. So once xmin has reached
-- the noted xid, no transaction that drew an older k is open, prepared ones included. Therefore k
-- is read before anything here writes. pg_snapshot_xmax cannot replace the xid: it is the one after
-- the last *completed* transaction, and an open one may have a higher xid.
create or replace function rowlock.maintain(
  watermark timestamptz,
  most int,
  check_limits boolean,
  read_heartbeats boolean
)
returns table (
  moved int,
  more boolean,
  next timestamptz,
  k bigint,
  xid bigint,
  xmin bigint,
  at timestamptz,
  instances bigint[],
  heartbeats bigint[]
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_k bigint;
  v_at timestamptz;
begin
  select s.last_value + s.is_called::int, clock_timestamp() into v_k, v_at from rowlock.k_seq s;
  if check_limits then
    perform rowlock.update_backlog_limits();
  end if;
  return query
    select
      due.*,
      v_k,
      pg_current_xact_id()::text::bigint,
      pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
      v_at,
      live.*
    from
      rowlock.move_due(maintain.watermark, maintain.most) due,
      (
        select array_agg(h.instance), array_agg(h.heartbeat)
        from rowlock.newest_heartbeats() h
        where maintain.read_heartbeats
      ) live;
end $$;
