-- Of ids with the same chunk number: a range of `ready` never leaves its chunk. Never 0.
create or replace function rowlock.chunk_of(id bigint) returns int language sql immutable return ((id >> 8) & 1073741823)::int + 1;

-- Partitions: made days ahead, never a default one (R8).
create or replace function rowlock.id_at(t timestamptz) returns bigint language sql immutable
  return (floor(date_part('epoch', t))::bigint - 1704067200) << 31;

create or replace function rowlock.id_time(i bigint) returns timestamptz language sql immutable
  return to_timestamp((i >> 31) + 1704067200);
