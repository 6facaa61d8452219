-- Who else than the owner may do what. Rights are granted to roles that the owner names, and so hold in this
-- database only: roles are of the server.

-- What each permission takes.
create function rowlock.permission_functions() returns table (permission text, function regprocedure) language sql stable
set search_path = pg_catalog, pg_temp as $$
  select d.permission, p.oid::regprocedure from (values
    ('producer', '{enqueue,enqueue_many,as_json,as_options,as_payloads,cancel,cancel_all,task_state}'::text[]),
    ('worker', '{join,policy,published_watermarks,heartbeat,claim,await_claims,fetch,settle,drain,leave,release_unknown_leases,maintain,least_k,move_missed,rescue,
                 mutex_holders,extend_partitions,partition_statistics,begin_maintenance,end_maintenance,mark_finished,delete_expired_tasks,keep_lows,
                 task_state}'),
    ('reader', '{statistics,describe_task,task_errors,list_tasks,audit,task_state}')) d(permission, names)
  join pg_proc p on p.proname = any (d.names) and p.pronamespace = 'rowlock'::regnamespace
$$;

-- Grants what the table `access` says and a role does not have yet. After each migration, which may have made
-- functions that nobody was granted.
create function rowlock.renew_grants() returns void language plpgsql volatile
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
create function rowlock.grant_role(role name, permission text, queues text[] default null) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare unknown text;
begin
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
create function rowlock.revoke_role(role name, permission text default null) returns void language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare f regprocedure;
begin
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
