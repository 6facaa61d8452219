//! Locks of a login that may only connect do not stop a queue.

use std::time::Duration;

use rowlock_queue::{Db, ExclusiveOperation, LockHolder, Maintainer, Outcome, lock_holders};
use rowlock_tests::{TestDb, TestInstance, declaration};
use rowlock_worker::{Shutdown, Worker};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// Every advisory lock whose key can be guessed: the project's key numbers with any second key, and instance
/// ids.
const SQUAT: &str = "select count(pg_advisory_lock(key, n)) from generate_series(1902600, 1902610) key, \
    generate_series(0, 200) n;
  select count(pg_advisory_lock(n)) from generate_series(0, 2000) n";

/// Locks of Rowlock's own tables need a permission.
async fn assert_locks_are_refused(session: &mut PgConnection) {
    for refused in [
        "select rowlock.try_mutex(1, 0)",
        "select from rowlock.mutex for update",
        "lock table rowlock.mutex in access share mode",
        "select from rowlock.instance for update",
        "lock table rowlock.migration in access share mode",
    ] {
        session.execute("savepoint a").await.unwrap();
        let message = session.execute(refused).await.expect_err(refused).to_string();
        assert!(message.contains("permission denied"), "{refused}: {message}");
        session.execute("rollback to a").await.unwrap();
    }
}

#[tokio::test]
async fn a_queue_works_while_an_unprivileged_login_holds_every_lock_it_can() {
    let test = TestDb::new().await;
    let mut living = test.instance("living").await;
    let login = test.login("unprivileged", "").await;
    let mut session = PgConnection::connect(&login.url).await.unwrap();
    session.execute("begin").await.unwrap();
    session.execute(SQUAT).await.unwrap();
    let own = format!(
        "select pg_advisory_lock(1902602, ({} & 2147483647)::int), pg_advisory_lock({0})",
        living.id()
    );
    session.execute(AssertSqlSafe(own)).await.unwrap();
    assert_locks_are_refused(&mut session).await;

    test.db.migrate().await.unwrap();
    rowlock_queue::declare(&test.db, &declaration("other")).await.unwrap();
    test.enqueue_many(3).await;
    test.enqueue_due().await;
    let mut instance = test.instance("a").await;
    // The first heartbeat allocates the slots and returns them.
    let granted = instance.heartbeat(0, 5).await;
    assert_eq!((granted.slots, granted.allocation_missed), (5, Some(false)));
    assert!(!living.heartbeat(0, 5).await.gone);
    let report = Maintainer::of_instance(instance.id(), instance.joined.queue)
        .run_once(&test.db, None, Some(&instance.watermarks))
        .await
        .unwrap();
    assert_eq!(report.due_moved, 1);
    // Null while the pass above makes partitions in the background.
    while test.one::<Option<f64>>("select rowlock.extend_partitions('4 days')").await.is_none() {}
    rowlock_queue::maintain_partitions(&test.db).await.unwrap();
    let made = rowlock_queue::partition_stats(&test.db).await.unwrap();
    assert!(4.0 * 86400.0 <= made.left_seconds, "partitions are made");
    let claimed = instance.claim(10).await;
    assert_eq!(claimed.tasks.len(), 4);
    let again =
        rowlock_queue::claim_again(&test.db, instance.id(), 10, &instance.watermarks, claimed.token.unwrap())
            .await;
    let ids = |tasks: &[rowlock_queue::Claim]| tasks.iter().map(|task| task.id).collect::<Vec<_>>();
    assert_eq!(ids(&again.unwrap().tasks), ids(&claimed.tasks));
    instance.settle(&claimed, &Outcome::Complete { result: None }).await;
    assert_eq!(test.audited().await, (4, 0, 0, 0));
    let swept: Option<i32> = test
        .one(
            "select rowlock.move_missed(1, array_fill(0::bigint, array[16]), array_fill(0::bigint, \
            array[16]), 1)",
        )
        .await;
    assert_eq!(swept, Some(0));
    living.claim(1).await;
    test.silence(living.id()).await;
    let rescue =
        "select rowlock.rescue(instance, heartbeat) from rowlock.newest_heartbeats() where instance = $1";
    let rescued: Option<i32> =
        sqlx::query_scalar(rescue).bind(living.id().0).fetch_one(&test.pool).await.unwrap();
    assert!(rescued.is_some());
    rowlock_queue::leave(&test.db, instance.id()).await.unwrap();
}

/// The session that holds the lock.
async fn holder(db: &Db, operation: ExclusiveOperation) -> Option<LockHolder> {
    lock_holders(db).await.unwrap().into_iter().find(|holder| holder.operation == operation)
}

#[tokio::test]
async fn the_session_that_holds_a_lock_is_named() {
    let test = TestDb::new().await;
    let machine = test.login("machine", "'worker'").await;
    let db = Db::connect(&machine).await.unwrap();
    let instance = TestInstance::join(&db, "a").await;
    assert_eq!(lock_holders(&db).await.unwrap(), []);
    let mut forgotten = test.session().await;
    forgotten
        .execute("set application_name = 'a terminal'; begin; select rowlock.extend_partitions()")
        .await
        .unwrap();
    let named = holder(&db, ExclusiveOperation::Partitions).await.expect("a session holds the lock");
    assert!(named.who.contains("process ") && named.who.contains("a terminal"), "{named:?}");
    assert!(named.who.contains("user ") && named.remedy.contains("pg_terminate_backend("), "{named:?}");
    assert_eq!(lock_holders(&db).await.unwrap().len(), 1);
    assert_eq!(
        rowlock_queue::extend_partitions(&db).await.unwrap(),
        None,
        "the operation is skipped in the meantime"
    );
    let mut granting = test.session().await;
    let heartbeat =
        format!("begin; select rowlock.allocate(queue) from rowlock.instance where id = {}", instance.id());
    granting.execute(AssertSqlSafe(heartbeat)).await.unwrap();
    assert_eq!(instance.heartbeat(0, 5).await.allocation_missed, Some(true));
    assert_eq!(holder(&db, ExclusiveOperation::Allocate).await.unwrap().queue, instance.joined.queue);
    forgotten.execute("rollback; begin; select rowlock.begin_maintenance(true)").await.unwrap();
    assert!(
        holder(&db, ExclusiveOperation::Turn).await.is_some()
            && holder(&db, ExclusiveOperation::Partitions).await.is_none()
    );
}

/// Before the fix, a lock that was taken in a savepoint had no holder once the savepoint was released, as
/// after each block of plpgsql that handles exceptions.
#[tokio::test]
async fn a_session_that_took_a_lock_in_a_released_savepoint_is_named() {
    let test = TestDb::new().await;
    assert_eq!(lock_holders(&test.db).await.unwrap(), []);
    let mut forgotten = test.session().await;
    for sql in [
        "set application_name = 'a terminal'",
        "begin",
        "savepoint a; savepoint b; select rowlock.extend_partitions()",
        "release a",
    ] {
        forgotten.execute(sql).await.unwrap();
    }
    let named = holder(&test.db, ExclusiveOperation::Partitions).await.expect("somebody holds it");
    assert!(named.who.contains("process ") && named.who.contains("a terminal"), "{named:?}");
    // The ids of transactions that ended stay in the rows, and name nobody.
    test.run("select rowlock.try_mutex(2, 0)").await;
    assert_eq!(lock_holders(&test.db).await.unwrap().len(), 1);
    forgotten.execute(AssertSqlSafe(format!("prepare transaction '{}'", test.name))).await.unwrap();
    let named = holder(&test.db, ExclusiveOperation::Partitions).await.expect("it still holds it");
    assert!(named.who.contains(&format!("prepared transaction \"{}\"", test.name)), "{named:?}");
    forgotten.execute(AssertSqlSafe(format!("rollback prepared '{}'", test.name))).await.unwrap();
    assert_eq!(lock_holders(&test.db).await.unwrap(), []);
    // Back to a savepoint, which frees the lock.
    for sql in ["begin; savepoint a", "select rowlock.extend_partitions()", "rollback to a"] {
        forgotten.execute(sql).await.unwrap();
    }
    assert_eq!(lock_holders(&test.db).await.unwrap(), []);
}

/// Before the fix, each notification caused a claim by an idle instance: 700 per second.
#[tokio::test]
async fn many_notifications_cause_few_claims() {
    let test = TestDb::new().await;
    test.run(format!("alter database {} set track_functions = 'all'", test.name)).await;
    let login = test.login("unprivileged", "").await;
    let stop = Shutdown::new();
    let connect = rowlock_queue::Connect { max_connections: 2, ..test.connect() };
    let worker = Worker::builder(connect, "mail").slots(4).handler("send", async |_| Ok(()));
    let instance = tokio::spawn(worker.build().unwrap().run(stop.clone()));
    let id = test.enqueue().await;
    while test.state(id).await.as_deref() != Some("completed") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let calls = "select coalesce(sum(calls), 0)::bigint from pg_stat_user_functions \
        where schemaname = 'rowlock' and funcname = 'claim'";
    let before: i64 = test.one(calls).await;
    let mut session = PgConnection::connect(&login.url).await.unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < end {
        session.execute("notify rowlock, '1'").await.unwrap();
    }
    // A session reports its statistics when idle, once a second.
    let id = test.enqueue().await;
    while test.state(id).await.as_deref() != Some("completed") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let claims = test.one::<i64>(calls).await - before;
    assert!(claims < 300, "{claims} claims in three seconds");
    stop.drain();
    instance.await.unwrap().unwrap();
}
