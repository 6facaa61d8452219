-- An instance claims tasks, and `await_claims` waits for a claim whose answer was lost. Called by
-- workers (queue/src/claim.rs).

-- Takes up to `want` tasks, by priority and then by k, and records them in a lease. `watermarks`
-- contains the k at which each part of the queue begins. `start` is the first shard to look at. It
-- differs between claims, so that they do not all meet at the same rows.
--
-- Candidates are read without a lock and cut off by a running sum; only the chosen ones are locked
-- (R2). A range that is taken in part keeps its k, and so its place. The loops over priority and
-- shard are one series of numbers. With two series the planner could choose shard as the outer
-- loop, and the limit would then cut by shard instead of by priority.
--
-- A claim may be sent again with the same token after its answer was lost. It returns the lease
-- that the first one made (R1).
--
-- `sinces` says of each range since when it has been available, and `now_seconds` is the present,
-- both in seconds since 2024. A repeated claim does not know it, and returns none.
create or replace function rowlock.claim(
  instance bigint,
  want int,
  watermarks bigint[],
  start int,
  token bigint
)
returns table (
  firsts bigint[],
  ns smallint[],
  attempts smallint[],
  priorities smallint[],
  contended boolean,
  newest_k bigint,
  least_ks bigint[],
  sinces int[],
  now_seconds double precision
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_queue int;
  v_restricted boolean;
  v_stopped boolean;       -- nothing may be claimed
  v_repeated boolean;      -- the lease was made by an earlier call
  v_drains boolean;        -- marked by a scale-in since this claim began
  looked int;              -- ranges that were read and should be taken
  taken bigint;            -- tasks in the ranges that could be locked
  -- The locked ranges, in the order of the claim.
  v_priorities smallint[];
  v_places tid[];
  v_ids bigint[];
  v_ns smallint[];
  v_attempts smallint[];
  v_sinces int[];
begin
  perform rowlock.require_read_committed();
  select
    i.queue,
    q.restricted,
    coalesce(q.paused or i.drains or rowlock.is_draining(i.drain_until), true),
    exists (select 1 from rowlock.lease l where l.token = claim.token)
    into v_queue, v_restricted, v_stopped, v_repeated
    from rowlock.instance i
    left join rowlock.queue q on q.id = i.queue
    where i.id = claim.instance and i.ended_at is null;
  if not found then
    raise exception 'instance % is gone', claim.instance
      using errcode = 'RL006',
        hint = 'Join again.';
  end if;
  if v_repeated then
    return query
      select l.firsts, l.ns, l.attempts, l.priorities, false, 0::bigint, '{}'::bigint[],
        '{}'::int[], 0::double precision
      from rowlock.lease l
      where l.token = claim.token and l.instance = claim.instance;
    return;
  end if;
  firsts := '{}';
  ns := '{}';
  attempts := '{}';
  priorities := '{}';
  contended := false;
  newest_k := 0;
  least_ks := '{}';
  sinces := '{}';
  now_seconds := 0;
  if v_stopped then
    return next;
    return;
  end if;
  if v_restricted then
    perform rowlock.require_worker(v_queue);
  end if;
  select last_value into newest_k from rowlock.k_seq;
  with look as materialized (
    select count(*) as entries
    from (
      select
        sum(candidate.n) over (order by candidate.priority, candidate.turn, candidate.k)
          - candidate.n as before
      from (
        select ranges.priority, part.turn, ranges.k, ranges.n
        from
          (
            select number >> 2 as priority, number & 3 as turn
            from generate_series(0, 15) number
          ) part,
          lateral (
            select r.priority, r.k, r.n
            from rowlock.ready r
            where r.queue = v_queue
              and r.shard = ((part.turn + claim.start) & 3)::smallint
              and r.lane = 0
              and r.priority = part.priority::smallint
              and r.k >= claim.watermarks[
                part.priority * 4 + ((part.turn + claim.start) & 3) + 1
              ]
            order by r.k
            limit claim.want
          ) ranges
        limit claim.want
      ) candidate
    ) summed
    where before < claim.want
  ),
  locked as materialized (
    select ranges.*, part.turn
    from
      (
        select number >> 2 as priority, number & 3 as turn
        from generate_series(0, 15) number
      ) part,
      lateral (
        select r.priority, r.k, r.id, r.n, r.attempt, r.since, r.ctid place
        from rowlock.ready r
        where r.queue = v_queue
          and r.shard = ((part.turn + claim.start) & 3)::smallint
          and r.lane = 0
          and r.priority = part.priority::smallint
          and r.k >= claim.watermarks[
            part.priority * 4 + ((part.turn + claim.start) & 3) + 1
          ]
        order by r.k
        limit (select entries from look)
        for update skip locked
      ) ranges
    limit (select entries from look)
  )
  select
    (select entries from look),
    sum(n),
    array_agg(priority order by priority, turn, k),
    array_agg(place order by priority, turn, k),
    array_agg(id order by priority, turn, k),
    array_agg(n order by priority, turn, k),
    array_agg(attempt order by priority, turn, k),
    array_agg(since order by priority, turn, k)
    into looked, taken, v_priorities, v_places, v_ids, v_ns, v_attempts, v_sinces
    from locked;
  if v_ids is not null then
    -- The lock prevents others from ending the instance until the lease is committed. It does not
    -- wait: a session that ends the queue may itself wait for the ranges that are locked above.
    select rowlock.is_draining(i.drain_until)
      into v_drains
      from rowlock.instance i
      where i.id = claim.instance and i.ended_at is null
      for share skip locked;
    if not found then
      v_drains := rowlock.check_marking(claim.instance);
    end if;
    if v_drains then
      v_ids := null;
      taken := null;
    end if;
  end if;
  if v_ids is not null then
    -- This statement has a new snapshot: it sees the newest version of the locked rows, with
    -- whatever was committed between reading and locking. Rows are found by ctid, which a lock
    -- keeps. With a join by key, a plan from the time when the table was small would read the whole
    -- index once the table is large.
    with taking as materialized (
      select
        range.*,
        (sum(range.n) over (order by range.ordinal))::int - range.n as before
      from unnest(v_priorities, v_places, v_ids, v_ns, v_attempts)
        with ordinality range(priority, place, id, n, attempt, ordinal)
    ),
    whole as (
      delete from rowlock.ready r
      where r.ctid = any (
        array(
          select taking.place
          from taking
          where taking.before + taking.n <= claim.want
        )
      )
    ),
    part as (
      update rowlock.ready r
      set
        id = r.id + (claim.want - taking.before),
        n = r.n - (claim.want - taking.before)
      from taking
      where taking.before < claim.want
        and taking.before + taking.n > claim.want
        and r.ctid = any (
          array(
            select taking.place
            from taking
            where taking.before < claim.want
              and taking.before + taking.n > claim.want
          )
        )
        and r.ctid = taking.place
    )
    insert into rowlock.lease as made (
        token, instance, queue, firsts, ns, attempts, priorities
      )
      select
        claim.token,
        claim.instance,
        v_queue,
        array_agg(taking.id order by taking.ordinal),
        array_agg(least(taking.n, claim.want - taking.before)::smallint order by taking.ordinal),
        array_agg(taking.attempt order by taking.ordinal),
        array_agg(taking.priority order by taking.ordinal)
      from taking
      where taking.before < claim.want
      returning made.firsts, made.ns, made.attempts, made.priorities
      into firsts, ns, attempts, priorities;
    sinces := v_sinces;
  end if;
  contended := looked > 0
    and coalesce(taken, 0) < claim.want
    and coalesce(cardinality(v_ids), 0) < looked;
  least_ks := rowlock.least_k(v_queue, claim.watermarks);
  now_seconds := date_part('epoch', clock_timestamp()) - 1704067200;
  return next;
end $$;

-- Waits for the running claims of an instance that have taken tasks. Call it before a claim is sent
-- again. If the second claim were answered before the first one commits, the lease of the first
-- would stay unknown for a minute.
create or replace function rowlock.await_claims(instance bigint)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform rowlock.require_worker(i.queue)
    from rowlock.instance i
    where i.id = await_claims.instance;
  perform 1
    from rowlock.instance i
    where i.id = await_claims.instance
    for no key update;
end $$;
