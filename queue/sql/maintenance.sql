-- Sets and clears backlog_full, and forgets instances that ended long ago, and requests that nobody needs. Cheap enough for every few seconds.
create or replace function rowlock.update_backlog_limits() returns void language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
#variable_conflict use_column
declare v record;
begin
  if not rowlock.try_mutex(3, 0) then return; end if;
  for v in
    -- An estimate may be far off where rows lie together: no producer is refused for that, so what it says is counted.
    select x.queue, case when q.backlog_full then x.n >= q.backlog_limit * 0.95
             when x.n >= q.backlog_limit then rowlock.backlog_reaches(q.id, q.backlog_limit)
                 else false end backlog_full,
           -- Tasks of next year have a limit of their own, of the same size: they keep nobody from enqueuing
           -- what is due today.
           x.later >= case when q.later_full then q.backlog_limit * 0.95 else q.backlog_limit end later_full
    from (select y.*, y.available + y.scheduled + y.retryable - y.later n from rowlock.backlog() y) x
        join rowlock.queue q on q.id = x.queue
  loop
    update rowlock.queue y set backlog_full = v.backlog_full, later_full = v.later_full
      where y.id = v.queue and (y.backlog_full, y.later_full) <> (v.backlog_full, v.later_full);
  end loop;
  if rowlock.clock_is_steady() then
    delete from rowlock.instance i where i.ended_at < now() - interval '7 days' and not exists (select 1 from rowlock.lease l where l.instance = i.id);
  end if;
  -- A request that crossed the end of its task is nobody's any more, and would lengthen every settlement.
  delete from rowlock.cancel_request c where c.id in (
    select x.id from rowlock.cancel_request x where x.at < now() - interval '1 minute'
      and coalesce((select rowlock.state_of(t.id, t.queue, t.priority, t.k_low) from rowlock.every_task t where t.id = x.id), '')
         not in ('scheduled', 'retryable', 'available', 'running') order by x.at limit 100);
end $$;

-- What a maintainer asks in each pass, in one statement: due tasks, and a note for the watermarks; with `check_limits` the backlog against its limit, with
-- `read_heartbeats` the newest heartbeat of every instance that lives. No row: another session does it.
--
-- The note is one step of an exact watermark (R6): the next k, greater than every k drawn before, and an xid drawn after. A transaction has its xid
-- before it draws a k, so once xmin has reached the noted xid, none that drew an older k is open, prepared ones included. So k is read before anything
-- here writes. Not pg_snapshot_xmax in place of the xid: that is the one after the last *completed* one, and an open transaction may lie above it.
create or replace function rowlock.maintain(watermark timestamptz, most int, check_limits boolean, read_heartbeats boolean)
returns table (moved int, more boolean, next timestamptz, k bigint, xid bigint, xmin bigint, at timestamptz, instances bigint[], heartbeats bigint[])
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare v_k bigint; v_at timestamptz;
begin
  select s.last_value + s.is_called::int, clock_timestamp() into v_k, v_at from rowlock.k_seq s;
  if $3 then perform rowlock.update_backlog_limits(); end if;
  return query select p.*, v_k, pg_current_xact_id()::text::bigint, pg_snapshot_xmin(pg_current_snapshot())::text::bigint, v_at, l.* from rowlock.move_due($1, $2) p,
    (select array_agg(y.instance), array_agg(y.heartbeat) from rowlock.newest_heartbeats() y where $4) l;
end $$;
