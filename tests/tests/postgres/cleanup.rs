//! Maintenance apart from moving and rescuing tasks.

use std::time::Duration;

use rowlock_queue::{Cancelled, Maintainer, Outcome, Settled, TaskState, cancel, retry};
use rowlock_tests::TestDb;
use sqlx::{Executor, Row};

#[tokio::test]
async fn a_cancel_request_for_a_task_that_completes_first_is_removed() {
    let test = TestDb::new().await;
    let id = test.enqueue().await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    cancel(&test.db, id).await.unwrap();
    instance.settle(&claimed, &Outcome::Complete { result: None }).await;
    let left =
        sqlx::query("select count(*) from rowlock.cancel_request").fetch_one(&test.pool).await.unwrap();
    assert_eq!(left.get::<i64, _>(0), 0);
    let details = rowlock_queue::describe_task(&test.db, id).await.unwrap().unwrap();
    assert_eq!(details.state, TaskState::Completed, "it completed before the cancel request was seen");
}

#[tokio::test]
async fn maintenance_reports_until_when_partitions_exist() {
    let test = TestDb::new().await;
    let report = Maintainer::new().run_once(&test.db, None, None).await.unwrap();
    let partitions = report.partitions.unwrap();
    assert!(partitions.left_seconds >= 71.0 * 3600.0, "{partitions:?}");
}

#[tokio::test]
async fn a_cancel_request_for_the_last_attempt_does_not_cancel_the_retried_task() {
    let test = TestDb::new().await;
    let id = test.enqueue().await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    let mut session = test.session().await;
    session.execute(sqlx::AssertSqlSafe(format!("begin; select rowlock.cancel({id})"))).await.unwrap();
    instance.settle(&claimed, &Outcome::Dead { error: "no".into() }).await;
    session.execute("commit").await.unwrap();
    assert_eq!(retry(&test.db, &[id]).await.unwrap(), 1);
    let claimed = instance.claim(1).await;
    assert!(instance.heartbeat(1, 1).await.cancelled.is_empty());
    let released = instance.settle(&claimed, &Outcome::Release).await;
    assert_eq!(released, [Settled::Done], "not cancelled");
}

#[tokio::test]
async fn a_cancel_request_during_a_retry_still_cancels() {
    let test = TestDb::new().await;
    let id = test.enqueue().await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    // Delays the settlement after it has first read the cancel requests.
    let mut holds = test.session().await;
    holds.execute("begin; select 1 from rowlock.lease for update").await.unwrap();
    let retry = Outcome::Retry { delay: Duration::ZERO, error: "no".into() };
    let (settled, ()) = tokio::join!(instance.settle(&claimed, &retry), async {
        test.until_lock_wait().await;
        assert_eq!(cancel(&test.db, id).await.unwrap(), Cancelled::Requested);
        holds.execute("commit").await.unwrap();
    });
    assert_eq!(settled.len(), 1);
    Maintainer::new().run_once(&test.db, None, None).await.unwrap();
    let details = rowlock_queue::describe_task(&test.db, id).await.unwrap().unwrap();
    assert_eq!(details.state, TaskState::Cancelled);
}

/// Ages the database, as if no maintenance had run for two months.
const ASLEEP: &str = "do $$
declare r record; long interval := '60 days'; hi timestamptz := date_trunc('hour', now()) - long; child text;
begin
  for r in select c.relname part, b.relname parent from pg_inherits i join pg_class c on c.oid = i.inhrelid \
  join pg_class b on b.oid = i.inhparent
      where c.relnamespace = 'rowlock'::regnamespace and c.relkind = 'r' loop
    execute format('drop table rowlock.%I', r.part);
    child := format('%s_%s', r.parent, extract(epoch from hi)::bigint);
    continue when to_regclass('rowlock.' || child) is not null;
    execute format('create table rowlock.%I (like rowlock.%I including defaults including constraints)', \
    child, r.parent);
    execute case r.parent when 'task' then
      format('alter table rowlock.task attach partition rowlock.%I for values \
      from (%s) to (%s)', child, rowlock.id_at(hi - long), rowlock.id_at(hi))
      else format('alter table rowlock.%I attach partition rowlock.%I for values \
      from (%L) to (%L)', r.parent, child, hi - long, hi) end;
  end loop;
end $$";

#[tokio::test]
async fn a_database_unused_for_months_is_ready_after_one_pass() {
    let test = TestDb::new().await;
    test.run(ASLEEP).await;
    assert!(sqlx::query("select rowlock.enqueue('mail', 'send', '{}')").execute(&test.pool).await.is_err());
    let hours = rowlock_queue::extend_partitions(&test.db).await.unwrap().unwrap();
    assert!(hours >= 72.0, "{hours}");
    let tables: i64 = test
        .one(
            "select count(*) from pg_inherits i join pg_class c on c.oid = i.inhrelid \
        where i.inhparent = 'rowlock.task'::regclass",
        )
        .await;
    assert!(tables < 30, "{tables} partitions");
    test.enqueue().await;
}

#[tokio::test]
async fn deleting_a_queue_row_by_hand_loses_no_running_task() {
    let test = TestDb::new().await;
    let ids = test.enqueue_many(3).await;
    let mut instance = test.instance("a").await;
    instance.claim(2).await;
    test.run("delete from rowlock.queue").await;
    test.silence(instance.id()).await;
    test.run(format!(
        "select rowlock.rescue({0}, heartbeat) from rowlock.newest_heartbeats() where instance = {0}",
        instance.id()
    ))
    .await;
    for id in ids {
        assert_eq!(test.state(id).await.as_deref(), Some("available"));
    }
}

#[tokio::test]
async fn an_instance_can_join_after_all_partitions_have_ended() {
    let test = TestDb::new().await;
    test.run(
        "do $$ declare p regclass; begin
           for p in select inhrelid::regclass from pg_inherits \
           where inhparent = 'rowlock.heartbeat'::regclass loop
             execute format('alter table rowlock.heartbeat detach partition %s', p);
             execute format('drop table %s', p);
           end loop;
         end $$",
    )
    .await;
    test.instance("a").await.heartbeat(0, 1).await;
}

#[tokio::test]
async fn without_available_tasks_the_waiting_time_is_zero() {
    let test = TestDb::new().await;
    let stats = rowlock_queue::queue_stats(&test.db).await.unwrap();
    assert_eq!((stats[0].available, stats[0].oldest_available_seconds), (0, None));
}

/// Makes the available tasks two hours older.
const OLDER: &str = "update rowlock.task set id = id - (7200::bigint << 31);
  update rowlock.ready set id = id - (7200::bigint << 31), since = since - 7200";

#[tokio::test]
async fn waiting_time_counts_from_when_a_task_became_available() {
    let test = TestDb::new().await;
    let waited = async || {
        let stats = rowlock_queue::queue_stats(&test.db).await.unwrap();
        stats[0].oldest_available_seconds.expect("a task is available")
    };
    test.enqueue().await;
    test.run(OLDER).await;
    assert!((7200.0..7300.0).contains(&waited().await));
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    let again = Outcome::Retry { delay: Duration::ZERO, error: "no".into() };
    instance.settle(&claimed, &again).await;
    while Maintainer::new().run_once(&test.db, None, None).await.unwrap().due_moved == 0 {}
    assert!(waited().await < 100.0);
}
