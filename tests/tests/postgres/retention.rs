//! Old partitions are dropped while producers are active, and no unfinished task is lost (R8).

use std::time::{Duration, Instant};

use rowlock_queue::{EnqueueOptions, Outcome, TaskState, declare, maintain_partitions};
use rowlock_tests::{TestDb, declaration};
use sqlx::{Executor, Row};

/// Makes every task three days older, in a partition of that time just before the oldest one.
const AGE: &str = "do $$
declare lo bigint; child text; back bigint := (3 * 86400)::bigint << 31;
begin
  select min((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''?(\\d+)'))[1]::bigint) into strict \
  lo
    from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'rowlock.task'::regclass;
  child := 'task_' || extract(epoch from rowlock.id_time(lo))::bigint;
  execute format('create table rowlock.%I (like rowlock.task including defaults including constraints)', \
  child);
  execute format('alter table rowlock.task attach partition rowlock.%I for values from (%s) to (%s)', child,
    lo - 2 * back, lo);
  update rowlock.task set id = id - back;
  update rowlock.ready set id = id - back;
  update rowlock.delayed set id = id - back;
  update rowlock.dead set id = id - back;
  update rowlock.task_error set id = id - back;
  update rowlock.receipt set firsts = array(select f - back from unnest(firsts) f);
end $$";

/// The oldest partition of `task`.
const OLDEST: &str = "select min(c.relname::text) from pg_inherits i join pg_class c on c.oid = i.inhrelid
  where i.inhparent = 'rowlock.task'::regclass";

/// The longest that a producer waits for retention. (Other tests may delay it, too.)
const PROMISED: Duration = Duration::from_millis(100);

/// One producer after the other, for about half a second.
async fn slowest_of_many(test: &TestDb) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let asked = Instant::now();
        test.enqueue().await;
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    slowest
}

#[tokio::test]
async fn retention_keeps_unfinished_tasks_and_blocks_no_producer() {
    let test = TestDb::new().await;
    let keep = Duration::from_secs(1);
    let brief =
        rowlock_queue::Declaration { keep_completed: keep, keep_cancelled: keep, ..declaration("mail") };
    declare(&test.db, &brief).await.unwrap();
    test.enqueue_many(2).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    instance.settle(&claimed, &Outcome::Complete { result: None }).await;
    let claimed = instance.claim(1).await;
    instance.settle(&claimed, &Outcome::Dead { error: "no".into() }).await;
    let later = Some(Duration::from_hours(1));
    test.enqueue_with(&EnqueueOptions { delay: later, ..Default::default() }).await;
    test.enqueue().await;
    test.run(AGE).await;
    // It finished longer ago than the retention time.
    test.run("update rowlock.receipt set at = at - interval '1 minute'").await;
    let old = test.one::<String>(OLDEST).await;

    let quiet = slowest_of_many(&test).await;
    let mut producer = test.session().await;
    producer.execute("begin; select rowlock.enqueue('mail', 'send', '{}')").await.unwrap();
    let maintenance = {
        let db = test.db.clone();
        tokio::spawn(async move { maintain_partitions(&db).await })
    };
    let slowest = slowest_of_many(&test).await;
    let there = format!("select to_regclass('rowlock.{old}') is not null");
    assert!(test.one::<bool>(&there).await, "the partition is detached only after the open producer ends");
    producer.execute("commit").await.unwrap();
    // It waits for a second; after that the next pass finishes it.
    if maintenance.await.unwrap().unwrap() == 0 {
        assert_eq!(maintain_partitions(&test.db).await.unwrap(), 1);
    }
    eprintln!("producers waited up to {slowest:?} during retention, {quiet:?} without");
    assert!(slowest < PROMISED + 2 * quiet, "a producer waited {slowest:?}, and {quiet:?} without retention");

    assert!(test.one::<String>(OLDEST).await > old, "{old} is gone");
    assert!(test.one::<bool>(&format!("select to_regclass('rowlock.{old}') is null")).await);
    assert_eq!(
        test.one::<i64>("select count(*) from rowlock.task_kept").await,
        3,
        "available, scheduled, dead"
    );
    assert_eq!(test.audited().await, (0, 1, 0, 43));
    let claimed = instance.claim(100).await;
    let ids: Vec<_> = claimed.tasks.iter().map(|task| task.id).collect();
    let payloads = rowlock_queue::fetch(&test.db, claimed.token.unwrap(), &ids).await.unwrap();
    assert_eq!(payloads.len(), 42, "the old task has its payload, too");
}

#[tokio::test]
async fn a_payload_is_found_while_retention_moves_it() {
    let test = TestDb::new().await;
    let keep = Duration::from_secs(1);
    let brief =
        rowlock_queue::Declaration { keep_completed: keep, keep_cancelled: keep, ..declaration("mail") };
    declare(&test.db, &brief).await.unwrap();
    test.enqueue().await;
    test.run(AGE).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    let (ids, token) = ([claimed.tasks[0].id], claimed.token.unwrap());
    test.run("select rowlock.empty_task_partition()").await;
    let mut cleaner = test.session().await;
    cleaner.execute("begin; select rowlock.empty_task_partition()").await.unwrap();
    let fetch = {
        let db = test.db.clone();
        tokio::spawn(async move { rowlock_queue::fetch(&db, token, &ids).await })
    };
    test.until_lock_wait().await;
    cleaner.execute("commit").await.unwrap();
    assert_eq!(fetch.await.unwrap().unwrap().len(), 1, "a task without a payload would be settled as dead");
}

/// Two past partitions of heartbeats; the detach of the newer one was interrupted.
const GIVEN_UP: &str = "do $$
declare hi timestamptz; child text;
begin
  for i in 1 .. 2 loop
    hi := date_trunc('hour', now()) - interval '3 days' + i * interval '6 hours';
    child := 'heartbeat_' || extract(epoch from hi)::bigint;
    execute format('create table rowlock.%I (like rowlock.heartbeat including defaults)', child);
    execute format('alter table rowlock.heartbeat attach partition rowlock.%I for values \
    from (%L) to (%L)', child, hi - interval '6 hours', hi);
  end loop;
end $$";

#[tokio::test]
async fn an_interrupted_detach_is_finished_before_the_next() {
    let test = TestDb::new().await;
    test.run(GIVEN_UP).await;
    let emptied: Vec<String> = test.one("select rowlock.empty_other_partitions()").await;
    assert_eq!(emptied.len(), 2);
    let mut producer = test.session().await;
    producer
        .execute(
            "begin; insert into rowlock.heartbeat (n, instance, queue, held, allocated, allocation, \
        wants) values (0, 0, 0, 0, 0, 0, 0)",
        )
        .await
        .unwrap();
    let mut cleaner = test.session().await;
    cleaner.execute("set statement_timeout = '200ms'").await.unwrap();
    let newer = emptied[1].split(' ').next_back().unwrap();
    let detach = format!("alter table rowlock.heartbeat detach partition rowlock.{newer} concurrently");
    assert!(cleaner.execute(sqlx::AssertSqlSafe(detach)).await.is_err(), "the producer is open");
    producer.execute("commit").await.unwrap();
    assert_eq!(maintain_partitions(&test.db).await.unwrap(), 2);
}

#[tokio::test]
async fn a_transaction_open_for_days_blocks_only_its_own_partition() {
    let test = TestDb::new().await;
    test.run(GIVEN_UP).await;
    let brief = rowlock_queue::Declaration {
        keep_completed: Duration::from_secs(1),
        keep_cancelled: Duration::from_secs(1),
        ..declaration("mail")
    };
    declare(&test.db, &brief).await.unwrap();
    test.enqueue().await;
    test.run(AGE).await;
    let (old, heartbeats) = (
        test.one::<String>(OLDEST).await,
        "select count(*) from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'rowlock.heartbeat'::regclass and c.relname < 'heartbeat_' || extract(epoch \
      from now() - interval '1 day')::bigint",
    );
    let mut open = test.session().await;
    let read = "select min(c.relname::text) from pg_inherits i join pg_class c on c.oid = i.inhrelid \
        where i.inhparent = 'rowlock.heartbeat'::regclass";
    let busy = test.one::<String>(read).await;
    let holds = format!(
        "begin; lock table only rowlock.{old} in row exclusive mode; lock table only rowlock.{busy} in \
            access share mode"
    );
    open.execute(sqlx::AssertSqlSafe(holds)).await.unwrap();
    assert_eq!(test.one::<i64>(heartbeats).await, 2);
    assert_eq!(maintain_partitions(&test.db).await.unwrap(), 1);
    assert_eq!(
        test.one::<i64>(heartbeats).await,
        1,
        "one of them is in use, and so is the partition of tasks"
    );
    open.execute("commit").await.unwrap();
    assert_eq!(maintain_partitions(&test.db).await.unwrap(), 2);
}

#[tokio::test]
async fn a_detached_partition_that_was_not_dropped_is_dropped_later() {
    let test = TestDb::new().await;
    test.run(GIVEN_UP).await;
    let emptied: Vec<String> = test.one("select rowlock.empty_other_partitions()").await;
    let left = emptied[0].split(' ').next_back().unwrap();
    test.run(format!("alter table rowlock.heartbeat detach partition rowlock.{left}")).await;
    test.run("create table rowlock.heartbeat_1 (mine int); insert into rowlock.heartbeat_1 values (1)").await;
    maintain_partitions(&test.db).await.unwrap();
    assert!(test.one::<bool>(&format!("select to_regclass('rowlock.{left}') is null")).await);
    assert!(
        test.one::<bool>("select to_regclass('rowlock.heartbeat_1') is not null").await,
        "it is not empty"
    );
}

/// Kept tasks, ten of which finished two days ago. Before, each pass searched for those among all kept tasks.
const MANY_KEPT: &str = "insert into rowlock.task_kept (id, queue, priority, type, payload, finished_at)
    select i * 256, q.id, 1, 't', '{}', case when i > 19990 then now() - interval '2 days' end from \
    generate_series(1, 20000) i, rowlock.queue q;
  analyze rowlock.task_kept";

#[tokio::test]
async fn finished_kept_tasks_are_deleted_by_index() {
    let test = TestDb::new().await;
    test.run(MANY_KEPT).await;
    let mut session = test.session().await;
    // The first run of a session reads much of the catalog.
    session.execute("select rowlock.delete_expired_tasks(5)").await.unwrap();
    let delete = "explain (analyze, buffers, format json) select rowlock.delete_expired_tasks(1000)";
    let plan: serde_json::Value = session.fetch_one(delete).await.unwrap().get(0);
    let pages = plan[0]["Plan"]["Shared Hit Blocks"].as_i64().unwrap();
    assert_eq!(test.one::<i64>("select count(*) from rowlock.task_kept").await, 19990);
    assert!(pages < 300, "{pages} pages");
}

/// Dead tasks in an expired partition of three days ago.
const DEAD: &str = "insert into rowlock.task (id, queue, priority, type, payload)
    select rowlock.id_at(now()) + g * 256, q.id, 1, 't', '{}' from \
    generate_series(1, 200000) g, rowlock.queue q;
  insert into rowlock.dead (id, queue, priority, attempt) select t.id, t.queue, 1, 1 from rowlock.task t";

async fn brief(test: &TestDb) {
    let keep = Duration::from_secs(1);
    let brief =
        rowlock_queue::Declaration { keep_completed: keep, keep_cancelled: keep, ..declaration("mail") };
    declare(&test.db, &brief).await.unwrap();
}

/// Refuses a statement that copies more tasks than a batch.
const ONE_BATCH_AT_A_TIME: &str = "create function one_batch() returns trigger language plpgsql as $$
    begin
      if (select count(*) from copied) > 5000 then raise exception 'more than a batch'; end if;
      return null;
    end $$;
  create trigger one_batch after insert on rowlock.task_kept referencing new table as copied
    for each statement execute function one_batch()";

#[tokio::test]
async fn many_dead_tasks_are_copied_in_batches() {
    let test = TestDb::new().await;
    brief(&test).await;
    test.run(DEAD).await;
    test.run(AGE).await;
    // Before the fix, one statement copied them all, timed out, and was tried again once a minute for ever.
    test.run(ONE_BATCH_AT_A_TIME).await;
    assert_eq!(maintain_partitions(&test.db).await.unwrap(), 1);
    assert_eq!(test.one::<i64>("select count(*) from rowlock.task_kept").await, 200_000);
    assert_eq!(test.one::<i64>("select count(*) from rowlock.task").await, 0);
}

#[tokio::test]
async fn during_a_dump_no_copied_task_is_lost() {
    let test = TestDb::new().await;
    brief(&test).await;
    test.enqueue_many(10).await;
    test.run(AGE).await;
    let old = test.one::<String>(OLDEST).await;
    let mut dump = test.session().await;
    dump.execute(sqlx::AssertSqlSafe(format!("begin; lock table rowlock.{old} in access share mode")))
        .await
        .unwrap();
    assert_eq!(maintain_partitions(&test.db).await.unwrap(), 0, "it is no error");
    let kept = "select string_agg(id || ' ' || xmin, ',' order by id) from rowlock.task_kept";
    let before = test.one::<String>(kept).await;
    assert_eq!(test.audited().await, (0, 0, 0, 10), "each of them counts once");
    maintain_partitions(&test.db).await.unwrap();
    dump.execute("commit").await.unwrap();
    assert_eq!(maintain_partitions(&test.db).await.unwrap(), 1);
    assert_eq!(test.one::<String>(kept).await, before, "the same rows");
}

#[tokio::test]
async fn retention_counts_from_when_a_task_finished() {
    let test = TestDb::new().await;
    let ids = test.enqueue_many(2).await;
    test.run(AGE).await;
    let aged = |id: rowlock_queue::TaskId| rowlock_queue::TaskId(id.0 - ((3 * 86400) << 31));
    let mut instance = test.instance("a").await;
    let done = Outcome::Complete { result: Some("42".into()) };
    // One finishes before its partition is dropped, the other after.
    let claimed = instance.claim(1).await;
    instance.settle(&claimed, &done).await;
    assert_eq!(maintain_partitions(&test.db).await.unwrap(), 1);
    let claimed = instance.claim(1).await;
    instance.settle(&claimed, &done).await;
    // Before the fix, both were gone within a minute.
    maintain_partitions(&test.db).await.unwrap();
    for id in &ids {
        let details = rowlock_queue::describe_task(&test.db, aged(*id)).await.unwrap().unwrap();
        assert_eq!((details.state, details.result.as_deref()), (TaskState::Completed, Some("42")));
    }
    test.run("update rowlock.task_kept set finished_at = finished_at - interval '25 hours'").await;
    maintain_partitions(&test.db).await.unwrap();
    assert_eq!(test.state(aged(ids[0])).await, None);
}

#[tokio::test]
async fn retention_during_the_last_attempt_adds_no_attempt() {
    let test = TestDb::new().await;
    brief(&test).await;
    test.enqueue_with(&EnqueueOptions { max_attempts: Some(1), ..Default::default() }).await;
    test.run(AGE).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    test.run("select rowlock.empty_task_partition()").await;
    let mut cleaner = test.session().await;
    cleaner.execute("begin; select rowlock.empty_task_partition()").await.unwrap();
    let retry = Outcome::Retry { delay: Duration::ZERO, error: "no".into() };
    let (settled, ()) = tokio::join!(instance.settle(&claimed, &retry), async {
        test.until_lock_wait().await;
        cleaner.execute("commit").await.unwrap();
    });
    // Before the fix, it found the task in neither table and used the queue's six attempts as the limit.
    assert_eq!(settled, [rowlock_queue::Settled::Dead]);
}

/// Before the fix, no partition of tasks was dropped any more.
#[tokio::test]
async fn a_task_that_cannot_be_copied_blocks_only_its_own_partition() {
    let test = TestDb::new().await;
    let ids = test.enqueue_many(3).await;
    test.run(AGE).await;
    test.enqueue().await;
    // The first three are in the second oldest partition now, and the other one in the third.
    test.run(AGE).await;
    test.run(AGE).await;
    let bad = ids[1].0 - ((9 * 86_400_i64) << 31);
    test.run(format!(
        "create function public.refuse() returns trigger language plpgsql as $$ begin
           if new.id = {bad} then raise 'this row is bad'; end if; return new; end $$;
         create trigger refuse before insert on rowlock.task_kept for each row \
         execute function public.refuse()"
    ))
    .await;
    assert_eq!(maintain_partitions(&test.db).await.unwrap(), 1, "the oldest one is empty");
    let old = test.one::<String>(OLDEST).await;
    let error = maintain_partitions(&test.db).await.unwrap_err().to_string();
    let expected =
        format!("the partition {old} cannot be dropped: task {bad} cannot be copied: this row is bad");
    assert_eq!(error, expected);
    let partitions = "select count(*) from rowlock.partitions_of('task') where hi < now() - interval '1 day'";
    assert_eq!(test.one::<i64>(partitions).await, 1, "only {old} is left");
    assert_eq!(test.one::<i64>("select count(*) from rowlock.task_kept").await, 1, "of the other one");
    test.run("drop trigger refuse on rowlock.task_kept").await;
    assert_eq!(maintain_partitions(&test.db).await.unwrap(), 1);
    assert_eq!(test.one::<i64>("select count(*) from rowlock.task_kept").await, 4);
}
