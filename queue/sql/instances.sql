-- What an instance calls: join, heartbeat (with the grant of allocations), claim, settle, drain, leave.
-- An instance's id is a number from a sequence below 21 random bits: a failover may rewind the sequence while the process that had the number lives.
-- A lock on the instance's row keeps its own verbs and a rescue apart (R5): a heartbeat takes it FOR KEY SHARE, a
-- claim that found something FOR SHARE, who ends the instance FOR UPDATE; each sees the newest version of the
-- row. A settlement needs none: it locks its leases, which a rescue takes.
create or replace function rowlock.require_read_committed() returns void language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'this verb needs READ COMMITTED' using errcode = 'RL007', hint = 'Begin the transaction with ISOLATION LEVEL READ COMMITTED.';
  end if;
end $$;

-- Who is just being ended is told to ask again: a rescue or a delete may yet fail. Answers false where it has
-- ended.
create or replace function rowlock.check_ending(instance bigint) returns boolean language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
begin
  if exists (select 1 from rowlock.instance i where i.id = $1 and i.ended_at is null) then
    raise exception 'instance % is being ended', instance using errcode = 'lock_not_available', hint = 'Ask again.';
  end if;
  return false;
end $$;

create or replace function rowlock.join(queue text, name text, capacity int) returns rowlock.instance
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare q rowlock.queue; i rowlock.instance;
begin
  select * into q from rowlock.queue r where r.name = $1;
  if not found then perform rowlock.refuse_unknown_queue($1); end if;
  perform rowlock.require_worker(q.id);
  if (length($2) between 1 and 200 and $2 !~ '[[:cntrl:]]') is not true then
    raise exception 'the name of an instance has 1 to 200 printable characters' using errcode = 'RL005',
        hint = 'It is for people: a pod''s name, for example.';
  end if;
  insert into rowlock.instance (id, queue, name, capacity) values ((floor(random() * 2097152)::bigint << 32) | (nextval('rowlock.instance_seq') & 4294967295), q.id, $2, $3) returning * into i;
  insert into rowlock.heartbeat (n, at, instance, queue, held, allocated, allocation, wants)
      values (nextval('rowlock.heartbeat_seq'), clock_timestamp(), i.id, q.id, 0, 0, 0, 0);
  return i;
end $$;

-- What an instance follows.
create or replace function rowlock.policy(queue int)
returns table (generation bigint, policy json, max_attempts smallint) language sql stable security definer
set search_path = pg_catalog, pg_temp as $$
  select q.generation, q.policy, q.max_attempts from rowlock.queue q where q.id = $1
$$;

create or replace function rowlock.drain(instance bigint) returns void language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform rowlock.require_worker(i.queue) from rowlock.instance i where i.id = $1;
  update rowlock.instance i set drains = true where i.id = $1 and i.ended_at is null and not i.drains;
end $$;

-- Hands back every lease without using an attempt, and ends the instance. The instance's row is locked
-- against its own verbs: a claim under way ends first, or its lease
-- would be of an instance that is gone already, and nobody's.
create or replace function rowlock.leave(instance bigint) returns bigint language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare l record; back bigint := 0;
begin
  perform rowlock.require_read_committed();
  perform rowlock.require_worker(i.queue) from rowlock.instance i where i.id = $1;
  perform 1 from rowlock.instance i where i.id = $1 and i.ended_at is null for update;
  if not found then return 0; end if;
  for l in select x.token, x.queue from rowlock.lease x where x.instance = $1 order by x.token for update loop
    back := back + rowlock.release_lease($1, l.queue, l.token);
  end loop;
  update rowlock.instance i set ended_at = now() where i.id = $1;
  return back;
end $$;
