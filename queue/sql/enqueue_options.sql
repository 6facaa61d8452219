-- The options of enqueue and enqueue_many, which call these functions: priority 0..3 (0 is claimed
-- first; default 1), run_at (timestamptz) or delay (interval), max_attempts, traceparent and
-- tracestate (W3C Trace Context), and notify (false: no NOTIFY, for PREPARE TRANSACTION). An option
-- that is null counts as left out.

-- Refuses options that cannot be used. An unknown option is refused, because ignoring a misspelt
-- one would run the task with the wrong settings.
create or replace function rowlock.check_options(options jsonb)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  unknown text;
begin
  if jsonb_typeof(options) is distinct from 'object' then
    raise exception 'options must be a JSON object'
      using errcode = 'RL005',
        hint = 'Leave them out, or pass for example {"priority": 0}.';
  end if;
  select key
    into unknown
    from jsonb_object_keys(options) key
    where key not in (
        'priority', 'run_at', 'delay', 'max_attempts', 'traceparent', 'tracestate', 'notify'
      )
    limit 1;
  if found then
    raise exception 'unknown option "%"', unknown
      using errcode = 'RL002',
        hint = 'Options are priority, run_at, delay, max_attempts, traceparent, tracestate and'
          ' notify.';
  end if;
  if options->>'run_at' is not null and options->>'delay' is not null then
    raise exception 'run_at and delay exclude each other'
      using errcode = 'RL005',
        hint = 'Give one of them.';
  end if;
  if options ? 'priority' and (options->>'priority') !~ '^[0-3]$' then
    raise exception 'priority must be 0, 1, 2 or 3'
      using errcode = 'RL005',
        hint = '0 is claimed first; the default is 1.';
  end if;
  if options ? 'max_attempts'
    and not (
      (options->>'max_attempts') ~ '^[0-9]{1,4}$'
      and (options->>'max_attempts')::int between 1 and 1000
    ) then
    raise exception 'max_attempts must be a whole number from 1 to 1000'
      using errcode = 'RL005',
        hint = 'Leave it out to use the queue''s retry.maxAttempts.';
  end if;
  if jsonb_typeof(options->'notify') not in ('boolean', 'null') then
    raise exception 'notify must be true or false'
      using errcode = 'RL005',
        hint = 'false enqueues without NOTIFY, for PREPARE TRANSACTION.';
  end if;
end $$;

-- When the task is due according to its options; null: at once.
create or replace function rowlock.due_time(options jsonb)
returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD'
set timezone = 'UTC'
set intervalstyle = 'postgres'
as $$
declare
  delay interval;
  due timestamptz;
begin
  if options->>'delay' is not null then
    begin
      delay := (options->>'delay')::interval;
    exception when data_exception then
      raise exception 'delay is not an interval'
        using errcode = 'RL005',
          hint = 'For example "15 seconds" or "PT15S".';
    end;
    if delay < interval '0' then
      raise exception 'delay must not be negative'
        using errcode = 'RL005',
          hint = 'Leave it out to run the task now.';
    end if;
    begin
      -- Counted from this moment. The transaction may have started long ago.
      due := clock_timestamp() + delay;
    exception when data_exception then
      due := 'infinity';
    end;
  elsif options->>'run_at' is not null then
    -- Without an offset the time would depend on the session's time zone, and "tomorrow" on the
    -- day.
    if (options->>'run_at') !~ (
      '^[0-9]{4,5}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?'
      || ' ?(Z|[+-][0-9]{2}(:?[0-9]{2})?)$'
    ) then
      raise exception 'run_at is not a time with an offset from UTC'
        using errcode = 'RL005',
          hint = 'For example "2030-01-31T08:00:00Z" or "2030-01-31T09:00:00+01:00".';
    end if;
    begin
      due := greatest((options->>'run_at')::timestamptz, now());
    exception when data_exception then
      raise exception 'run_at is not a time'
        using errcode = 'RL005',
          hint = 'For example "2030-01-31T08:00:00Z".';
    end;
  end if;
  -- Clients cannot represent infinity, and few can represent a year with five digits.
  if due > clock_timestamp() + interval '100 years' then
    raise exception 'the task would be due in more than 100 years'
      using errcode = 'RL005',
        hint = 'The latest possible time is 100 years from now.';
  end if;
  return case when due > clock_timestamp() then due end;
end $$;

-- A producer's trace as a task keeps it: the traceparent, and behind a space the tracestate, if
-- there is one. Refuses what is not a `traceparent` of W3C Trace Context. It comes from the option
-- or, without one, from the setting rowlock.traceparent, which middleware can set once per
-- transaction. The tracestate comes from the same place. Often it is a header from elsewhere, so
-- one that cannot be a header, or is longer than others must pass on, is left out.
--
-- A task of enqueue_many has `*` before its trace: many tasks have one producer, so their attempts
-- link to its span instead of being its children.
create or replace function rowlock.producer_trace(trace text, options jsonb)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  state text := case
    when options->>'traceparent' is not null then options->>'tracestate'
    else current_setting('rowlock.tracestate', true)
  end;
begin
  if trace !~ '^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$' then
    raise exception 'traceparent is not a W3C trace context'
      using errcode = 'RL005',
        hint = 'It comes from the option traceparent or the setting rowlock.traceparent. For'
          ' example "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".';
  end if;
  return case
    when length(state) <= 512 and state ~ '^[ -~\t]+$' then trace || ' ' || state
    else trace
  end;
end $$;

-- Options that a client sends as text.
create or replace function rowlock.as_options(options text)
returns jsonb
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return options::jsonb;
exception when data_exception or statement_too_complex then
  raise exception 'options must be a JSON object'
    using errcode = 'RL005',
      hint = 'Leave them out, or pass for example {"priority": 0}.';
end $$;
