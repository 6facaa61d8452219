-- What a producer sends as text is read here, so that what is no JSON is refused with a code of ours. The text itself is in no message.
create or replace function rowlock.as_json(payload text) returns json language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  return payload::json;
exception
  when data_exception then
    raise exception 'the payload is not JSON' using errcode = 'RL005',
        hint = 'A text within JSON has double quotes: "hello", or to_json(''hello''::text).';
  when statement_too_complex then
    raise exception 'the payload is nested too deeply' using errcode = 'RL005',
        hint = 'Postgres reads some thousand levels (max_stack_depth).';
end $$;

create or replace function rowlock.as_json(payloads text[]) returns json[] language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare bad record;
begin
  return payloads::json[];
exception when data_exception or statement_too_complex then
  for bad in select * from unnest(payloads) with ordinality p(p, o) loop
    begin
      perform bad.p::json;
    exception when data_exception or statement_too_complex then
      raise exception 'payload % of % is not JSON', bad.o, cardinality(payloads) using errcode = 'RL005', hint = 'A text within JSON has double quotes: "hello", or to_json(''hello''::text).';
    end;
  end loop;
end $$;

-- Payloads as clients send them. A parameter of unknown type, and a literal, is taken as text, the preferred
-- type of several. A text is a JSON array, or an array literal of Postgres, which some drivers send for a
-- list of strings: its first character tells.
create or replace function rowlock.as_payloads(payloads json) returns json[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if json_typeof(payloads) <> 'array' then
    raise exception 'the payloads are no array' using errcode = 'RL005',
      hint = 'Pass a JSON array, [{"order": 1}, {"order": 2}]; rowlock.enqueue takes one task alone.';
  end if;
  return case when payloads is not null then array(
    select e.value from json_array_elements(payloads) with ordinality e(value, o) order by e.o) end;
end $$;

create or replace function rowlock.as_payloads(payloads text) returns json[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if ltrim(payloads, E' \t\n\r') not like '{%' then return rowlock.as_payloads(rowlock.as_json(payloads)); end if;
  return rowlock.as_json(payloads::text[]);
exception when data_exception then
  raise exception 'the payloads are no array' using errcode = 'RL005',
    hint = 'Pass a JSON array, [{"order": 1}, {"order": 2}]; rowlock.enqueue takes one task alone.';
end $$;
