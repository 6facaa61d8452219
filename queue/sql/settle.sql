-- Settles finished attempts. Called by workers (queue/src/settle.rs). The numbers of outcomes and
-- answers are listed in migrations/0001_tables.sql.

-- Settles many tasks at once: for each the token of its lease, its id, and its outcome. `texts`
-- contains the result of a completed task, or the error of a retried or dead one. `delays_ms`
-- contains the delay of a retry or a snooze. Either may be empty if no outcome needs it. An
-- instance reports outcome 7 if its handler ended while the task ran: see suspects.sql.
--
-- Settles only what the lease still holds (R1). If a task is sent again within a minute after it
-- was settled, the answer is "done".
create or replace function rowlock.settle(
  instance bigint,
  tokens bigint[],
  ids bigint[],
  outcomes smallint[],
  delays_ms bigint[],
  texts text[]
)
returns smallint[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
  answers smallint[] := array_fill(4::smallint, array[cardinality(ids)]);
  v_cancels boolean := exists (select 1 from rowlock.cancel_request);
  v_queue int;
  -- The tasks that are held and settled now. First the place of each in the arguments; the other
  -- arrays are in the same order.
  v_places int[];
  v_tokens bigint[];
  v_ids bigint[];
  v_outcomes smallint[];
  v_attempts smallint[];
  v_priorities smallint[];
  spent int[];             -- the places of snoozes that exceed the limit
  i int;
begin
  perform rowlock.require_read_committed();
  perform 1
    from rowlock.lease l
    where l.token = any (settle.tokens) and l.instance = settle.instance
    order by l.token
    for update;
  -- A session that ends the instance from now on waits for these leases. One that did so before has
  -- taken them, and has marked the instance in the same transaction.
  select i.queue
    into v_queue
    from rowlock.instance i
    where i.id = settle.instance and i.ended_at is null;
  if not found then
    return answers;
  end if;
  -- Tasks that are held and not settled yet, by one grouping. An anti-join would be planned as a
  -- nested loop, a thousand times a thousand.
  with held as materialized (
    select task.token, task.id, max(task.attempt) attempt, max(task.priority) priority
    from (
      select l.token, leased.id, range.attempt, range.priority
      from
        rowlock.lease l,
        unnest(l.firsts, l.ns, l.attempts, l.priorities) range(first_id, n, attempt, priority),
        generate_series(range.first_id, range.first_id + range.n - 1) leased(id)
      where l.token = any (settle.tokens) and l.instance = settle.instance
      union all
      select l.token, done.id, null, null
      from rowlock.lease l, unnest(l.settled) done(id)
      where l.token = any (settle.tokens) and l.instance = settle.instance
    ) task
    group by task.token, task.id
    having count(*) = count(task.attempt)
  )
  select
    array_agg(item.place),
    array_agg(item.id),
    array_agg(item.token),
    array_agg(item.outcome),
    array_agg(item.attempt),
    array_agg(item.priority)
    into v_places, v_ids, v_tokens, v_outcomes, v_attempts, v_priorities
    from (
      select distinct on (held.token, held.id)
        given.place::int place,
        held.id,
        held.token,
        case
          when cancel.id is not null and given.outcome <> 1 then 6::smallint
          else given.outcome
        end outcome,
        held.attempt,
        held.priority
      from unnest(settle.tokens, settle.ids, settle.outcomes)
        with ordinality given(token, id, outcome, place)
      join held on held.token = given.token and held.id = given.id
      left join rowlock.cancel_request cancel on v_cancels and cancel.id = given.id
      order by held.token, held.id, given.place
    ) item;
  if v_ids is not null then
    if 2 = any (v_outcomes) then
      -- A retry whose attempts are used up is dead.
      select
        array_agg(
          case
            when item.outcome = 2 and item.attempt + 1 >= task.max_attempts then 3::smallint
            else item.outcome
          end
          order by item.number
        )
        into v_outcomes
        from unnest(v_ids, v_outcomes, v_attempts)
          with ordinality item(id, outcome, attempt, number)
        left join rowlock.max_attempts(v_queue, v_ids) task
          on task.id = item.id and item.outcome = 2;
    end if;
    if 4 = any (v_outcomes) then
      -- A snooze beyond the queue's limit is dead.
      select
        array_agg(
          case when s.times >= policy.max_snoozes then 3::smallint else item.outcome end
          order by item.number
        ),
        array_agg(item.place) filter (where s.times >= policy.max_snoozes)
        into v_outcomes, spent
        from unnest(v_ids, v_outcomes, v_places)
          with ordinality item(id, outcome, place, number)
        cross join (
          select (q.policy->'retry'->>'maxSnoozes')::int max_snoozes
          from rowlock.queue q
          where q.id = v_queue
        ) policy
        left join rowlock.snooze s on item.outcome = 4 and s.id = item.id;
      foreach i in array coalesce(spent, '{}') loop
        texts[i] := 'the handler snoozed it more often than retry.maxSnoozes allows';
      end loop;
    end if;
    if 7 = any (v_outcomes) then
      -- A task that ended the handler while it ran alone, as often as allowed, is dead.
      select
        array_agg(
          case
            when alone.times >= rowlock.suspect_limit() then 3::smallint
            else item.outcome
          end
          order by item.number
        ),
        array_agg(item.place) filter (where alone.times >= rowlock.suspect_limit())
        into v_outcomes, spent
        from unnest(v_ids, v_outcomes, v_places)
          with ordinality item(id, outcome, place, number)
        left join rowlock.ran_alone(v_ids) alone
          on alone.id = item.id and item.outcome = 7;
      foreach i in array coalesce(spent, '{}') loop
        texts[i] := format(
          'the handler ended while this task ran alone, %s times', rowlock.suspect_limit()
        );
      end loop;
    end if;
    if 7 = any (v_outcomes) then
      perform rowlock.write_suspects(
          v_queue,
          settle.instance,
          array_agg(item.id),
          array_agg(item.attempt),
          array_agg(item.priority)
        )
        from unnest(v_ids, v_outcomes, v_attempts, v_priorities)
          item(id, outcome, attempt, priority)
        where item.outcome = 7;
    end if;
    perform rowlock.write_outcomes(
      v_queue,
      settle.instance,
      v_places,
      v_ids,
      v_outcomes,
      v_attempts,
      v_priorities,
      settle.delays_ms,
      settle.texts
    );
    delete from rowlock.lease l
      using (select token, count(*) n from unnest(v_tokens) token group by token) done
      where l.token = any (v_tokens)
        and l.token = done.token
        and cardinality(l.settled) + done.n >= (select sum(n) from unnest(l.ns) n);
    update rowlock.lease l
      set settled = l.settled || done.ids
      from (
        select item.token, array_agg(item.id) ids
        from unnest(v_tokens, v_ids) item(token, id)
        group by item.token
      ) done
      where l.token = any (v_tokens) and l.token = done.token;
    if cardinality(v_places) = cardinality(ids) and 1 = all (v_outcomes) then
      answers := array_fill(1::smallint, array[cardinality(ids)]);
    else
      for i in 1 .. cardinality(v_places) loop
        answers[v_places[i]] := case v_outcomes[i] when 3 then 2 when 6 then 3 else 1 end;
      end loop;
    end if;
  end if;
  if 4 = any (answers) then
    -- Perhaps the same call settled it before, and the answer was lost.
    with before as materialized (
      select done.id
      from
        rowlock.receipt r,
        unnest(r.firsts, r.ns) range(first_id, n),
        generate_series(range.first_id, range.first_id + range.n - 1) done(id)
      where r.queue = v_queue
        and r.state in (1, 3)
        and r.at > now() - interval '1 minute'
        and r.instance = settle.instance
      union
      select failed.id
      from rowlock.task_error failed
      where failed.id = any (settle.ids)
        and failed.instance = settle.instance
        and failed.at > now() - interval '1 minute'
      union
      select done.id
      from rowlock.lease l, unnest(l.settled) done(id)
      where l.token = any (settle.tokens) and l.instance = settle.instance
    )
    select
      array_agg(
        case when given.answer = 4 and before.id is not null then 1::smallint else given.answer end
        order by given.place
      )
      into answers
      from unnest(answers, settle.ids) with ordinality given(answer, id, place)
      left join before on before.id = given.id;
  end if;
  return answers;
end $$;
