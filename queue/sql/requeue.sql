-- Outcomes, hand-backs, and the end of an instance.

-- Makes tasks claimable again, as ranges of neighbours, behind what is ready now: k only grows.
create or replace function rowlock.requeue(queue int, ids bigint[], attempts smallint[], priorities smallint[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  insert into rowlock.ready (queue, shard, priority, k, id, n, attempt, fresh, notify, moved)
  select $1, z.k & 3, z.priority, z.k, z.id, z.n, z.attempt, false, coalesce((select q.notify_until > now() from rowlock.queue q where q.id = $1), false),
    rowlock.chunk_of(z.id)
  from (select nextval('rowlock.k_seq') k, y.* from (
    select min(x.id) id, count(*) n, x.attempt, x.priority from (
      select u.*, u.id - row_number() over (partition by u.attempt, u.priority order by u.id) run
      from unnest($2, $3, $4) u(id, attempt, priority)) x
    group by x.attempt, x.priority, x.run, x.id >> 8 order by 1) y) z;
end $$;

-- The same one by one, where all together failed: what fails alone, too, waits for another minute, and keeps none of the others waiting.
create or replace function rowlock.requeue_singly(queue int, ids bigint[], attempts smallint[], priorities smallint[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  for i in 1 .. cardinality($2) loop
    begin
      perform rowlock.requeue($1, ($2)[i:i], ($3)[i:i], ($4)[i:i]);
    exception when others then
      raise warning 'task % cannot be made available: %', ($2)[i], sqlerrm;
      insert into rowlock.delayed (id, queue, priority, attempt, waits, run_at, due)
        values (($2)[i], $1, ($4)[i], ($3)[i], 1, now() + interval '1 minute', now() + interval '1 minute');
    end;
  end loop;
end $$;
