-- Makes tasks available again. Called by the functions that release, retry, rescue or move tasks.

-- Makes tasks available, all together or, if that fails, one by one.
create or replace function rowlock.requeue(
  queue int,
  ids bigint[],
  attempts smallint[],
  priorities smallint[]
)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
  perform rowlock.requeue_together(
    requeue.queue, requeue.ids, requeue.attempts, requeue.priorities
  );
exception when others then
  perform rowlock.requeue_one_by_one(
    requeue.queue, requeue.ids, requeue.attempts, requeue.priorities
  );
end $$;

-- Makes tasks available as ranges of neighbouring ids, behind everything that is ready now.
create or replace function rowlock.requeue_together(
  queue int,
  ids bigint[],
  attempts smallint[],
  priorities smallint[]
)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
  insert into rowlock.ready (
      queue, shard, priority, k, id, n, attempt, fresh, notify, moved
    )
    select
      requeue_together.queue,
      placed.k & 3,
      placed.priority,
      placed.k,
      placed.id,
      placed.n,
      placed.attempt,
      false,
      coalesce(
        (select q.notify_until > now() from rowlock.queue q where q.id = requeue_together.queue),
        false
      ),
      rowlock.chunk_of(placed.id)
    from (
      select nextval('rowlock.k_seq') k, range.*
      from (
        select min(task.id) id, count(*) n, task.attempt, task.priority
        from (
          select
            item.*,
            item.id - row_number() over (
              partition by item.attempt, item.priority order by item.id
            ) run   -- the same for neighbours
          from unnest(
              requeue_together.ids, requeue_together.attempts, requeue_together.priorities
            ) item(id, attempt, priority)
        ) task
        group by task.attempt, task.priority, task.run, task.id >> 8
        order by 1
      ) range
    ) placed;
end $$;

-- The same one by one, after all together failed. A task that fails alone is delayed by a minute,
-- so that it does not hold up the others.
create or replace function rowlock.requeue_one_by_one(
  queue int,
  ids bigint[],
  attempts smallint[],
  priorities smallint[]
)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
  for i in 1 .. cardinality(ids) loop
    begin
      perform rowlock.requeue_together(
        requeue_one_by_one.queue, ids[i:i], attempts[i:i], priorities[i:i]
      );
    exception when others then
      raise warning 'task % cannot be made available: %', ids[i], sqlerrm;
      insert into rowlock.delayed (id, queue, priority, attempt, waits, run_at, due)
        values (
          ids[i],
          requeue_one_by_one.queue,
          priorities[i],
          attempts[i],
          1,   -- retryable
          now() + interval '1 minute',
          now() + interval '1 minute'
        );
    end;
  end loop;
end $$;
