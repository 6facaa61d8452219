-- Roles, where the migrating user may create them; elsewhere an administrator runs the same lines (rowlock migrate prints them).
create function rowlock.grant_roles() returns boolean language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare r text;
begin
  foreach r in array array['rowlock_producer', 'rowlock_worker', 'rowlock_reader'] loop
    if not exists (select 1 from pg_roles where rolname = r) then
      if not (select rolsuper or rolcreaterole from pg_roles where rolname = current_user) then return false; end if;
      begin
        execute format('create role %I nologin', r);
      exception when duplicate_object or unique_violation then null;   -- another database's migration was quicker
      end;
    end if;
  end loop;
  foreach r in array array['rowlock_producer', 'rowlock_worker', 'rowlock_reader'] loop
    execute format('grant usage on schema rowlock to %I', r);
    execute format('grant execute on function rowlock.task_state(bigint) to %I', r);
    execute format('grant select on rowlock.migration to %I', r);   -- every command first checks the schema's version
  end loop;
  grant execute on function rowlock.enqueue(text, text, json, jsonb), rowlock.enqueue(text, text, text, jsonb), rowlock.enqueue(text, text, jsonb, jsonb),
    rowlock.enqueue_many(text, text, json[], jsonb), rowlock.enqueue_many(text, text, text[], jsonb), rowlock.enqueue_many(text, text, jsonb[], jsonb), rowlock.as_json(text), rowlock.as_json(text[]) to rowlock_producer;
  grant execute on function rowlock.join(text, text, int), rowlock.published_lows(int), rowlock.beat(bigint, int, int, bigint, int, bigint[], boolean, real),
    rowlock.claim(bigint, int, bigint[], int, bigint), rowlock.fetch(bigint[]), rowlock.settle(bigint, bigint[], bigint[], smallint[], bigint[], text[]), rowlock.drain(bigint), rowlock.leave(bigint), rowlock.hand_back_strays(bigint, bigint[]),
    rowlock.care(timestamptz, int, boolean, boolean), rowlock.least_k(int, bigint[]), rowlock.sweep(int, bigint[], bigint[], int), rowlock.rescue(bigint, bigint),
    rowlock.extend_partitions(interval), rowlock.partition_statistics(), rowlock.take_turn(boolean), rowlock.end_turn(boolean), rowlock.mark_finished(int),
    rowlock.prune_dead(int) to rowlock_worker;
  grant select on rowlock.queue, rowlock.beat to rowlock_worker;
  grant execute on function rowlock.statistics(), rowlock.story(bigint), rowlock.failures(bigint), rowlock.tasks(text, text, bigint, int), rowlock.audit() to rowlock_reader;
  return true;
end $$;

-- Nobody but the owner may call anything unless a role allows it; the function above included.
revoke execute on all functions in schema rowlock from public;
