-- Cancels tasks. `cancel` and `cancel_all` are called by administrators and producers
-- (queue/src/cancel.rs).

-- Returns 'cancelled', 'requested' (the task runs; its instance gets the request with its next
-- heartbeat), 'finished', or null if there is no such task. The request is recorded first, and
-- everything that moves a task looks for it (R20).
create or replace function rowlock.cancel(id bigint)
returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  t record;
  v_attempt smallint;
begin
  perform rowlock.require_read_committed();
  select e.queue, e.priority, e.k_low into t from rowlock.every_task e where e.id = cancel.id;
  if not found then
    return null;
  end if;
  if exists (
    select 1
    from rowlock.queue q
    where q.id = t.queue and q.restricted and not rowlock.has_permission('producer', q.id)
  ) then
    perform rowlock.refuse_permission(
      'producer', (select q.name from rowlock.queue q where q.id = t.queue)
    );
  end if;
  if rowlock.find_state(cancel.id, t.queue, t.priority, t.k_low)
    in ('completed', 'dead', 'cancelled') then
    return 'finished';
  end if;
  insert into rowlock.cancel_request (id) values (cancel.id) on conflict do nothing;
  for turn in 1 .. 3 loop
    case rowlock.find_state(cancel.id, t.queue, t.priority, t.k_low)
      when 'scheduled', 'retryable' then
        delete from rowlock.delayed d where d.id = cancel.id returning d.attempt into v_attempt;
      when 'available' then
        v_attempt := rowlock.remove_from_range(t.queue, t.priority, cancel.id, t.k_low);
      when 'running' then
        return 'requested';
      else
        delete from rowlock.cancel_request c where c.id = cancel.id;
        return 'finished';
    end case;
    if v_attempt is not null then
      perform rowlock.write_receipt(
        t.queue, null, 3::smallint, array[cancel.id], array[v_attempt]
      );
      delete from rowlock.cancel_request c where c.id = cancel.id;
      return 'cancelled';
    end if;
    -- The task moved after its state was read.
  end loop;
  return 'requested';
end $$;

-- Removes a task from the range that holds it. The others keep their order. Returns the attempts
-- that the task has used, or null if it has moved.
--
-- If the task is in the middle of a range, the part after it gets a k between its own and the next
-- one that the sequence may give to that shard. After two or three such cuts no k is left in
-- between. Then the smaller half goes to the end.
create or replace function rowlock.remove_from_range(
  queue int,
  priority smallint,
  id bigint,
  k_low int
)
returns smallint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  r rowlock.ready;
  v_before int;   -- tasks of the range before the removed one
  v_behind int;   -- and after it
  v_next bigint;
  v_k bigint;
  v_id bigint;    -- the first id of what remains in the range
begin
  select ready.*
    into r
    from rowlock.find_ready(
      remove_from_range.queue,
      remove_from_range.priority,
      remove_from_range.id,
      remove_from_range.k_low
    ) holder
    join rowlock.ready ready
      on ready.queue = holder.queue
      and ready.shard = holder.shard
      and ready.lane = holder.lane
      and ready.priority = holder.priority
      and ready.k = holder.k
    for update of ready;
  if not found or remove_from_range.id < r.id or remove_from_range.id >= r.id + r.n then
    return null;
  end if;
  v_before := remove_from_range.id - r.id;
  v_behind := r.id + r.n - 1 - remove_from_range.id;
  v_id := remove_from_range.id + 1;
  if v_before > 0 and v_behind > 0 then
    v_next := r.k + 1 + ((r.shard - r.k - 1) & 3);
    select least(v_next, min(ready.k))
      into v_next
      from rowlock.ready ready
      where ready.queue = r.queue
        and ready.shard = r.shard
        and ready.lane = r.lane
        and ready.priority = r.priority
        and ready.k > r.k
        and ready.k < v_next;
    if v_next - r.k > 1 then
      insert into rowlock.ready (
          queue, shard, lane, priority, since, k, id, n, attempt, fresh, notify, moved
        )
        values (
          r.queue,
          r.shard,
          r.lane,
          r.priority,
          r.since,
          r.k + (v_next - r.k) / 2,
          v_id,
          v_behind,
          r.attempt,
          false,
          false,
          rowlock.chunk_of(v_id)
        )
        on conflict do nothing
        returning k into v_k;
    end if;
    if v_k is not null or v_before >= v_behind then
      if v_k is null then
        perform rowlock.append_range(r, v_id, v_behind);
      end if;
      v_id := r.id;
      v_behind := 0;
    else
      perform rowlock.append_range(r, r.id, v_before);
      v_before := 0;
    end if;
  elsif v_before > 0 then
    v_id := r.id;
  end if;
  if v_before + v_behind = 0 then
    delete from rowlock.ready ready
      where ready.queue = r.queue
        and ready.shard = r.shard
        and ready.lane = r.lane
        and ready.priority = r.priority
        and ready.k = r.k;
  else
    update rowlock.ready ready
      set id = v_id, n = v_before + v_behind
      where ready.queue = r.queue
        and ready.shard = r.shard
        and ready.lane = r.lane
        and ready.priority = r.priority
        and ready.k = r.k;
  end if;
  return r.attempt;
end $$;

-- Moves `n` tasks of a range, starting with `id`, behind everything that is ready.
create or replace function rowlock.append_range(r rowlock.ready, id bigint, n int)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_k bigint := nextval('rowlock.k_seq');
begin
  insert into rowlock.ready (
      queue, shard, lane, priority, since, k, id, n, attempt, fresh, moved
    )
    values (
      r.queue,
      v_k & 3,
      r.lane,
      r.priority,
      r.since,
      v_k,
      append_range.id,
      append_range.n,
      r.attempt,
      false,
      rowlock.chunk_of(append_range.id)
    );
end $$;

-- Cancels many tasks, in the order of their ids. So two such calls lock the same ranges in the same
-- order. `select rowlock.cancel(id) from ...` has no such order, and two of those may deadlock.
create or replace function rowlock.cancel_all(ids bigint[])
returns table (id bigint, outcome text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  for id in
    select distinct task.id from unnest(cancel_all.ids) task(id) order by 1
  loop
    outcome := rowlock.cancel(id);
    return next;
  end loop;
end $$;
