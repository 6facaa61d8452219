-- The request is recorded first and every mover looks at it (R20). Answers 'cancelled', 'requested' (it runs: its instance is told), 'finished' or null.
create or replace function rowlock.cancel(id bigint) returns text language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare t record; v_attempt smallint;
begin
  perform rowlock.require_read_committed();
  select x.queue, x.priority, x.k_low into t from rowlock.every_task x where x.id = $1;
  if not found then return null; end if;
  if exists (select 1 from rowlock.queue q where q.id = t.queue and q.restricted
      and not rowlock.has_permission('producer', q.id)) then
    perform rowlock.refuse_permission('producer', (select q.name from rowlock.queue q where q.id = t.queue));
  end if;
  if rowlock.state_of($1, t.queue, t.priority, t.k_low) in ('completed', 'dead', 'cancelled') then return 'finished'; end if;
  insert into rowlock.cancel_request (id) values ($1) on conflict do nothing;
  for turn in 1 .. 3 loop
    case rowlock.state_of($1, t.queue, t.priority, t.k_low)
      when 'scheduled', 'retryable' then
        delete from rowlock.delayed x where x.id = $1 returning x.attempt into v_attempt;
      when 'available' then v_attempt := rowlock.take_ready(t.queue, t.priority, $1, t.k_low);
      when 'running' then return 'requested';
      else
        delete from rowlock.cancel_request c where c.id = $1;
        return 'finished';
    end case;
    if v_attempt is not null then
      perform rowlock.write_receipt(t.queue, null, 3::smallint, array[$1], array[v_attempt]);
      delete from rowlock.cancel_request c where c.id = $1;
      return 'cancelled';
    end if;
    -- It moved between the two looks.
  end loop;
  return 'requested';
end $$;

-- Takes a task out of the range that holds it; the others keep their order. Answers with its attempts, or null where it has moved. In the
-- middle of a range, what lies behind gets a k between its own and the next that a sequence may give to that shard; where there is none left,
-- after two or three such cuts, the smaller half goes to the end.
create or replace function rowlock.take_ready(queue int, priority smallint, id bigint, k_low int) returns smallint language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare r rowlock.ready; v_before int; v_behind int; v_next bigint; v_k bigint; v_id bigint;
begin
  select x.* into r from rowlock.find_ready($1, $2, $3, $4) y
    join rowlock.ready x on x.queue = y.queue and x.shard = y.shard and x.lane = y.lane and x.priority = y.priority and x.k = y.k for update of x;
  if not found or $3 < r.id or $3 >= r.id + r.n then return null; end if;
  v_before := $3 - r.id; v_behind := r.id + r.n - 1 - $3; v_id := $3 + 1;
  if v_before > 0 and v_behind > 0 then
    v_next := r.k + 1 + ((r.shard - r.k - 1) & 3);
    select least(v_next, min(x.k)) into v_next from rowlock.ready x
      where x.queue = r.queue and x.shard = r.shard and x.lane = r.lane and x.priority = r.priority and x.k > r.k and x.k < v_next;
    if v_next - r.k > 1 then
      insert into rowlock.ready (queue, shard, lane, priority, since, k, id, n, attempt, fresh, notify, moved)
        values (r.queue, r.shard, r.lane, r.priority, r.since, r.k + (v_next - r.k) / 2, v_id, v_behind, r.attempt, false, false,
          rowlock.chunk_of(v_id))
        on conflict do nothing returning k into v_k;
    end if;
    if v_k is not null or v_before >= v_behind then
      if v_k is null then perform rowlock.put_last(r, v_id, v_behind); end if;
      v_id := r.id; v_behind := 0;
    else
      perform rowlock.put_last(r, r.id, v_before);
      v_before := 0;
    end if;
  elsif v_before > 0 then v_id := r.id;
  end if;
  if v_before + v_behind = 0 then
    delete from rowlock.ready x where x.queue = r.queue and x.shard = r.shard and x.lane = r.lane and x.priority = r.priority and x.k = r.k;
  else
    update rowlock.ready x set id = v_id, n = v_before + v_behind
      where x.queue = r.queue and x.shard = r.shard and x.lane = r.lane and x.priority = r.priority and x.k = r.k;
  end if;
  return r.attempt;
end $$;

-- A part of a range, behind all that is ready.
create or replace function rowlock.put_last(r rowlock.ready, id bigint, n int) returns void language plpgsql volatile
set search_path = pg_catalog, pg_temp set jit = off as $$
declare v_k bigint := nextval('rowlock.k_seq');
begin
  insert into rowlock.ready (queue, shard, lane, priority, since, k, id, n, attempt, fresh, moved)
    values (r.queue, v_k & 3, r.lane, r.priority, r.since, v_k, $2, $3, r.attempt, false, rowlock.chunk_of($2));
end $$;

-- Cancels many, in the order of their ids, so that two such calls lock the same ranges in the same order:
-- `select rowlock.cancel(id) from …` takes them as they come, and two of those may wait for each other.
create or replace function rowlock.cancel_all(ids bigint[]) returns table (id bigint, outcome text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  for id in select distinct u.id from unnest($1) u(id) order by 1 loop
    outcome := rowlock.cancel(id);
    return next;
  end loop;
end $$;
