-- An instance claims tasks and reads their payloads with one statement. Called by workers
-- (queue/src/claim.rs).

-- Does what rowlock.claim does, and also returns the payloads of the claimed tasks, up to 256 KiB
-- of them; the rest is left to rowlock.fetch. So are tasks whose partition was dropped.
--
-- If a payload cannot be read, nothing is claimed. Then send the claim again as rowlock.claim, with
-- the same token.
--
-- The query of payloads is planned at each call: see rowlock.fetch. `octet_length` reads no payload
-- that is stored outside of its row.
create or replace function rowlock.claim_with_payloads(
  instance bigint,
  want int,
  watermarks bigint[],
  start int,
  token bigint
)
returns table (
  firsts bigint[],
  ns smallint[],
  attempts smallint[],
  priorities smallint[],
  contended boolean,
  newest_k bigint,
  least_ks bigint[],
  sinces int[],
  now_seconds double precision,
  ids bigint[],
  types text[],
  payloads text[],
  max_attempts smallint[],
  traces text[]
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  v_ids bigint[];
begin
  select c.*
    into firsts, ns, attempts, priorities, contended, newest_k, least_ks, sinces, now_seconds
    from rowlock.claim(
      claim_with_payloads.instance,
      claim_with_payloads.want,
      claim_with_payloads.watermarks,
      claim_with_payloads.start,
      claim_with_payloads.token
    ) c;
  if cardinality(firsts) > 0 then
    v_ids := array(
      select task.id
      from
        unnest(firsts, ns) range(first_id, n),
        generate_series(range.first_id, range.first_id + range.n - 1) task(id)
    );
    execute format(
      'select
        array_agg(t.id),
        array_agg(t.type),
        array_agg(t.payload),
        array_agg(t.max_attempts),
        array_agg(t.trace)
      from (
        select
          t.id,
          t.type,
          t.payload::text,
          t.max_attempts,
          t.trace,
          sum(octet_length(t.payload::text)) over (order by t.id rows unbounded preceding) bytes
        from rowlock.task t
        where %s
      ) t
      where t.bytes <= 262144',
      rowlock.with_ids(cardinality(v_ids))
    )
      into ids, types, payloads, max_attempts, traces
      using v_ids,
        (select min(task.id) from unnest(v_ids) task(id)),
        (select max(task.id) from unnest(v_ids) task(id));
  end if;
  return next;
end $$;
