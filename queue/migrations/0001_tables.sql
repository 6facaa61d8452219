-- The tables. Nothing here is updated at a steady pace, and no dead row is left per task: see ARCHITECTURE.md.

create sequence rowlock.chunk_seq;       -- the middle part of a task's id
create sequence rowlock.k_seq;           -- the order in which tasks are claimed: it only grows
create sequence rowlock.heartbeat_seq;        -- heartbeats are ordered by this, never by a clock
create sequence rowlock.allocation_seq;
create sequence rowlock.instance_seq;

-- What a TaskQueue declares. Instances read it with their heartbeat, so a change of policy needs no rollout.
create table rowlock.queue (
  id            int generated always as identity primary key,
  name          text not null unique check (name ~ '^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$'),
  owner         text not null default '',
  generation    bigint not null default 0,
  policy        json not null,
  max_attempts  smallint not null check (max_attempts between 1 and 1000),
  total_workers int not null check (total_workers between 0 and 10000),
  paused        boolean not null default false,
  backlog_limit bigint not null check (backlog_limit > 0),
  payload_limit int not null check (payload_limit > 0),
  backlog_full  boolean not null default false,   -- set and cleared by a maintainer, so that enqueue counts nothing
  later_full    boolean not null default false,   -- the same for what is due in more than a day
  restricted       boolean not null default false,   -- some role has rights for some queues only: verbs ask who calls
  partitions_until    int not null default 0,           -- until when partitions exist, in seconds since 2024
  notify_until    timestamptz not null default '-infinity',   -- producers send NOTIFY until then; renewed about once a minute while instances sleep (R12)
  range_size    smallint not null default 128 check (range_size between 1 and 256),
  keep_completed interval not null, keep_dead interval not null, keep_cancelled interval not null,
  max_delay     interval not null default interval '365 days',   -- no task is due later than so long from its enqueueing
  -- Where claims may start, for a queue without instances, which publish it themselves; and of when that is: see
  -- rowlock.keep_watermarks.
  watermarks          bigint[],
  lows_at       timestamptz not null default '-infinity'
);

-- Who else than the owner may do what: see 0008_roles.sql.
create table rowlock.access (
  role  name not null,
  permission  text not null check (permission in ('producer', 'worker', 'reader')),
  queue int not null,                             -- 0: every queue
  primary key (role, permission, queue)
);

-- Neither `task` nor `ready` nor `delayed` has a CHECK: Postgres would parse each anew for every statement, 15 µs of an enqueue's 54.
-- enqueue checks what comes from outside.

-- id = seconds since 2024-01-01 (32 bit) << 31 | (chunk number mod 2^23) << 8 | place in the chunk (0..255)
create table rowlock.task (
  id           bigint not null primary key,
  queue        int not null,
  k_low        int,                  -- of the k that its range was enqueued with: see rowlock.find_ready; null: it was not due
  priority     smallint not null,    -- 0 to 3
  max_attempts smallint,             -- 1 to 1000; null: the queue's
  type         text not null,        -- 1 to 200 characters
  payload      json not null
) partition by range (id);

-- The few tasks of partitions that went which are unfinished, dead, or finished too lately to be forgotten. `finished_at` is when they were
-- completed or cancelled. A task is in both tables until its partition is emptied.
create table rowlock.task_kept (like rowlock.task, finished_at timestamptz, primary key (id));
create index task_kept_finished on rowlock.task_kept (queue, finished_at) where finished_at is not null;

-- What may be claimed: the tasks [id, id + n). `fresh` says that no task of the range has moved since it was enqueued.
create table rowlock.ready (
  queue    int not null,
  shard    smallint not null,
  lane     smallint not null default 0,
  priority smallint not null,
  -- Since when, in seconds since 2024, for people and the number of workers. It lies in what alignment leaves empty.
  since    int not null default (date_part('epoch', now()) - 1704067200::float8)::int,
  k        bigint not null,
  id       bigint not null,
  n        smallint not null,        -- 1 to 256
  attempt  smallint not null,
  fresh    boolean not null,
  notify     boolean not null default true,    -- whether its commit sends a NOTIFY
  moved    int not null default 0,           -- chunk_of(id), where the range is not fresh
  primary key (queue, shard, lane, priority, k)
) with (fillfactor = 90, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 1000000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000);

-- What moved is found by its chunk; what did not, by the k that its task row tells: enqueue pays for no index. Not by its id: a claim of a part
-- changes that, and would leave an entry behind in every index each time.
create index ready_moved on rowlock.ready (moved) where moved <> 0;

-- Not due yet, or waiting for the next attempt. `due` is run_at, or the moment of a late commit (R13).
create table rowlock.delayed (
  id       bigint primary key,
  queue    int not null,
  priority smallint not null,
  attempt  smallint not null,
  waits    smallint not null default 0,     -- 0 scheduled, 1 retryable
  run_at   timestamptz not null,
  due      timestamptz not null
) with (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);
create index delayed_due on rowlock.delayed (due, id);
create index delayed_queue on rowlock.delayed (queue, waits, id);

-- One row per claim. The token is random: ids from a sequence rewind in a failover (R14).
create table rowlock.lease (
  token      bigint primary key,
  instance   bigint not null,
  queue      int not null,
  at         timestamptz not null default now(),
  firsts     bigint[] not null,
  ns         smallint[] not null,
  attempts   smallint[] not null,
  priorities smallint[] not null,
  settled    bigint[] not null default '{}',
  check (cardinality(firsts) > 0 and cardinality(firsts) = cardinality(ns) and cardinality(ns) = cardinality(attempts)
         and cardinality(attempts) = cardinality(priorities))
) with (fillfactor = 70, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_cost_delay = 0);

create index lease_instance on rowlock.lease (instance);

-- One row per settled batch. state: 1 completed, 2 dead and deleted, 3 cancelled. `firsts` ascends. The ids of a row span less than 2^33
-- (four seconds of enqueuing), except where a queue was deleted, so that the rows that may hold a task lie together in receipt_ids.
create table rowlock.receipt (
  at       timestamptz not null default now(),
  queue    int not null,
  instance bigint,
  state    smallint not null check (state in (1, 2, 3)),
  firsts   bigint[] not null,
  ns       smallint[] not null,
  attempts smallint[] not null
) partition by range (at);
create index receipt_at on rowlock.receipt (queue, state, at);
create index receipt_ids on rowlock.receipt (queue, (firsts[1]), (firsts[array_upper(firsts, 1)] + ns[array_upper(ns, 1)]), at);

create table rowlock.result (at timestamptz not null default now(), id bigint not null, value text not null) partition by range (at);
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
  n bigint generated always as identity primary key,
  at timestamptz not null, id bigint not null, attempt smallint not null, instance bigint, error text not null
);
create index task_error_kept_id on rowlock.task_error_kept (id);

-- Who does what only one may do at a time locks a row of this table. Advisory locks would do as well, but
-- every login that may connect can hold those. Never updated: a row that is only locked leaves nothing dead
-- behind.
create table rowlock.mutex (
  -- 0 NOTIFY, 1 partitions, 2 move due tasks, 3 limits, 4 retention of dead tasks, 5 allocate, 6 sweep
  operation  smallint not null,
  queue int not null,          -- 0: the whole database
  primary key (operation, queue)
);
insert into rowlock.mutex select operation, 0 from generate_series(0, 4) operation;

-- How often the handler has put a task off, and since when. The row goes when the task finishes.
create table rowlock.snooze (
  id       bigint primary key,
  times    int not null,
  first_at timestamptz not null,
  at       timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

create table rowlock.cancel_request (id bigint primary key, at timestamptz not null default now());

-- Written when an instance joins, drains, leaves or is declared gone; never by its heartbeat.
create table rowlock.instance (
  id        bigint primary key,
  queue     int not null,
  name      text not null,
  capacity  int not null check (capacity between 1 and 10000),
  joined_at timestamptz not null default now(),
  drains    boolean not null default false,
  ended_at  timestamptz,
  gone      boolean not null default false        -- ended by a rescue, not by itself
);
create index instance_live on rowlock.instance (queue, id) where ended_at is null;

-- What an instance holds, wants and acknowledges. Appended: a row updated once a second is a trap under a pinned xmin.
create table rowlock.heartbeat (
  n          bigint not null,
  at         timestamptz not null default now(),
  instance   bigint not null,
  queue      int not null,
  held       int not null,
  allocated  int not null,
  allocation bigint not null,
  wants      int not null,
  service_ms real,
  watermarks       bigint[]
) partition by range (at);
create index heartbeat_newest on rowlock.heartbeat (instance, n desc);

create table rowlock.allocation (
  number   bigint not null,
  at       timestamptz not null default now(),
  queue    int not null,
  instance bigint not null,
  slots  int not null check (slots >= 0)
) partition by range (at);
create index allocation_newest on rowlock.allocation (instance, number desc);

-- Who makes partitions and cleans takes a turn, one session of the database at a time; and since when the clock has made no step.
create table rowlock.maintenance (
  one_row            boolean primary key default true check (one_row),
  next_partitions_at timestamptz not null default '-infinity',
  next_cleanup_at    timestamptz not null default '-infinity',
  seen_at            timestamptz not null default now(),
  steady_since       timestamptz not null default '-infinity',
  -- A note for rowlock.keep_watermarks: the next k, a transaction id that was drawn after, and when.
  noted_k            bigint not null default 0,
  noted_xid          bigint not null default 0,
  noted_at           timestamptz not null default '-infinity'
);
insert into rowlock.maintenance default values;
