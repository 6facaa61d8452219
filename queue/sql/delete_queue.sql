-- Takes away what a queue holds, with evidence: what is unfinished is cancelled, what is dead deleted.
create or replace function rowlock.clear_queue(queue int) returns bigint language plpgsql volatile set search_path = pg_catalog, pg_temp set jit = off as $$
declare cancelled bigint;
begin
  with ready as (delete from rowlock.ready r where r.queue = $1 returning r.id, r.n, r.attempt),
  delayed as (delete from rowlock.delayed d where d.queue = $1 returning d.id, d.attempt),
  lease as (delete from rowlock.lease l where l.queue = $1 returning l.firsts, l.ns, l.attempts, l.settled),
  unfinished as (
    select id, n, attempt from ready union all select id, 1::smallint, attempt from delayed
    union all select g, 1::smallint, u.attempt from lease l, unnest(l.firsts, l.ns, l.attempts) u(f, n, attempt), generate_series(u.f, u.f + u.n - 1) g where g <> all (l.settled)),
  written as (
    insert into rowlock.receipt (queue, state, firsts, ns, attempts) select $1, 3, array_agg(o.id order by o.id), array_agg(o.n order by o.id), array_agg(o.attempt order by o.id) from unfinished o having count(*) > 0)
  select coalesce(sum(o.n), 0) into cancelled from unfinished o;
  with dead as (delete from rowlock.dead d where d.queue = $1 returning d.id, d.attempt)
  insert into rowlock.receipt (queue, state, firsts, ns, attempts) select $1, 2, array_agg(d.id order by d.id), array_agg(1::smallint), array_agg(d.attempt order by d.id) from dead d having count(*) > 0;
  return cancelled;
end $$;

-- For administrators: a queue that no TaskQueue declares any more. Refused while instances live or tasks are unfinished, unless forced: then the instances
-- are gone and the tasks cancelled. Answers with how many those were. Payloads and receipts go with their partitions.
create or replace function rowlock.delete_queue(queue text, force boolean default false) returns bigint language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '1s' set jit = off as $$
#variable_conflict use_column
declare v rowlock.queue; i record; living bigint; cancelled bigint := 0;
begin
  perform rowlock.require_read_committed();
  select * into v from rowlock.queue q where q.name = $1;
  if not found then perform rowlock.refuse_unknown_queue($1); end if;
  select count(*) into living from rowlock.instance x where x.queue = v.id and x.ended_at is null;
  if living > 0 and $2 is not true then
    raise exception 'queue "%" has % instances', $1, living using errcode = 'RL009', hint = 'Delete its TaskQueue and wait until they have left; force => true ends them.';
  end if;
  begin
    for i in select x.id from rowlock.instance x where x.queue = v.id and x.ended_at is null order by x.id loop
      perform 1 from rowlock.instance x where x.id = i.id for update;
      update rowlock.instance x set ended_at = now(), gone = true where x.id = i.id and x.ended_at is null;
    end loop;
    -- Most of it before the lock, which waits for every transaction that enqueued or moved something, and keeps new ones waiting meanwhile.
    if $2 then cancelled := rowlock.clear_queue(v.id); end if;
    lock table rowlock.queue in access exclusive mode;
  exception when lock_not_available then
    raise exception 'queue "%" is being used', $1 using errcode = 'RL009', hint = 'A transaction that enqueued or a statement of an instance is open: try again when it has ended.';
  end;
  if $2 is not true and (exists (select 1 from rowlock.ready r where r.queue = v.id) or exists (select 1 from rowlock.delayed d where d.queue = v.id)
      or exists (select 1 from rowlock.lease l where l.queue = v.id)) then
    raise exception 'queue "%" has unfinished tasks', $1 using errcode = 'RL009', hint = 'Let them be done; force => true cancels them all.';
  end if;
  cancelled := cancelled + rowlock.clear_queue(v.id);
  delete from rowlock.cancel_request c using rowlock.every_task t where t.id = c.id and t.queue = v.id;
  delete from rowlock.snooze s using rowlock.every_task t where t.id = s.id and t.queue = v.id;
  delete from rowlock.task_kept t where t.queue = v.id;
  delete from rowlock.mutex m where m.queue = v.id;
  delete from rowlock.queue q where q.id = v.id;
  return cancelled;
end $$;
