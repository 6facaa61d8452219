-- Finished tasks as receipts, one for each stretch of 2^33 ids. state: 1 completed, 2 dead and deleted, 3 cancelled.
create or replace function rowlock.write_receipt(queue int, instance bigint, state smallint, ids bigint[], attempts smallint[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
begin
  insert into rowlock.receipt (queue, instance, state, firsts, ns, attempts)
  select $1, $2, $3, array_agg(y.id order by y.id), array_agg(y.n order by y.id), array_agg(y.attempt order by y.id) from (
    select min(x.id) id, count(*)::smallint n, x.attempt from (
      select u.*, u.id - row_number() over (partition by u.attempt order by u.id) run from unnest($4, $5) u(id, attempt)) x
    group by x.attempt, x.run, x.id >> 8) y group by y.id >> 33;
  -- Only a task older than ten minutes may be kept: see rowlock.empty_task_partition.
  if $3 <> 2 and (select min(u.id) from unnest($4) u(id)) < rowlock.id_at(now() - interval '10 minutes') then
    update rowlock.task_kept k set finished_at = now() where k.id = any ($4);
  end if;
  if pg_relation_size('rowlock.snooze') > 0 then delete from rowlock.snooze s where s.id = any ($4); end if;
end $$;

-- The attempts a task may use. In two looks, each with a snapshot of its own: the first may wait for a cleanup that empties the partition, and
-- finds nothing then. Planned with the ids in it, so that it locks only the partitions that hold them (R18).
create or replace function rowlock.max_attempts(queue int, ids bigint[]) returns table (id bigint, max_attempts smallint)
language plpgsql volatile set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare v_ids bigint[]; v_limits smallint[]; k_ids bigint[]; k_limits smallint[];
begin
  execute 'select array_agg(t.id), array_agg(t.max_attempts) from rowlock.task t where t.id = any ($1)' into v_ids, v_limits using $2;
  if coalesce(cardinality(v_ids), 0) < cardinality($2) then
    select array_agg(t.id), array_agg(t.max_attempts) into k_ids, k_limits from rowlock.task_kept t where t.id = any ($2);
    v_ids := v_ids || k_ids; v_limits := v_limits || k_limits;
  end if;
  return query
    select i, coalesce(max(u.l), q.max_attempts) from unnest($2) i join rowlock.queue q on q.id = $1 left join unnest(v_ids, v_limits) u(id, l) on u.id = i
    group by i, q.max_attempts;
end $$;

-- Many outcomes at once: 1 complete, 2 retry, 3 dead, 4 snooze, 5 release. `texts`: the result of a complete, the error of a retry or dead;
-- `delays_ms`: of a retry or snooze. Either may be empty where no outcome has any.
-- Only what the lease still holds is settled (R1). Answers per item: 1 done, 2 dead, 3 cancelled, 4 lease lost.
-- An item sent again, settled before, is answered 1 as long as its receipt or failure is younger than a minute.
create or replace function rowlock.settle(instance bigint, tokens bigint[], ids bigint[], outcomes smallint[], delays_ms bigint[], texts text[])
returns smallint[] language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
#variable_conflict use_column
declare
  answers smallint[] := array_fill(4::smallint, array[cardinality(ids)]);
  v_cancels boolean := exists (select 1 from rowlock.cancel_request);
  v_queue int; o int[]; k_ids bigint[]; k_tokens bigint[]; k_outcomes smallint[]; k_attempts smallint[]; k_priorities smallint[]; i int; spent int[];
begin
  perform rowlock.require_read_committed();
  perform 1 from rowlock.lease l where l.token = any ($2) and l.instance = $1 order by l.token for update;
  -- Whoever would end the instance now waits for these leases; whoever did before has taken them, and marked
  -- it in the same transaction.
  select x.queue into v_queue from rowlock.instance x where x.id = $1 and x.ended_at is null;
  if not found then return answers; end if;
  -- What is held and not settled, each once.
  -- Held, less settled, by one grouping: an anti-join is planned as a nested loop, a thousand times a thousand.
  with held as materialized (
    select y.token, y.id, max(y.attempt) attempt, max(y.priority) priority from (
      select l.token, g.id, u.attempt, u.priority
      from rowlock.lease l, unnest(l.firsts, l.ns, l.attempts, l.priorities) u(f, n, attempt, priority), generate_series(u.f, u.f + u.n - 1) g(id)
      where l.token = any ($2) and l.instance = $1
      union all select l.token, d.id, null, null from rowlock.lease l, unnest(l.settled) d(id) where l.token = any ($2) and l.instance = $1) y
    group by y.token, y.id having count(*) = count(y.attempt))
  select array_agg(z.o), array_agg(z.id), array_agg(z.token), array_agg(z.outcome), array_agg(z.attempt), array_agg(z.priority)
    into o, k_ids, k_tokens, k_outcomes, k_attempts, k_priorities
  from (
    select distinct on (h.token, h.id) s.o::int o, h.id, h.token, case when c.id is not null and s.outcome <> 1 then 6::smallint else s.outcome end outcome, h.attempt, h.priority
    from unnest($2, $3, $4) with ordinality s(token, id, outcome, o)
    join held h on h.token = s.token and h.id = s.id
    left join rowlock.cancel_request c on v_cancels and c.id = s.id
    order by h.token, h.id, s.o) z;
  if k_ids is not null then
    if 2 = any (k_outcomes) then
      -- Attempts used up: what the instance calls a retry is dead.
      select array_agg(case when x.outcome = 2 and x.attempt + 1 >= m.max_attempts then 3::smallint else x.outcome end order by x.p) into k_outcomes
      from unnest(k_ids, k_outcomes, k_attempts) with ordinality x(id, outcome, attempt, p)
      left join rowlock.max_attempts(v_queue, k_ids) m on m.id = x.id and x.outcome = 2;
    end if;
    if 4 = any (k_outcomes) then
      -- Put off as often as the queue allows: what the instance calls a snooze is dead.
      select array_agg(case when s.times >= l.most then 3::smallint else x.outcome end order by x.p),
             array_agg(x.o) filter (where s.times >= l.most)
        into k_outcomes, spent
      from unnest(k_ids, k_outcomes, o) with ordinality x(id, outcome, o, p)
      cross join (select (q.policy->'retry'->>'maxSnoozes')::int most from rowlock.queue q where q.id = v_queue) l
      left join rowlock.snooze s on x.outcome = 4 and s.id = x.id;
      foreach i in array coalesce(spent, '{}') loop
        texts[i] := 'the handler put it off more often than retry.maxSnoozes allows';
      end loop;
    end if;
    perform rowlock.write_outcomes(v_queue, $1, o, k_ids, k_outcomes, k_attempts, k_priorities, $5, $6);
    delete from rowlock.lease l using (select t, count(*) n from unnest(k_tokens) t group by t) x
      where l.token = any (k_tokens) and l.token = x.t and cardinality(l.settled) + x.n >= (select sum(n) from unnest(l.ns) n);
    update rowlock.lease l set settled = l.settled || x.ids from (select t, array_agg(id) ids from unnest(k_tokens, k_ids) u(t, id) group by t) x where l.token = any (k_tokens) and l.token = x.t;
    if cardinality(o) = cardinality(ids) and 1 = all (k_outcomes) then answers := array_fill(1::smallint, array[cardinality(ids)]);
    else
      for i in 1 .. cardinality(o) loop
        answers[o[i]] := case k_outcomes[i] when 3 then 2 when 6 then 3 else 1 end;
      end loop;
    end if;
  end if;
  if 4 = any (answers) then
    with before as materialized (
      select g id from rowlock.receipt r, unnest(r.firsts, r.ns) u(f, n), generate_series(u.f, u.f + u.n - 1) g
        where r.queue = v_queue and r.state in (1, 3) and r.at > now() - interval '1 minute' and r.instance = $1
      union select f.id from rowlock.task_error f where f.id = any ($3) and f.instance = $1 and f.at > now() - interval '1 minute'
      union select d.id from rowlock.lease l, unnest(l.settled) d(id) where l.token = any ($2) and l.instance = $1)
    select array_agg(case when a.a = 4 and b.id is not null then 1::smallint else a.a end order by a.p) into answers
    from unnest(answers, $3) with ordinality a(a, id, p) left join before b on b.id = a.id;
  end if;
  return answers;
end $$;

-- Writes what was decided: 1 complete, 2 retry, 3 dead, 4 snooze, 5 release, 6 cancelled. `o` is the place of each in delays_ms and texts.
-- No delay is longer than 100 years: one that overflows would fail all the others.
create or replace function rowlock.write_outcomes(queue int, instance bigint, o int[], ids bigint[], outcomes smallint[], attempts smallint[], priorities smallint[], delays_ms bigint[], texts text[])
returns void language plpgsql volatile set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare part bigint[]; used smallint[]; prios smallint[];
begin
  select array_agg(x.id), array_agg((x.attempt + 1)::smallint) into part, used from unnest($4, $5, $6) x(id, outcome, attempt) where x.outcome = 1;
  if part is not null then
    perform rowlock.write_receipt($1, $2, 1::smallint, part, used);
    if cardinality($9) > 0 then
      insert into rowlock.result (id, value) select x.id, ($9)[x.o] from unnest($3, $4, $5) x(o, id, outcome) where x.outcome = 1 and ($9)[x.o] is not null;
    end if;
  end if;
  -- A request to cancel what was finished first has nothing left to do.
  if exists (select 1 from rowlock.cancel_request) then
    delete from rowlock.cancel_request c using unnest($4, $5) x(id, outcome) where c.id = x.id and x.outcome in (1, 3, 6);
  end if;
  if cardinality(part) = cardinality(ids) then return; end if;
  insert into rowlock.task_error (id, attempt, instance, error)
    select x.id, x.attempt + 1, $2, coalesce(($9)[x.o], 'no error was given') from unnest($3, $4, $5, $6) x(o, id, outcome, attempt) where x.outcome in (2, 3);
  insert into rowlock.dead (id, queue, priority, attempt)
    select x.id, $1, x.priority, x.attempt + 1 from unnest($4, $5, $6, $7) x(id, outcome, attempt, priority) where x.outcome = 3;
  insert into rowlock.delayed (id, queue, priority, attempt, waits, run_at, due)
    select x.id, $1, x.priority, x.attempt + (x.outcome = 2)::int, 1, d.at, d.at
    from unnest($3, $4, $5, $6, $7) x(o, id, outcome, attempt, priority), lateral (select now() + least(greatest(($8)[x.o], 0), 3155760000000) * interval '1 millisecond' as at) d where x.outcome in (2, 4);
  if 4 = any ($5) then
    insert into rowlock.snooze as s (id, times, first_at, at)
      select x.id, 1, now(), now() from unnest($4, $5) x(id, outcome) where x.outcome = 4 order by x.id
      on conflict (id) do update set times = s.times + 1, at = now();
  end if;
  select array_agg(x.id), array_agg(x.attempt), array_agg(x.priority) into part, used, prios from unnest($4, $5, $6, $7) x(id, outcome, attempt, priority) where x.outcome = 5;
  if part is not null then perform rowlock.requeue($1, part, used, prios); end if;
  select array_agg(x.id), array_agg(x.attempt) into part, used from unnest($4, $5, $6) x(id, outcome, attempt) where x.outcome = 6;
  if part is not null then perform rowlock.write_receipt($1, $2, 3::smallint, part, used); end if;
end $$;
