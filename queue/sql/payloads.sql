-- Payloads as clients send them. Called by the overloads of enqueue and enqueue_many that take text
-- or a JSON array. Text that is not JSON is refused with an SQLSTATE of ours. No message contains
-- it.

create or replace function rowlock.as_json(payload text)
returns json
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return payload::json;
exception
  when data_exception then
    raise exception 'the payload is not JSON'
      using errcode = 'RL005',
        hint = 'JSON strings need double quotes: "hello", or to_json(''hello''::text).';
  when statement_too_complex then
    raise exception 'the payload is nested too deeply'
      using errcode = 'RL005',
        hint = 'Postgres reads some thousand levels (max_stack_depth).';
end $$;

-- The same for many payloads. Only if they cannot be parsed together, each is parsed alone to name
-- the first bad one.
create or replace function rowlock.as_json(payloads text[])
returns json[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  item record;
begin
  return payloads::json[];
exception when data_exception or statement_too_complex then
  for item in
    select * from unnest(payloads) with ordinality list(payload, place)
  loop
    begin
      perform item.payload::json;
    exception when data_exception or statement_too_complex then
      raise exception 'payload % of % is not JSON', item.place, cardinality(payloads)
        using errcode = 'RL005',
          hint = 'JSON strings need double quotes: "hello", or to_json(''hello''::text).';
    end;
  end loop;
end $$;

create or replace function rowlock.as_payloads(payloads json)
returns json[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if json_typeof(payloads) <> 'array' then
    raise exception 'the payloads are not an array'
      using errcode = 'RL005',
        hint = 'Pass a JSON array, [{"order": 1}, {"order": 2}]; rowlock.enqueue takes a single'
          ' task.';
  end if;
  return case
    when payloads is not null then array(
      select list.payload
      from json_array_elements(payloads) with ordinality list(payload, place)
      order by list.place
    )
  end;
end $$;

-- A parameter of unknown type, or a literal, is resolved to this overload: text is the preferred
-- type. The text is a JSON array, or an array literal of Postgres, which some drivers send for a
-- list of strings. Its first character shows which.
create or replace function rowlock.as_payloads(payloads text)
returns json[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if ltrim(payloads, E' \t\n\r') not like '{%' then
    return rowlock.as_payloads(rowlock.as_json(payloads));
  end if;
  return rowlock.as_json(payloads::text[]);
exception when data_exception then
  raise exception 'the payloads are not an array'
    using errcode = 'RL005',
      hint = 'Pass a JSON array, [{"order": 1}, {"order": 2}]; rowlock.enqueue takes a single'
        ' task.';
end $$;
