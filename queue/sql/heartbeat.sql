create or replace function rowlock.heartbeat(instance bigint, held int, allocated int, allocation bigint, wants int, watermarks bigint[], idle boolean, service_ms real)
returns table (gone boolean, allocation_number bigint, slots int, paused boolean, generation bigint, newest_k bigint, least_ks bigint[], canceled bigint[],
  peers int, noted_k bigint, noted_xid bigint, xmin bigint, allocation_missed boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare v_queue int; v_live int; v_behind bigint; v_noted bigint; v_missed boolean;
begin
  perform rowlock.require_read_committed();
  -- A note for the exact watermark, as in rowlock.maintain(): k first, then the xid, which the lock draws.
  select last_value + is_called::int into v_noted from rowlock.k_seq;
  -- Until this heartbeat is committed nobody ends the instance.
  select i.queue into v_queue from rowlock.instance i where i.id = $1 and i.ended_at is null
      for key share skip locked;
  if not found and not rowlock.check_ending($1) then
    return query select true, 0::bigint, 0, false, 0::bigint, 0::bigint, '{}'::bigint[], '{}'::bigint[], 1,
        0::bigint, 0::bigint, 0::bigint, null::boolean; return;
  end if;
  perform rowlock.require_worker(v_queue);
  -- A failover may rewind k_seq below where claims start: they would not see what gets such a k. A watermark far
  -- above it is none of ours.
  select max(x) - s.last_value into v_behind from unnest($6) x, rowlock.k_seq s group by s.last_value;
  if v_behind > rowlock.watermark_max_lead() or cardinality($6) is distinct from 16
      or array_position($6, null) is not null then
    raise exception 'the watermarks of instance % are no watermarks of this queue', $1
        using errcode = 'RL005',
      hint = 'The sequence of k may have been taken back by a failover: end the instance, and join again.';
  end if;
  -- By the clock that never waits: a transaction that was begun long ago would give its heartbeat an old time
  -- (R4).
  insert into rowlock.heartbeat (n, at, instance, queue, held, allocated, allocation, wants, service_ms, watermarks)
    values (nextval('rowlock.heartbeat_seq'), clock_timestamp(), $1, v_queue, $2, $3, $4, $5, $8, $6);
  if v_behind > 0 then perform nextval('rowlock.k_seq') from generate_series(1, least(v_behind, 10000));
      end if;
  -- About four passes a second for the whole queue, however many instances send heartbeats (a full read in each heartbeat would be quadratic).
  select count(*) into v_live from rowlock.instance i where i.queue = v_queue and i.ended_at is null;
  if random() * v_live < 4 then v_missed := not rowlock.allocate(v_queue); end if;
  if $7 then
    -- Whoever has the row may have it for long: a producer that made partitions, until its commit.
    update rowlock.queue q set notify_until = now() + interval '1 minute' where q.id = (select x.id from rowlock.queue x
      where x.id = v_queue and x.notify_until < now() + interval '5 seconds' for no key update skip locked);
  end if;
  return query
    select false, coalesce(a.number, $4), coalesce(a.slots, $3), q.paused, q.generation,
           (select last_value from rowlock.k_seq), rowlock.least_k(v_queue, $6),
           array(select c.id from rowlock.cancel_request c join rowlock.lease l on l.instance = $1
                 where exists (select 1 from unnest(l.firsts, l.ns) u(f, n) where c.id >= u.f and c.id < u.f + u.n) and c.id <> all (l.settled) limit 1000),
           v_live, v_noted, pg_current_xact_id()::text::bigint,
               pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
           v_missed
    from rowlock.queue q
    left join lateral (select x.number, x.slots from rowlock.allocation x where x.instance = $1 and x.number > $4 and x.at > now() - interval '1 minute' order by x.number desc limit 1) a on true
    where q.id = v_queue;
end $$;
