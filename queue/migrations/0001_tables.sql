-- The tables. No row is updated at regular intervals, and a task leaves no dead row
-- behind: see ARCHITECTURE.md. The functions are in ../sql, one file per verb.
--
-- Names of columns
--   id            A task: seconds since 2024-01-01 (32 bits) << 31 | (number of the chunk mod 2^23)
--                 << 8 | place in the chunk (0 to 255). 2024-01-01 is 1704067200 in Unix time.
--   k             The order in which ranges are claimed, from k_seq. It only grows. k & 3 is the
--                 shard. Claims of several instances start at different shards and so
--                 rarely meet.
--   k_low         The lower half of k, as a signed number: ((k & 4294967295) - 2147483648).
--   n             In `ready`, the number of tasks in a range [id, id + n). In `heartbeat` and
--                 `task_error_kept`, a running number.
--   firsts, ns    Ranges as parallel arrays: the first id of each, and its number of tasks.
--   attempt, attempts   In `ready`, `delayed` and `lease`, the attempts that were used before; in
--                 `receipt`, `dead` and `task_error`, the ones used in the end.
--
-- Numbers with a meaning
--   waits         Why a delayed task waits: 0 scheduled, 1 retryable.
--   state         In a receipt: 1 completed, 2 dead and deleted, 3 cancelled.
--   outcome       In rowlock.settle: 1 complete, 2 retry, 3 dead, 4 snooze, 5 release,
--                 7 the handler ended. Inside the functions also 6 cancelled.
--   answer        Of rowlock.settle: 1 done, 2 dead, 3 cancelled, 4 lease lost.
--   operation     An operation that only one session does at a time, in rowlock.mutex: 0 NOTIFY,
--                 1 partitions and their cleanup, 2 moving due tasks, 3 limits, 4 deleting
--                 expired tasks, 5 allocation, 6 watermark sweep, 8 claiming a suspect. In
--                 rowlock.mutex_holders also 7, the turn at maintenance.
--   SQLSTATE      RL001 unknown queue, RL002 unknown option, RL003 payload too large, RL004 backlog
--                 full, RL005 bad value, RL006 instance gone, RL007 wrong isolation level, RL008
--                 queue owned by another, RL009 queue in use, RL010 no partition, RL011 no
--                 permission.

create sequence rowlock.chunk_seq;        -- the number of a chunk of ids
create sequence rowlock.k_seq;            -- the order in which ranges are claimed
create sequence rowlock.heartbeat_seq;    -- orders heartbeats, which a clock cannot
create sequence rowlock.allocation_seq;
create sequence rowlock.instance_seq;

-- A queue as its TaskQueue declares it. Instances read it with their heartbeat, so that a change of
-- policy needs no rollout.
create table rowlock.queue (
  id               int generated always as identity primary key,
  name             text not null unique check (name ~ '^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$'),
  owner            text not null default '',
  generation       bigint not null default 0,
  policy           json not null,
  max_attempts     smallint not null check (max_attempts between 1 and 1000),
  total_workers    int not null check (total_workers between 0 and 10000),
  paused           boolean not null default false,
  backlog_limit    bigint not null check (backlog_limit > 0),
  payload_limit    int not null check (payload_limit > 0),
  -- Set and cleared by maintenance, so that enqueue need not count tasks.
  backlog_full     boolean not null default false,
  -- The same for tasks that are due in more than a day.
  far_future_full  boolean not null default false,
  -- At least one role has permissions for single queues, so the functions check the caller.
  restricted       boolean not null default false,
  -- When the last partition ends, in seconds since 2024.
  partitions_until int not null default 0,
  -- Producers send NOTIFY until then. Renewed about once a minute while instances sleep (R12).
  notify_until     timestamptz not null default '-infinity',
  range_size       smallint not null default 128 check (range_size between 1 and 256),
  keep_completed   interval not null,
  keep_dead        interval not null,
  keep_cancelled   interval not null,
  -- The longest time between enqueuing a task and its due time.
  max_delay        interval not null default interval '365 days',
  -- For a queue without instances: where claims may start, and as of when; see
  -- rowlock.keep_watermarks. Instances publish it in their heartbeats instead.
  watermarks       bigint[],
  watermarks_at    timestamptz not null default '-infinity'
);

-- The permissions of roles other than the owner: see ../sql/roles.sql.
create table rowlock.access (
  role       name not null,
  permission text not null check (permission in ('producer', 'worker', 'reader')),
  queue      int not null,             -- 0: every queue
  primary key (role, permission, queue)
);

-- `task`, `ready`, `delayed`, `lease` and `receipt` have no CHECK. Postgres would parse each one
-- again for every statement, which took 15 µs of the 54 µs of an enqueue. enqueue checks the values
-- from outside.

create table rowlock.task (
  id           bigint not null primary key,
  queue        int not null,
  -- Lower half of the k with which its range was enqueued: see rowlock.find_ready. Null: the task
  -- was not due then.
  k_low        int,
  priority     smallint not null,    -- 0 to 3
  max_attempts smallint,             -- 1 to 1000; null: the queue's
  type         text not null,        -- 1 to 200 characters
  payload      json not null,
  -- The producer's trace: see rowlock.check_trace. Null: none. As the eighth column it takes no
  -- room when null.
  trace        text
) partition by range (id);

-- Tasks of deleted partitions that must be kept: unfinished, dead, or finished too recently to be
-- deleted. These are few. `finished_at` is when the task was completed or cancelled. Until its
-- partition is emptied, a task is in both tables.
create table rowlock.task_kept (
  like rowlock.task,
  finished_at timestamptz,
  primary key (id)
);
create index task_kept_finished
  on rowlock.task_kept (queue, finished_at)
  where finished_at is not null;

-- Tasks that can be claimed: [id, id + n). `fresh`: no task of the range has moved since it was
-- enqueued.
create table rowlock.ready (
  queue    int not null,
  shard    smallint not null,
  lane     smallint not null default 0,
  priority smallint not null,
  -- When the range became available, in seconds since 2024, for people and for autoscaling.
  -- Alignment would leave these bytes unused anyway.
  since    int not null default (date_part('epoch', now()) - 1704067200::float8)::int,
  k        bigint not null,
  id       bigint not null,
  n        smallint not null,                -- 1 to 256
  attempt  smallint not null,
  fresh    boolean not null,
  notify   boolean not null default true,    -- whether its commit sends a NOTIFY
  moved    int not null default 0,           -- chunk_of(id) if the range is not fresh
  primary key (queue, shard, lane, priority, k)
) with (
  fillfactor = 90,
  vacuum_truncate = off,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 10000,
  autovacuum_vacuum_insert_scale_factor = 0,
  autovacuum_vacuum_insert_threshold = 1000000,
  autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_scale_factor = 0,
  autovacuum_analyze_threshold = 1000000
);

-- A range that moved is found by its chunk. A fresh one is found by the k in its task's row, so
-- that enqueue writes no index entry for it. Not by id: claiming a part of a range changes its id,
-- and would each time leave a dead entry in every index.
create index ready_moved on rowlock.ready (moved) where moved <> 0;

-- Tasks that are not due yet, or wait for the next attempt. `due` is run_at, or the time of a late
-- commit (R13), or later for a suspect.
create table rowlock.delayed (
  id       bigint primary key,
  queue    int not null,
  priority smallint not null,
  attempt  smallint not null,
  waits    smallint not null default 0,
  run_at   timestamptz not null,
  due      timestamptz not null
) with (
  vacuum_truncate = off,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 10000,
  autovacuum_vacuum_cost_delay = 0
);
create index delayed_due on rowlock.delayed (due, id);
create index delayed_queue on rowlock.delayed (queue, waits, id);

-- One row per claim. The token is random, because a failover may rewind a sequence (R14).
create table rowlock.lease (
  token      bigint primary key,
  instance   bigint not null,
  queue      int not null,
  at         timestamptz not null default now(),
  firsts     bigint[] not null,
  ns         smallint[] not null,
  attempts   smallint[] not null,
  priorities smallint[] not null,
  settled    bigint[] not null default '{}'
) with (
  fillfactor = 70,
  vacuum_truncate = off,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);

create index lease_instance on rowlock.lease (instance);

-- One row per settled batch. `firsts` ascends. The ids of a row span less than 2^33 (four seconds
-- of enqueuing), except where a queue was deleted. So the rows that may hold a task are close
-- together in receipt_ids.
create table rowlock.receipt (
  at       timestamptz not null default now(),
  queue    int not null,
  instance bigint,
  state    smallint not null,
  firsts   bigint[] not null,
  ns       smallint[] not null,
  attempts smallint[] not null
) partition by range (at);
create index receipt_at on rowlock.receipt (queue, state, at);
create index receipt_ids on rowlock.receipt (
  queue,
  (firsts[1]),
  (firsts[array_upper(firsts, 1)] + ns[array_upper(ns, 1)]),
  at
);

create table rowlock.result (
  at    timestamptz not null default now(),
  id    bigint not null,
  value text not null
) partition by range (at);
create index result_id on rowlock.result (id);

create table rowlock.dead (
  id       bigint primary key,
  queue    int not null,
  priority smallint not null,
  attempt  smallint not null,
  at       timestamptz not null default now()
);
create index dead_queue on rowlock.dead (queue, id);
create index dead_at on rowlock.dead (queue, at);

create table rowlock.task_error (
  at       timestamptz not null default now(),
  id       bigint not null,
  attempt  smallint not null,
  instance bigint,
  error    text not null
) partition by range (at);
create index task_error_id on rowlock.task_error (id);
create table rowlock.task_error_kept (
  n        bigint generated always as identity primary key,
  at       timestamptz not null,
  id       bigint not null,
  attempt  smallint not null,
  instance bigint,
  error    text not null
);
create index task_error_kept_id on rowlock.task_error_kept (id);

-- An operation that only one session may do at a time locks its row. Advisory locks are not safe
-- here: every login that may connect can take those. Rows are only locked and never updated,
-- because a lock leaves no dead row behind.
create table rowlock.mutex (
  operation smallint not null,
  queue     int not null,          -- 0: the whole database
  primary key (operation, queue)
);
insert into rowlock.mutex select operation, 0 from generate_series(0, 4) operation;

-- How often the handler has snoozed a task, and since when. The row is deleted when the task
-- finishes.
create table rowlock.snooze (
  id       bigint primary key,
  times    int not null,
  first_at timestamptz not null,
  at       timestamptz not null
) with (
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);

-- The tasks whose handler ended while they ran. They run alone: see ../sql/suspects.sql. The row is
-- deleted when the handler has answered, or when the task finishes.
create table rowlock.suspect (
  id    bigint primary key,
  queue int not null,
  alone smallint not null default 0,   -- how often the handler ended while it ran alone
  due   timestamptz not null,          -- infinity: it is claimed
  until timestamptz not null           -- then it becomes available like any other task
);
create index suspect_due on rowlock.suspect (queue, due);

create table rowlock.cancel_request (
  id bigint primary key,
  at timestamptz not null default now()
);

-- Written when an instance joins, drains, leaves or is rescued. Heartbeats do not write to it.
create table rowlock.instance (
  id        bigint primary key,
  queue     int not null,
  name      text not null,
  capacity  int not null check (capacity between 1 and 10000),
  joined_at timestamptz not null default now(),
  drains    boolean not null default false,
  ended_at  timestamptz,
  gone      boolean not null default false,       -- it was ended by a rescue or a delete
  pod       uuid,                                 -- the UID of its pod, in a cluster
  -- It claims no tasks until then: a scale-in is about to end its pod. See rowlock.drain_pods.
  drain_until timestamptz
);
create index instance_live on rowlock.instance (queue, id) where ended_at is null;

-- The slots that an instance holds, wants and acknowledges. Rows are only inserted: a row that is
-- updated once a second becomes slow to read while an old transaction keeps its dead versions.
create table rowlock.heartbeat (
  n                   bigint not null,
  at                  timestamptz not null default now(),
  instance            bigint not null,
  queue               int not null,
  held                int not null,
  allocated           int not null,
  allocation          bigint not null,
  wants               int not null,
  -- The runs of the last two minutes: how many completed, the sum of their seconds and of the
  -- squares of these, and how many failed or timed out.
  runs                int not null default 0,
  failures            int not null default 0,
  run_seconds         real not null default 0,
  run_seconds_squared real not null default 0,
  watermarks          bigint[]
) partition by range (at);
create index heartbeat_newest on rowlock.heartbeat (instance, n desc);

create table rowlock.allocation (
  number   bigint not null,
  at       timestamptz not null default now(),
  queue    int not null,
  instance bigint not null,
  slots    int not null check (slots >= 0)
) partition by range (at);
create index allocation_newest on rowlock.allocation (instance, number desc);

-- Why a queue has its number of pods: one row per change, written by what scales the queue.
-- `number` counts the rows of a queue, so their order does not depend on the clock. The figures are
-- null where they were not known, or did not count.
create table rowlock.scaling_decision (
  queue               int not null,
  number              bigint not null,
  at                  timestamptz not null,
  pods_before         int not null check (pods_before >= 0),
  pods                int not null check (pods >= 0),
  workers             int not null check (workers >= 0),
  reason              text not null check (reason ~ '^[A-Za-z]{1,40}$'),
  demand              int,                -- workers that the tasks need, before limits
  waiting             bigint,             -- tasks
  running             bigint,             -- tasks
  arrivals_per_second double precision,
  service_seconds     double precision,   -- mean duration of a task
  service_assumed     boolean,            -- no task has completed yet
  pod_start_seconds   double precision,
  for_rate            double precision,   -- workers
  for_backlog         double precision,   -- workers
  detail              text check (length(detail) <= 500),
  primary key (queue, number)
);
create index scaling_decision_at on rowlock.scaling_decision (queue, at);

-- When the next turn of making partitions and of cleanup begins, and since when the clock has not
-- stepped. Only one session of the database has the turn at a time.
create table rowlock.maintenance (
  one_row            boolean primary key default true check (one_row),
  next_partitions_at timestamptz not null default '-infinity',
  next_cleanup_at    timestamptz not null default '-infinity',
  seen_at            timestamptz not null default now(),
  steady_since       timestamptz not null default '-infinity',
  -- A note for rowlock.keep_watermarks: the next k, a transaction id that was drawn after it, and
  -- when.
  noted_k            bigint not null default 0,
  noted_xid          bigint not null default 0,
  noted_at           timestamptz not null default '-infinity'
);
insert into rowlock.maintenance default values;
