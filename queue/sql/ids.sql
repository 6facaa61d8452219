-- Converts between ids, chunks and times: see rowlock.task in migrations/0001_tables.sql. Called by
-- other functions.

-- A number that all ids of a chunk share. A range of `ready` never spans two chunks. Never 0.
create or replace function rowlock.chunk_of(id bigint)
returns int
language sql immutable
return ((id >> 8) & 1073741823)::int + 1;

-- The smallest id that a task enqueued at this time can have.
create or replace function rowlock.id_at(t timestamptz)
returns bigint
language sql immutable
return (floor(date_part('epoch', t))::bigint - 1704067200) << 31;

-- When the task was enqueued, to the second.
create or replace function rowlock.id_time(i bigint)
returns timestamptz
language sql immutable
return to_timestamp((i >> 31) + 1704067200);
