-- Enqueue, and what happens at the commit of the enqueuing transaction.
-- SQLSTATEs of ours: RL001 unknown queue, RL002 unknown option, RL003 payload too large, RL004 backlog full, RL005 bad value,
-- RL006 instance gone, RL007 wrong isolation level, RL008 queue owned by another, RL009 queue in use, RL010
-- no partition, RL011 no right.
--
-- A value means the same whatever the session is set to: functions that read or write times pin DateStyle,
-- TimeZone and IntervalStyle, and no plain literal here has a backslash, which standard_conforming_strings
-- would decide about.

-- Who asks: the role that the session has taken on, or else its user. Not current_user, which is the owner
-- within these functions; of an application's own SECURITY DEFINER function it is still the session's user
-- that counts.
create or replace function rowlock.caller() returns name language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(nullif(current_setting('role', true), 'none')::name, session_user)
$$;

-- Whether the caller may act as `permission` (null: as any) for a queue. Asked only where some role has rights for
-- some queues alone (queue.restricted).
create or replace function rowlock.has_permission(permission text, queue int) returns boolean language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
declare who name := rowlock.caller();
begin
  return pg_has_role(who, (select n.nspowner from pg_namespace n where n.nspname = 'rowlock'), 'usage')
      or exists (
    select 1 from rowlock.access a join pg_roles r on r.rolname = a.role
    where a.queue in (0, $2) and ($1 is null or a.permission = $1) and pg_has_role(who, r.oid, 'usage'));
end $$;

create or replace function rowlock.refuse_permission(permission text, queue text) returns void language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'the role "%" is no % of queue "%"', rowlock.caller(), permission, queue using errcode = 'RL011',
    hint = format('The owner of the database can run: select rowlock.grant_role(%L, %L, array[%L]);',
        rowlock.caller(), permission, queue);
end $$;

-- For instances: whether they may work for this queue.
create or replace function rowlock.require_worker(queue int) returns void language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
declare v_name text;
begin
  select q.name into v_name from rowlock.queue q where q.id = $1 and q.restricted;
  if found and not rowlock.has_permission('worker', $1) then perform rowlock.refuse_permission('worker', v_name); end if;
end $$;

-- Who else than the owner may do what. Rights are granted to roles that the owner names, and so hold in this
-- database only: roles are of the server.

-- What each permission takes.
create or replace function rowlock.permission_functions() returns table (permission text, function regprocedure) language sql stable
set search_path = pg_catalog, pg_temp as $$
  select d.permission, p.oid::regprocedure from (values
    ('producer', '{enqueue,enqueue_many,as_json,as_options,as_payloads,cancel,cancel_all,task_state}'::text[]),
    ('worker', '{join,policy,published_watermarks,heartbeat,claim,await_claims,fetch,settle,drain,leave,release_unknown_leases,maintain,least_k,move_missed,rescue,
                 mutex_holders,extend_partitions,partition_statistics,begin_maintenance,end_maintenance,mark_finished,delete_expired_tasks,keep_watermarks,
                 task_state}'),
    ('reader', '{statistics,describe_task,task_errors,list_tasks,audit,task_state}')) d(permission, names)
  join pg_proc p on p.proname = any (d.names) and p.pronamespace = 'rowlock'::regnamespace
$$;

-- Grants what the table `access` says and a role does not have yet. After each migration, which may have made
-- functions that nobody was granted.
create or replace function rowlock.renew_grants() returns void language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare g record;
begin
  lock table rowlock.access in share row exclusive mode;
  -- Of roles and queues that are gone: a role of the same name would inherit them.
  delete from rowlock.access a where not exists (select 1 from pg_roles r where r.rolname = a.role)
    or (a.queue <> 0 and not exists (select 1 from rowlock.queue q where q.id = a.queue));
  for g in select distinct r.rolname, f.function from rowlock.access a join pg_roles r on r.rolname = a.role
      join rowlock.permission_functions() f on f.permission = a.permission join pg_proc p on p.oid = f.function
      where not exists (select 1 from aclexplode(p.proacl) x where x.grantee = r.oid) loop
    execute format('grant execute on function %s to %I', g.function, g.rolname);
  end loop;
  for g in select distinct r.rolname from rowlock.access a join pg_roles r on r.rolname = a.role
      where not exists (select 1 from pg_namespace n, aclexplode(n.nspacl) x where n.nspname = 'rowlock'
          and x.grantee = r.oid) loop
    execute format('grant usage on schema rowlock to %I', g.rolname);
    -- Every command first checks the schema's version.
    execute format('grant select on rowlock.migration to %I', g.rolname);
  end loop;
  update rowlock.queue q set restricted = not q.restricted where q.restricted <> exists (select 1 from rowlock.access a
      where a.queue <> 0);
end $$;

-- `permission`: producer, worker or reader. `queues`: for these only, in place of what the role could do as such
-- before; null: for all, those to come included.
create or replace function rowlock.grant_role(role name, permission text, queues text[] default null) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare unknown text;
begin
  -- First: two that had each written before they lock would wait for each other.
  lock table rowlock.access in share row exclusive mode;
  if $2 is null or $2 not in ('producer', 'worker', 'reader') then
    raise exception 'unknown permission "%"', $2 using errcode = 'RL005',
        hint = 'Permissions are producer, worker and reader.';
  end if;
  if not exists (select 1 from pg_roles r where r.rolname = $1) then
    raise exception 'there is no role "%"', $1 using errcode = 'RL005',
        hint = format('Create it first: create role %I login;', $1);
  end if;
  if cardinality($3) = 0 then
    raise exception 'no queue was named' using errcode = 'RL005', hint = 'rowlock.revoke_role takes a permission back.';
  end if;
  select u.name into unknown from unnest($3) u(name) where not exists (select 1 from rowlock.queue q
      where q.name = u.name) limit 1;
  if found then perform rowlock.refuse_unknown_queue(unknown); end if;
  delete from rowlock.access a where a.role = $1 and a.permission = $2;
  if $3 is null then insert into rowlock.access values ($1, $2, 0);
  else insert into rowlock.access select distinct $1, $2, q.id from rowlock.queue q where q.name = any ($3);
      end if;
  perform rowlock.renew_grants();
end $$;

-- Takes a permission back (null: all). A role can be dropped after this only: Postgres keeps one that has rights.
create or replace function rowlock.revoke_role(role name, permission text default null) returns void language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare f regprocedure;
begin
  lock table rowlock.access in share row exclusive mode;
  delete from rowlock.access a where a.role = $1 and ($2 is null or a.permission = $2);
  if not exists (select 1 from pg_roles r where r.rolname = $1) then
    perform rowlock.renew_grants();
    return;
  end if;
  for f in select x.function from rowlock.permission_functions() x group by x.function
      having not bool_or(exists (select 1 from rowlock.access a where a.role = $1 and a.permission = x.permission)) loop
    execute format('revoke execute on function %s from %I', f, $1);
  end loop;
  if not exists (select 1 from rowlock.access a where a.role = $1) then
    execute format('revoke select on rowlock.migration from %I', $1);
    execute format('revoke usage on schema rowlock from %I', $1);
  end if;
  perform rowlock.renew_grants();
end $$;

-- Nobody but the owner may call anything unless it is granted; the functions above included.
revoke execute on all functions in schema rowlock from public;
