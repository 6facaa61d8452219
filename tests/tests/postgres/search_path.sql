-- An attacker who may only create objects in `public` makes a function and an operator for every
-- name that the project's SQL uses, with argument types for which Postgres has no exact match and
-- would cast. $NAMES are the names of the functions. Each one records that it was called.
create sequence public.hits;
create table public.hit (who text, what text);
grant all on sequence public.hits to public;
grant all on table public.hit to public;
do $$
declare
  types text[] := '{int2,int4,int8,numeric,float4,float8,text,varchar,name,bool,timestamptz,'
    'interval,oid,json,jsonb,int8[]}';
  few text[] := '{int4,int8,numeric,float8,text,varchar,name,interval,timestamptz,json}';
  body text := 'language plpgsql set search_path = pg_catalog as $t$ begin '
    'perform nextval(''public.hits''); insert into public.hit values (current_user, %L); '
    'return null; end $t$';
  l text; r text; op text; f record;
begin
  foreach l in array types loop
    foreach r in array types loop
      execute format('create function public.trap_truth(%1$s, %2$s) returns bool ' || format(body,
          l || ' and ' || r), l, r);
      execute format('create function public.trap_value(%1$s, %2$s) returns %1$s ' || format(body,
          l || ' and ' || r), l, r);
      foreach op in array
        '{=,<>,<,<=,>,>=,~,!~,~~,&&,?,@>,<@,+,-,*,/,%,||,&,|,<<,>>,->,->>,#>,#>>}'::text[] loop
        continue when exists (select from pg_catalog.pg_operator o where o.oprname = op
            and o.oprleft = l::regtype and o.oprright = r::regtype);
        execute format('create operator public.%1$s '
          '(leftarg = %2$s, rightarg = %3$s, function = public.trap_%4$s)', op, l, r,
          case when op = any ('{=,<>,<,<=,>,>=,~,!~,~~,&&,?,@>,<@}') then 'truth' else 'value' end);
      end loop;
    end loop;
  end loop;
  for f in
    select n.name, t.l || coalesce(', ' || t.r, '') arguments, t.l result
        from unnest('{$NAMES}'::text[]) n(name),
      (select x, null from unnest(types) x
        union all select x, y from unnest(few) x, unnest(few) y) t(l, r)
    where exists (select from pg_catalog.pg_proc p where p.proname = n.name
        and p.pronargs between case
        when t.r is null then 0 else 2 end and 2)
      and not exists (select from pg_catalog.pg_proc p where p.proname = n.name
          and p.pronamespace = 'pg_catalog'::regnamespace and p.proargtypes =
        array_to_string(array[t.l::regtype::oid] || case when t.r is null then '{}'::oid[]
            else array[t.r::regtype::oid] end, ' ')::oidvector)
  loop
    execute format('create function public.%I(%s) returns %s ' || format(body,
        f.name || '(' || f.arguments || ')'), f.name, f.arguments, f.result);
  end loop;
end $$;
