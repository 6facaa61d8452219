-- The permissions of roles other than the owner. `grant_role` and `revoke_role` are called by
-- administrators, `renew_grants` also by a migration, and the checks by the other functions.
-- Permissions are granted to roles that the owner names. They hold in this database only, although
-- roles belong to the whole server.
--
-- Settings of the caller's session do not change the meaning of anything: functions that read or
-- write times fix DateStyle, TimeZone and IntervalStyle, and no plain string literal has a
-- backslash, which standard_conforming_strings would affect.

-- The role that the session has switched to, or else its user. Not current_user, which is the owner
-- inside these functions. Inside a SECURITY DEFINER function of an application the session's user
-- still counts.
create or replace function rowlock.calling_role()
returns name
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(nullif(current_setting('role', true), 'none')::name, session_user)
$$;

-- Whether the caller has the permission (null: any) for a queue. Called only if some role has
-- permissions for single queues (queue.restricted).
create or replace function rowlock.has_permission(permission text, queue int)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  who name := rowlock.calling_role();
begin
  return
    pg_has_role(
      who, (select n.nspowner from pg_namespace n where n.nspname = 'rowlock'), 'usage'
    )
    or exists (
      select 1
      from rowlock.access a
      join pg_roles r on r.rolname = a.role
      where a.queue in (0, has_permission.queue)
        and (has_permission.permission is null or a.permission = has_permission.permission)
        and pg_has_role(who, r.oid, 'usage')
    );
end $$;

-- Raises RL011, with the grant that would help.
create or replace function rowlock.refuse_permission(permission text, queue text)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'the role "%" is not a % of queue "%"',
      rowlock.calling_role(), permission, queue
    using errcode = 'RL011',
      hint = format(
        'The owner of the database can run: select rowlock.grant_role(%L, %L, array[%L]);',
        rowlock.calling_role(),
        permission,
        queue
      );
end $$;

-- Refuses a caller that may not work for this queue. Called by the functions for instances.
create or replace function rowlock.require_worker(queue int)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text;
begin
  select q.name
    into v_name
    from rowlock.queue q
    where q.id = require_worker.queue and q.restricted;
  if found and not rowlock.has_permission('worker', require_worker.queue) then
    perform rowlock.refuse_permission('worker', v_name);
  end if;
end $$;

-- The id of a queue that the caller may read. Raises RL001 for any other, whether it exists or not.
create or replace function rowlock.readable_queue(name text)
returns int
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id int;
begin
  select q.id
    into v_id
    from rowlock.queue q
    where q.name = readable_queue.name
      and (not q.restricted or rowlock.has_permission('reader', q.id));
  if not found then
    perform rowlock.refuse_unknown_queue(readable_queue.name);
  end if;
  return v_id;
end $$;

-- The functions that each permission allows to call.
create or replace function rowlock.permission_functions()
returns table (permission text, function regprocedure)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select allowed.permission, p.oid::regprocedure
  from (
    values
      (
        'producer',
        array[
          'enqueue', 'enqueue_many', 'as_json', 'as_options', 'as_payloads', 'cancel',
          'cancel_all', 'task_state'
        ]
      ),
      (
        'worker',
        array[
          'join', 'policy', 'published_watermarks', 'heartbeat', 'claim', 'claim_suspect',
          'claim_with_payloads', 'await_claims', 'fetch', 'settle', 'drain', 'leave',
          'release_unknown_leases', 'maintain', 'least_k', 'move_missed', 'rescue',
          'mutex_holders', 'extend_partitions', 'partition_statistics', 'begin_maintenance',
          'end_maintenance', 'mark_finished', 'delete_expired_tasks',
          'delete_old_scaling_decisions', 'keep_watermarks', 'task_state', 'take_back_left_tasks'
        ]
      ),
      (
        'reader',
        array[
          'statistics', 'describe_task', 'task_errors', 'list_tasks', 'audit', 'task_state',
          'scaling_decisions', 'arrivals'
        ]
      )
  ) allowed(permission, names)
  join pg_proc p
    on p.proname = any (allowed.names)
    and p.pronamespace = 'rowlock'::regnamespace
$$;

-- Grants the rights that the table `access` lists and a role does not have yet. Also needed after
-- each migration, which may have created functions.
create or replace function rowlock.renew_grants()
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  missing record;
begin
  lock table rowlock.access in share row exclusive mode;
  -- Deletes rows of roles and queues that are gone: a new role of the same name would inherit them.
  delete from rowlock.access a
    where not exists (select 1 from pg_roles r where r.rolname = a.role)
      or (
        a.queue <> 0
        and not exists (select 1 from rowlock.queue q where q.id = a.queue)
      );
  for missing in
    select distinct r.rolname, f.function
    from rowlock.access a
    join pg_roles r on r.rolname = a.role
    join rowlock.permission_functions() f on f.permission = a.permission
    join pg_proc p on p.oid = f.function
    where not exists (select 1 from aclexplode(p.proacl) x where x.grantee = r.oid)
  loop
    execute format('grant execute on function %s to %I', missing.function, missing.rolname);
  end loop;
  for missing in
    select distinct r.rolname
    from rowlock.access a
    join pg_roles r on r.rolname = a.role
    where not exists (
      select 1
      from pg_namespace n, aclexplode(n.nspacl) x
      where n.nspname = 'rowlock' and x.grantee = r.oid
    )
  loop
    execute format('grant usage on schema rowlock to %I', missing.rolname);
    -- Every command first checks the schema's version.
    execute format('grant select on rowlock.migration to %I', missing.rolname);
  end loop;
  update rowlock.queue q
    set restricted = not q.restricted
    where q.restricted <> exists (select 1 from rowlock.access a where a.queue <> 0);
end $$;

-- `permission`: producer, worker or reader. `queues`: only for these queues, instead of those for
-- which the role had this permission before. Null: for all queues, also future ones.
create or replace function rowlock.grant_role(
  role name,
  permission text,
  queues text[] default null
)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  unknown text;
begin
  -- This comes first: two callers that had each written before locking would wait for each other.
  lock table rowlock.access in share row exclusive mode;
  if grant_role.permission is null
    or grant_role.permission not in ('producer', 'worker', 'reader') then
    raise exception 'unknown permission "%"', grant_role.permission
      using errcode = 'RL005',
        hint = 'Permissions are producer, worker and reader.';
  end if;
  if not exists (select 1 from pg_roles r where r.rolname = grant_role.role) then
    raise exception 'there is no role "%"', grant_role.role
      using errcode = 'RL005',
        hint = format('Create it first: create role %I login;', grant_role.role);
  end if;
  if cardinality(queues) = 0 then
    raise exception 'no queue was named'
      using errcode = 'RL005',
        hint = 'To take a permission back, use rowlock.revoke_role.';
  end if;
  select named.name
    into unknown
    from unnest(grant_role.queues) named(name)
    where not exists (select 1 from rowlock.queue q where q.name = named.name)
    limit 1;
  if found then
    perform rowlock.refuse_unknown_queue(unknown);
  end if;
  delete from rowlock.access a
    where a.role = grant_role.role and a.permission = grant_role.permission;
  if queues is null then
    insert into rowlock.access values (grant_role.role, grant_role.permission, 0);
  else
    insert into rowlock.access
      select distinct grant_role.role, grant_role.permission, q.id
      from rowlock.queue q
      where q.name = any (grant_role.queues);
  end if;
  perform rowlock.renew_grants();
end $$;

-- Takes a permission back (null: all of them). Only then can the role be dropped, because Postgres
-- keeps a role that has privileges.
create or replace function rowlock.revoke_role(role name, permission text default null)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  f regprocedure;
begin
  lock table rowlock.access in share row exclusive mode;
  delete from rowlock.access a
    where a.role = revoke_role.role
      and (revoke_role.permission is null or a.permission = revoke_role.permission);
  if not exists (select 1 from pg_roles r where r.rolname = revoke_role.role) then
    perform rowlock.renew_grants();
    return;
  end if;
  for f in
    select allowed.function
    from rowlock.permission_functions() allowed
    group by allowed.function
    having not bool_or(
      exists (
        select 1
        from rowlock.access a
        where a.role = revoke_role.role and a.permission = allowed.permission
      )
    )
  loop
    execute format('revoke execute on function %s from %I', f, revoke_role.role);
  end loop;
  if not exists (select 1 from rowlock.access a where a.role = revoke_role.role) then
    execute format('revoke select on rowlock.migration from %I', revoke_role.role);
    execute format('revoke usage on schema rowlock from %I', revoke_role.role);
  end if;
  perform rowlock.renew_grants();
end $$;

-- Only the owner may call a function that is not granted. This includes the functions above.
revoke execute on all functions in schema rowlock from public;
