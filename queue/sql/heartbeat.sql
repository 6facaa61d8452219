-- Renews the leases of an instance. Called by every worker once a second (queue/src/heartbeat.rs).

-- Stores how many slots an instance holds and wants. Returns its allocation, requests to cancel its
-- tasks, and the generation of the queue's policy.
create or replace function rowlock.heartbeat(
  instance bigint,
  held int,
  allocated int,
  allocation bigint,
  wants int,
  watermarks bigint[],
  idle boolean,
  runs int,
  failures int,
  run_seconds real,
  run_seconds_squared real
)
returns table (
  gone boolean,
  allocation_number bigint,
  slots int,
  paused boolean,
  generation bigint,
  newest_k bigint,
  least_ks bigint[],
  canceled bigint[],
  peers int,
  noted_k bigint,
  noted_xid bigint,
  xmin bigint,
  allocation_missed boolean,
  suspect_due boolean
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
  v_queue int;
  v_live int;
  v_behind bigint;   -- how far k_seq is below the highest watermark
  v_noted bigint;
  v_missed boolean;
begin
  perform rowlock.require_read_committed();
  -- A note for the exact watermark, as in rowlock.maintain(): first k, then the xid, which this
  -- transaction gets with the lock.
  select last_value + is_called::int into v_noted from rowlock.k_seq;
  -- The lock keeps others from ending the instance until this heartbeat is committed.
  select i.queue
    into v_queue
    from rowlock.instance i
    where i.id = heartbeat.instance and i.ended_at is null
    for key share skip locked;
  if not found and not rowlock.check_ending(heartbeat.instance) then
    return query
      select
        true, 0::bigint, 0, false, 0::bigint, 0::bigint, '{}'::bigint[], '{}'::bigint[], 1,
        0::bigint, 0::bigint, 0::bigint, null::boolean, false;
    return;
  end if;
  perform rowlock.require_worker(v_queue);
  -- A failover may rewind k_seq below the watermarks: claims would skip a task that gets such a k.
  -- A watermark far above k_seq is not one that we made.
  select max(watermark) - s.last_value
    into v_behind
    from unnest(heartbeat.watermarks) watermark, rowlock.k_seq s
    group by s.last_value;
  if v_behind > rowlock.watermark_max_lead()
    or cardinality(heartbeat.watermarks) is distinct from 16
    or array_position(heartbeat.watermarks, null) is not null then
    raise exception 'the watermarks of instance % do not fit this queue', heartbeat.instance
      using errcode = 'RL005',
        hint = 'A failover may have rewound the sequence of k: end the instance, and join again.';
  end if;
  -- By the wall clock: now() of a transaction that began long ago would date the heartbeat back
  -- (R4).
  insert into rowlock.heartbeat (
      n, at, instance, queue, held, allocated, allocation, wants,
      runs, failures, run_seconds, run_seconds_squared, watermarks
    )
    values (
      nextval('rowlock.heartbeat_seq'),
      clock_timestamp(),
      heartbeat.instance,
      v_queue,
      heartbeat.held,
      heartbeat.allocated,
      heartbeat.allocation,
      heartbeat.wants,
      greatest(heartbeat.runs, 0),
      greatest(heartbeat.failures, 0),
      -- Sums over all instances must not become NaN, or infinite, by what one of them reports.
      case when heartbeat.run_seconds between 0 and 1e9 then heartbeat.run_seconds else 0 end,
      case
        when heartbeat.run_seconds_squared between 0 and 1e18 then heartbeat.run_seconds_squared
        else 0
      end,
      heartbeat.watermarks
    );
  if v_behind > 0 then
    perform nextval('rowlock.k_seq') from generate_series(1, least(v_behind, 10000));
  end if;
  -- About four allocations a second for the whole queue, however many instances it has: one with
  -- every heartbeat, each reading all instances, would make the cost quadratic.
  select count(*)
    into v_live
    from rowlock.instance i
    where i.queue = v_queue and i.ended_at is null;
  if random() * v_live < 4 then
    v_missed := not rowlock.allocate(v_queue);
  end if;
  if heartbeat.idle then
    -- Skips a locked row: a producer that made partitions keeps it locked until its commit.
    update rowlock.queue q
      set notify_until = now() + interval '1 minute'
      where q.id = (
        select expiring.id
        from rowlock.queue expiring
        where expiring.id = v_queue
          and expiring.notify_until < now() + interval '5 seconds'
        for no key update skip locked
      );
  end if;
  return query
    select
      false,
      coalesce(newest.number, heartbeat.allocation),
      coalesce(newest.slots, heartbeat.allocated),
      q.paused,
      q.generation,
      (select last_value from rowlock.k_seq),
      rowlock.least_k(v_queue, heartbeat.watermarks),
      array(
        select c.id
        from rowlock.cancel_request c
        join rowlock.lease l on l.instance = heartbeat.instance
        where exists (
            select 1
            from unnest(l.firsts, l.ns) range(first_id, n)
            where c.id >= range.first_id and c.id < range.first_id + range.n
          )
          and c.id <> all (l.settled)
        limit 1000
      ),
      v_live,
      v_noted,
      pg_current_xact_id()::text::bigint,
      pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
      v_missed,
      rowlock.suspect_due(v_queue, heartbeat.held)
    from rowlock.queue q
    left join lateral (
      select a.number, a.slots
      from rowlock.allocation a
      where a.instance = heartbeat.instance
        and a.number > heartbeat.allocation
        and a.at > now() - interval '1 minute'
      order by a.number desc
      limit 1
    ) newest on true
    where q.id = v_queue;
end $$;
