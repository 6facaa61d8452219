-- For people, the operator and audits: declare, statistics, one task's story, cancel, redrive.

-- What a TaskQueue declares. `owner` names the control plane and the TaskQueue: another one is refused until it adopts the queue, naming the
-- owner it takes it from: an adoption that was written down and forgotten takes nothing back.
create function rowlock.declare_queue(name text, owner text, generation bigint, policy json, max_attempts int, total_workers int, paused boolean,
  backlog_limit bigint, payload_limit int, keep_completed interval, keep_dead interval, keep_cancelled interval, adopts text default null)
returns int language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare v rowlock.queue;
begin
  -- It becomes a part of commands that people are told to run.
  if $2 !~ '^[-a-z0-9./ ]{1,200}$' then
    raise exception 'this cannot be the owner of queue "%"', $1 using errcode = 'RL005', hint = 'Use up to 200 of a-z, 0-9, "-", ".", "/" and spaces.';
  end if;
  select * into v from rowlock.queue q where q.name = $1 for update;
  if found and v.owner <> $2 and v.owner is distinct from $13 then
    raise exception 'queue "%" belongs to %', $1, v.owner using errcode = 'RL008', hint = 'Choose another queueName, or adopt the queue.';
  end if;
  if not found then
    insert into rowlock.queue (name, owner, generation, policy, max_attempts, total_workers, paused,
        backlog_limit, payload_limit, keep_completed, keep_dead, keep_cancelled, room_until, guarded)
      values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, rowlock.room_until(), exists (select 1
          from rowlock.access a where a.queue <> 0)) on conflict (name) do nothing returning * into v;
    -- Here, so that nobody waits for somebody else's first time.
    insert into rowlock.mutex (duty, queue) select duty, v.id from generate_series(5, 6) duty
        where v.id is not null on conflict do nothing;
    if v.id is null then return rowlock.declare_queue($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);
        end if;
  elsif (v.owner, v.generation, v.policy::text, v.max_attempts, v.total_workers, v.paused, v.backlog_limit, v.payload_limit, v.keep_completed, v.keep_dead, v.keep_cancelled)
      is distinct from ($2, $3, $4::text, $5, $6, $7, $8, $9, $10, $11, $12) then
    update rowlock.queue q set owner = $2, generation = $3, policy = $4, max_attempts = $5, total_workers = $6, paused = $7, backlog_limit = $8, payload_limit = $9,
      keep_completed = $10, keep_dead = $11, keep_cancelled = $12 where q.id = v.id;
  end if;
  return v.id;
end $$;

-- All queues of the database in one statement. What is ready, delayed or dead is estimated where it is much: see rowlock.backlog().
create function rowlock.statistics() returns table (queue int, name text, paused boolean, total_workers int, available bigint, scheduled bigint, retryable bigint, due_soon bigint,
  running bigint, dead bigint, oldest_seconds double precision, completed bigint, arrivals bigint, instances bigint, allocated bigint, busy bigint, service_ms double precision)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select q.id, q.name, q.paused, q.total_workers, coalesce(r.available, 0), coalesce(r.scheduled, 0), coalesce(r.retryable, 0), coalesce(d.soon, 0),
         coalesce(l.n, 0), coalesce(x.n, 0), case when r.oldest is not null then greatest(date_part('epoch', clock_timestamp()) - 1704067200 - r.oldest, 0) end, coalesce(c.n, 0), coalesce(a.n, 0),
         coalesce(i.n, 0), coalesce(i.allocated, 0), coalesce(i.held, 0), i.service_ms
  from rowlock.queue q
  left join rowlock.backlog() r on r.queue = q.id
  -- Due within five seconds, of at most 20,000 looked at.
  left join (select d.queue, count(*) soon from (select d.queue from rowlock.delayed d where d.due < now() + interval '5 seconds' order by d.due limit 20000) d group by d.queue) d on d.queue = q.id
  left join (select l.queue, sum((select sum(u) from unnest(l.ns) u) - cardinality(l.settled))::bigint n from rowlock.lease l group by l.queue) l on l.queue = q.id
  left join (select d.queue, (count(*) * 100 / rowlock.sample_percent('rowlock.dead'))::bigint n
             from rowlock.dead d tablesample system (rowlock.sample_percent('rowlock.dead')) repeatable (0) group by d.queue) x on x.queue = q.id
  left join (select r.queue, sum((select sum(u) from unnest(r.ns) u))::bigint n from rowlock.receipt r where r.at > now() - interval '60 seconds' and r.state = 1 group by r.queue) c on c.queue = q.id
  -- Enqueued in the last ten seconds, of at most 100,000 looked at.
  left join (select t.queue, count(*) n from (select t.queue from rowlock.task t where t.id >= rowlock.id_at(now() - interval '10 seconds') order by t.id desc limit 100000) t group by t.queue) a on a.queue = q.id
  left join (select i.queue, count(*) n, sum(b.allocated) allocated, sum(b.held) held, avg(b.service_ms) service_ms from rowlock.instance i,
                    lateral (select b.allocated, b.held, b.service_ms from rowlock.beat b where b.instance = i.id and b.at > now() - interval '1 minute' order by b.n desc limit 1) b
             where i.ended_at is null group by i.queue) i on i.queue = q.id
  where not q.guarded or rowlock.may('reader', q.id)
  order by q.name
$$;

-- A task wherever it is kept.
create view rowlock.every_task as select * from rowlock.task union all select * from rowlock.task_kept;

-- The range that holds a task which is ready. Without an index by id, which would cost every enqueue a twentieth: what was not moved since it was
-- enqueued lies by k much as by id, so it is looked for by halves in each shard; what was moved is walked to.
create function rowlock.find_ready(queue int, priority smallint, id bigint) returns setof rowlock.ready language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
#variable_conflict use_column
declare lo bigint; hi bigint; middle bigint; seen record; lows bigint[] := coalesce(rowlock.published_lows($1), array_fill(0::bigint, array[16]));
begin
  for s in 0 .. 3 loop
    lo := lows[$2 * 4 + s + 1];
    select r.k into hi from rowlock.ready r where r.queue = $1 and r.shard = s::smallint and r.lane = 0 and r.priority = $2 and r.k >= lo order by r.k desc limit 1;
    continue when not found;
    -- As near as 4096 chunks: of those enqueued at the same time some come earlier than an older one.
    while hi - lo > 256 loop
      middle := lo + (hi - lo) / 2;
      select r.k, r.id into seen from rowlock.ready r where r.queue = $1 and r.shard = s::smallint and r.lane = 0 and r.priority = $2 and r.k >= middle order by r.k limit 1;
      if seen.id < $3 - (4096 << 8) then lo := seen.k; else hi := middle; end if;
    end loop;
    return query select x.* from (
        select r.* from rowlock.ready r where r.queue = $1 and r.shard = s::smallint and r.lane = 0 and r.priority = $2 and r.k >= lo order by r.k limit 4096) x
      where $3 >= x.id and $3 < x.id + x.n limit 1;
    if found then return; end if;
  end loop;
  return query select r.* from rowlock.ready r where r.queue = $1 and r.priority = $2 and r.id <= $3 and r.id > $3 - 256 and $3 < r.id + r.n limit 1;
end $$;

-- scheduled, available, running, retryable, completed, dead, cancelled; null: no such task; 'untraced': a task without evidence, which is an alarm.
-- Movers delete and insert in one statement's snapshot, so that one statement sees a task in exactly one place.
create function rowlock.task_state(id bigint) returns text language sql stable security definer
set search_path = pg_catalog, pg_temp set jit = off as $$
  select coalesce(
    (select case d.waits when 0 then 'scheduled' else 'retryable' end from rowlock.delayed d where d.id = $1),
    (select 'running' from rowlock.lease l, unnest(l.firsts, l.ns) u(f, n) where $1 >= u.f and $1 < u.f + u.n and $1 <> all (l.settled) limit 1),
    (select 'available' from rowlock.find_ready(t.queue, t.priority, $1)),
    (select 'dead' from rowlock.dead d where d.id = $1),
    (select case r.state when 1 then 'completed' when 2 then 'dead' else 'cancelled' end from rowlock.receipt r, unnest(r.firsts, r.ns) u(f, n)
       where r.at >= rowlock.id_time($1) - interval '1 day' and $1 >= u.f and $1 < u.f + u.n limit 1),
    'untraced')
  from rowlock.every_task t where t.id = $1 and not exists (select 1 from rowlock.queue q where q.id = t.queue
      and q.guarded and not rowlock.may(null, q.id))
$$;

create function rowlock.story(id bigint) returns table (queue text, type text, state text, priority smallint, attempt int, max_attempts smallint, enqueued_at timestamptz,
  due_at timestamptz, finished_at timestamptz, instance text, payload text, result text)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select q.name, t.type, s.state, t.priority,
    coalesce((select d.attempt from rowlock.delayed d where d.id = $1), (select d.attempt from rowlock.dead d where d.id = $1), l.attempt, c.attempt,
             case when s.state = 'available' then (select r.attempt from rowlock.find_ready(t.queue, t.priority, $1) r) end, 0)::int,
    coalesce(t.max_attempts, q.max_attempts), rowlock.id_time($1), (select d.due from rowlock.delayed d where d.id = $1),
    coalesce(c.at, (select d.at from rowlock.dead d where d.id = $1)),
    (select i.name from rowlock.instance i where i.id = coalesce(l.instance, c.instance)), t.payload::text,
    (select x.body from rowlock.result x where x.id = $1 order by x.at desc limit 1)
  from rowlock.every_task t join rowlock.queue q on q.id = t.queue
  cross join lateral (select rowlock.task_state($1) state) s
  left join lateral (select l.instance, u.attempt from rowlock.lease l, unnest(l.firsts, l.ns, l.attempts) u(f, n, attempt) where $1 >= u.f and $1 < u.f + u.n and $1 <> all (l.settled) limit 1) l on true
  left join lateral (select r.at, r.instance, u.attempt from rowlock.receipt r, unnest(r.firsts, r.ns, r.attempts) u(f, n, attempt)
    where s.state in ('completed', 'cancelled', 'dead') and r.at >= rowlock.id_time($1) - interval '1 day' and $1 >= u.f and $1 < u.f + u.n limit 1) c on true
  where t.id = $1 and (not q.guarded or rowlock.may('reader', q.id))
$$;

create function rowlock.failures(id bigint) returns table (at timestamptz, attempt smallint, instance text, error text)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select f.at, f.attempt, coalesce(i.name, ''), f.error
  from (select at, id, attempt, instance, error from rowlock.failure where id = $1 union all select at, id, attempt, instance, error from rowlock.failure_kept where id = $1) f
  join rowlock.every_task t on t.id = $1 join rowlock.queue q on q.id = t.queue and (not q.guarded
      or rowlock.may('reader', q.id))
  left join rowlock.instance i on i.id = f.instance order by f.at, f.attempt
$$;

-- Tasks of a state, by id, from `after` on. Completed and cancelled ones come from the last day's receipts.
create function rowlock.tasks(queue text, state text, after bigint, most int) returns table (id bigint, queue_name text, type text, attempt int, at timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select x.id, q.name, (select t.type from rowlock.every_task t where t.id = x.id limit 1), x.attempt::int, x.at from (
    select d.id, d.queue, d.attempt, d.at from rowlock.dead d where $2 = 'dead'
    union all select d.id, d.queue, d.attempt, d.due from rowlock.delayed d where $2 = case d.waits when 0 then 'scheduled' else 'retryable' end
    union all select g, r.queue, r.attempt, rowlock.id_time(g) from rowlock.ready r, generate_series(r.id, r.id + r.n - 1) g where $2 = 'available'
    union all select g, l.queue, u.attempt, l.at from rowlock.lease l, unnest(l.firsts, l.ns, l.attempts) u(f, n, attempt), generate_series(u.f, u.f + u.n - 1) g where $2 = 'running' and g <> all (l.settled)
    union all select g, r.queue, u.attempt, r.at from rowlock.receipt r, unnest(r.firsts, r.ns, r.attempts) u(f, n, attempt), generate_series(u.f, u.f + u.n - 1) g
      where $2 in ('completed', 'cancelled') and r.state = case $2 when 'completed' then 1 else 3 end and r.at > now() - interval '1 day') x
  join rowlock.queue q on q.id = x.queue
  where (not q.guarded or rowlock.may('reader', q.id)) and ($1 is null or q.name = $1)
      and x.id > coalesce($3, 0) order by x.id limit $4
$$;

-- The request is recorded first and every mover looks at it (R20). Answers 'cancelled', 'requested' (it runs: its instance is told), 'finished' or null.
create function rowlock.cancel(id bigint) returns text language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare t record; r rowlock.ready; d rowlock.delayed; k bigint;
begin
  perform rowlock.demand_read_committed();
  select x.queue, x.priority into t from rowlock.every_task x where x.id = $1;
  if not found then return null; end if;
  if exists (select 1 from rowlock.queue q where q.id = t.queue and q.guarded
      and not rowlock.may('producer', q.id)) then
    perform rowlock.refuse_right('producer', (select q.name from rowlock.queue q where q.id = t.queue));
  end if;
  insert into rowlock.cancel_request (id) values ($1) on conflict do nothing;
  for turn in 1 .. 3 loop
    delete from rowlock.delayed x where x.id = $1 returning * into d;
    if found then
      perform rowlock.write_receipt(t.queue, null, 3::smallint, array[$1], array[d.attempt]);
      delete from rowlock.cancel_request c where c.id = $1; return 'cancelled';
    end if;
    if exists (select 1 from rowlock.lease l, unnest(l.firsts, l.ns) u(f, n) where $1 >= u.f and $1 < u.f + u.n and $1 <> all (l.settled)) then return 'requested'; end if;
    select x.* into r from rowlock.find_ready(t.queue, t.priority, $1) y
      join rowlock.ready x on x.queue = y.queue and x.shard = y.shard and x.lane = y.lane and x.priority = y.priority and x.k = y.k for update of x;
    if found and $1 >= r.id and $1 < r.id + r.n then
      -- The range loses the task: what lies before it keeps the row's place, what lies behind it gets a new k.
      if $1 > r.id then
        update rowlock.ready x set n = $1 - r.id where x.queue = r.queue and x.shard = r.shard and x.lane = r.lane and x.priority = r.priority and x.k = r.k;
      else
        delete from rowlock.ready x where x.queue = r.queue and x.shard = r.shard and x.lane = r.lane and x.priority = r.priority and x.k = r.k;
      end if;
      if $1 < r.id + r.n - 1 then
        k := nextval('rowlock.k_seq');
        insert into rowlock.ready (queue, shard, lane, priority, since, k, id, n, attempt, fresh) values (r.queue, k & 3, r.lane, r.priority, r.since, k, $1 + 1, r.id + r.n - 1 - $1, r.attempt, r.fresh);
      end if;
      perform rowlock.write_receipt(t.queue, null, 3::smallint, array[$1], array[r.attempt]);
      delete from rowlock.cancel_request c where c.id = $1; return 'cancelled';
    end if;
    -- One statement sees a task in exactly one place; between those above it may have moved.
    exit when rowlock.task_state($1) in ('completed', 'dead', 'cancelled');
  end loop;
  delete from rowlock.cancel_request c where c.id = $1;
  return 'finished';
end $$;

-- Cancels many, in the order of their ids, so that two such calls lock the same ranges in the same order:
-- `select rowlock.cancel(id) from …` takes them as they come, and two of those may wait for each other.
create function rowlock.cancel_all(ids bigint[]) returns table (id bigint, outcome text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  for id in select distinct u.id from unnest($1) u(id) order by 1 loop
    outcome := rowlock.cancel(id);
    return next;
  end loop;
end $$;

-- Dead tasks become available again, with all their attempts. `ids` null: every dead task of the queue, at most 10,000 a call.
create function rowlock.redrive(queue text, ids bigint[]) returns bigint language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set jit = off as $$
#variable_conflict use_column
declare q record; n bigint := 0;
begin
  perform rowlock.demand_read_committed();
  if $1 is null and $2 is null then
    raise exception 'neither a queue nor ids were given' using errcode = 'RL005', hint = 'Name the queue whose dead tasks are to run again, or list their ids.';
  end if;
  if $1 is not null and not exists (select 1 from rowlock.queue y where y.name = $1) then perform rowlock.refuse_unknown_queue($1); end if;
  for q in
    with back as (delete from rowlock.dead d where d.id in (
        select x.id from rowlock.dead x join rowlock.queue y on y.id = x.queue where ($1 is null or y.name = $1) and ($2 is null or x.id = any ($2)) order by x.id limit 10000 for update of x skip locked) returning d.*)
    select b.queue, array_agg(b.id order by b.id) ids, array_agg(0::smallint) attempts, array_agg(b.priority order by b.id) priorities from back b group by b.queue
  loop
    perform rowlock.requeue(q.queue, q.ids, q.attempts, q.priorities); n := n + cardinality(q.ids);
    -- A request that crossed the last attempt's end was for that one.
    delete from rowlock.cancel_request c where c.id = any (q.ids);
  end loop;
  return n;
end $$;

-- Takes away what a queue holds, with evidence: what is unfinished is cancelled, what is dead pruned.
create function rowlock.clear_queue(queue int) returns bigint language plpgsql volatile set search_path = pg_catalog, pg_temp set jit = off as $$
declare cancelled bigint;
begin
  with ready as (delete from rowlock.ready r where r.queue = $1 returning r.id, r.n, r.attempt),
  delayed as (delete from rowlock.delayed d where d.queue = $1 returning d.id, d.attempt),
  lease as (delete from rowlock.lease l where l.queue = $1 returning l.firsts, l.ns, l.attempts, l.settled),
  unfinished as (
    select id, n, attempt from ready union all select id, 1::smallint, attempt from delayed
    union all select g, 1::smallint, u.attempt from lease l, unnest(l.firsts, l.ns, l.attempts) u(f, n, attempt), generate_series(u.f, u.f + u.n - 1) g where g <> all (l.settled)),
  written as (
    insert into rowlock.receipt (queue, state, firsts, ns, attempts) select $1, 3, array_agg(o.id), array_agg(o.n), array_agg(o.attempt) from unfinished o having count(*) > 0)
  select coalesce(sum(o.n), 0) into cancelled from unfinished o;
  with dead as (delete from rowlock.dead d where d.queue = $1 returning d.id, d.attempt)
  insert into rowlock.receipt (queue, state, firsts, ns, attempts) select $1, 2, array_agg(d.id), array_agg(1::smallint), array_agg(d.attempt) from dead d having count(*) > 0;
  return cancelled;
end $$;

-- For administrators: a queue that no TaskQueue declares any more. Refused while instances live or tasks are unfinished, unless forced: then the instances
-- are gone and the tasks cancelled. Answers with how many those were. Bodies and receipts go with their partitions.
create function rowlock.delete_queue(queue text, force boolean default false) returns bigint language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '1s' set jit = off as $$
#variable_conflict use_column
declare v rowlock.queue; i record; living bigint; cancelled bigint := 0;
begin
  perform rowlock.demand_read_committed();
  select * into v from rowlock.queue q where q.name = $1;
  if not found then perform rowlock.refuse_unknown_queue($1); end if;
  select count(*) into living from rowlock.instance x where x.queue = v.id and x.ended_at is null;
  if living > 0 and $2 is not true then
    raise exception 'queue "%" has % instances', $1, living using errcode = 'RL009', hint = 'Delete its TaskQueue and wait until they have left; force => true ends them.';
  end if;
  begin
    for i in select x.id from rowlock.instance x where x.queue = v.id and x.ended_at is null order by x.id loop
      perform 1 from rowlock.instance x where x.id = i.id for update;
      update rowlock.instance x set ended_at = now(), gone = true where x.id = i.id and x.ended_at is null;
    end loop;
    -- Most of it before the lock, which waits for every transaction that enqueued or moved something, and keeps new ones waiting meanwhile.
    if $2 then cancelled := rowlock.clear_queue(v.id); end if;
    lock table rowlock.queue in access exclusive mode;
  exception when lock_not_available then
    raise exception 'queue "%" is being used', $1 using errcode = 'RL009', hint = 'A transaction that enqueued or a statement of an instance is open: try again when it has ended.';
  end;
  if $2 is not true and (exists (select 1 from rowlock.ready r where r.queue = v.id) or exists (select 1 from rowlock.delayed d where d.queue = v.id)
      or exists (select 1 from rowlock.lease l where l.queue = v.id)) then
    raise exception 'queue "%" has unfinished tasks', $1 using errcode = 'RL009', hint = 'Let them be done; force => true cancels them all.';
  end if;
  cancelled := cancelled + rowlock.clear_queue(v.id);
  delete from rowlock.cancel_request c using rowlock.every_task t where t.id = c.id and t.queue = v.id;
  delete from rowlock.task_kept t where t.queue = v.id;
  delete from rowlock.mutex m where m.queue = v.id;
  delete from rowlock.queue q where q.id = v.id;
  return cancelled;
end $$;

-- enqueued = completed + dead + cancelled + open, of the tasks that are still kept. `untraced` above zero is an alarm.
create function rowlock.audit() returns table (queue text, enqueued bigint, completed bigint, dead bigint, cancelled bigint, open bigint, untraced bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  with trace as (
    select d.id, 'open' s from rowlock.delayed d
    union all select g, 'open' from rowlock.ready r, generate_series(r.id, r.id + r.n - 1) g
    union all select g, 'open' from rowlock.lease l, unnest(l.firsts, l.ns) u(f, n), generate_series(u.f, u.f + u.n - 1) g where not exists (select 1 from unnest(l.settled) z where z = g)
    union all select d.id, 'dead' from rowlock.dead d
    union all select g, case r.state when 1 then 'completed' when 2 then 'dead' else 'cancelled' end from rowlock.receipt r, unnest(r.firsts, r.ns) u(f, n), generate_series(u.f, u.f + u.n - 1) g)
  select q.name, count(t.id), count(*) filter (where c.s = 'completed'), count(*) filter (where c.s = 'dead'), count(*) filter (where c.s = 'cancelled'),
         count(*) filter (where c.s = 'open'), count(t.id) filter (where c.s is null)
  from rowlock.queue q left join rowlock.every_task t on t.queue = q.id left join trace c on c.id = t.id
  where not q.guarded or rowlock.may('reader', q.id) group by q.name order by q.name
$$;
