//! Partitions and retention of whole databases: which session runs them, whom they block, and clock steps.

use std::time::{Duration, Instant};

use rowlock_queue::{
    Connect, Db, Maintainer, Outcome, extend_partitions, heartbeat, maintain_partitions, partition_stats,
};
use rowlock_tests::{TestDb, TestInstance};
use sqlx::{Connection, Executor, PgConnection, Row};

/// What remains after the clock was ahead by this much during a cleanup: partitions before that time are
/// gone, later ones exist.
fn gone_until(ahead: &str) -> String {
    format!(
        "do $$ declare p record; begin
           for p in select t, x.part from unnest(array['task', 'receipt', 'result', 'task_error', \
           'heartbeat', 'allocation']) t, rowlock.partitions_of(t) x
               where x.hi < now() + interval '{ahead}' loop
             execute format('alter table rowlock.%I detach partition rowlock.%I', p.t, p.part);
             execute format('drop table rowlock.%I', p.part);
           end loop;
         end $$"
    )
}

#[tokio::test]
async fn a_partition_gap_after_a_clock_step_is_filled_by_the_next_write() {
    for ahead in ["8 hours", "2 days"] {
        let test = TestDb::new().await;
        let instance = test.instance("a").await;
        test.run(gone_until(ahead)).await;
        assert!(
            partition_stats(&test.db).await.unwrap().left_seconds < 0.0,
            "the current partition is missing"
        );
        // Before the fix, nothing repaired this until that time was reached.
        heartbeat(&test.db, &instance.says(0, 1)).await.unwrap();
        assert!(partition_stats(&test.db).await.unwrap().left_seconds > 0.0);
        let id = test.enqueue().await;
        let mut other = test.instance("b").await;
        let claimed = other.claim(1).await;
        other.settle(&claimed, &Outcome::Complete { result: Some("1".into()) }).await;
        assert_eq!(test.state(id).await.as_deref(), Some("completed"));
        let tables = "select count(*) from pg_class where relnamespace = 'rowlock'::regnamespace";
        let before = test.one::<i64>(tables).await;
        extend_partitions(&test.db).await.unwrap();
        assert_eq!(test.one::<i64>(tables).await, before, "no partition is made twice");
    }
}

#[tokio::test]
async fn joining_and_enqueueing_create_a_missing_current_partition() {
    let test = TestDb::new().await;
    test.run(gone_until("8 hours")).await;
    test.instance("a").await;
    let test = TestDb::new().await;
    test.run(gone_until("1 day")).await;
    test.enqueue().await;
}

/// An old partition of heartbeats, which the next pass would drop.
const OLD: &str = "select rowlock.make_partition('heartbeat', date_trunc('hour', now()) - interval '4 days', \
    date_trunc('hour', now()) - interval '3 days')";

#[tokio::test]
async fn after_a_clock_step_nothing_is_deleted_at_first() {
    let test = TestDb::new().await;
    test.run(OLD).await;
    test.run(
        "insert into rowlock.dead (id, queue, priority, attempt, at) \
        values (1, 1, 1, 1, now() - interval '8 days')",
    )
    .await;
    // The state after a pass while the clock was three days ahead.
    test.run("update rowlock.maintenance set seen_at = now() - interval '3 days'").await;
    assert!(test.one::<bool>("select rowlock.begin_maintenance(true)").await);
    assert_eq!(maintain_partitions(&test.db).await.unwrap(), 0);
    assert_eq!(test.one::<i64>("select count(*) from rowlock.dead").await, 1);
    // The clock is back, and the pass of that time is recorded.
    test.run(
        "update rowlock.maintenance set seen_at = now() + interval '3 days', next_cleanup_at = now() + \
        interval '3 days'",
    )
    .await;
    assert!(test.one::<bool>("select rowlock.begin_maintenance(true)").await);
    assert_eq!(maintain_partitions(&test.db).await.unwrap(), 0);
    test.run("update rowlock.maintenance set steady_since = now() - interval '61 minutes'").await;
    assert_eq!(maintain_partitions(&test.db).await.unwrap(), 1);
    assert_eq!(test.one::<i64>("select count(*) from rowlock.dead").await, 0);
}

#[tokio::test]
async fn one_session_per_database_runs_maintenance_once_a_minute() {
    let test = TestDb::new().await;
    let take = "select rowlock.begin_maintenance(false)";
    assert!(test.one::<bool>(take).await);
    assert!(!test.one::<bool>(take).await, "another session does it");
    test.run("select rowlock.end_maintenance(false)").await;
    assert!(!test.one::<bool>(take).await, "it was done less than a minute ago");
    assert!(test.one::<bool>("select rowlock.begin_maintenance(true)").await, "cleanup has its own interval");
    test.run("update rowlock.maintenance set next_partitions_at = now() - interval '1 second'").await;
    assert!(test.one::<bool>(take).await);
}

#[tokio::test]
async fn an_open_transaction_blocks_nobody_while_a_partition_is_dropped() {
    let test = TestDb::new().await;
    test.run(OLD).await;
    let mut open = test.session().await;
    open.execute(
        "begin; insert into rowlock.heartbeat (n, instance, queue, held, allocated, allocation, \
        wants) values (0, 0, 0, 0, 0, 0, 0)",
    )
    .await
    .unwrap();
    // As in an instance: one connection for all but the heartbeat.
    let db = Db::connect(&Connect { max_connections: 1, ..test.connect() }).await.unwrap();
    let mut instance = TestInstance::join(&db, "a").await;
    let mut maintainer = Maintainer::of_instance(instance.id(), instance.joined.queue);
    let mut slowest = Duration::ZERO;
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        maintainer.run_once(&db, None, Some(&instance.watermarks)).await.unwrap();
        let asked = Instant::now();
        test.enqueue().await;
        let claimed = instance.claim(1).await;
        instance.settle(&claimed, &Outcome::Complete { result: None }).await;
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let emptied = "select count(*) from pg_inherits where inhdetachpending";
    assert_eq!(test.one::<i64>(emptied).await, 1, "dropping has begun, and waits");
    eprintln!("enqueue, claim and settle took {slowest:?} at most");
    // Before the fix, the instance's statements waited behind it for five seconds.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    open.execute("commit").await.unwrap();
    assert_eq!(maintain_partitions(&db).await.unwrap(), 1);
}

#[tokio::test]
async fn an_instance_with_a_workers_permissions_makes_partitions() {
    let test = TestDb::new().await;
    test.run(OLD).await;
    let connect = test.login("worker", "'worker'").await;
    let db = Db::connect(&connect).await.unwrap();
    assert_eq!(maintain_partitions(&db).await.unwrap(), 0, "only the owner drops old partitions");
    let mut session = PgConnection::connect(&connect.url).await.unwrap();
    let turns = session
        .fetch_one("select rowlock.begin_maintenance(false), rowlock.begin_maintenance(true)")
        .await
        .unwrap();
    assert_eq!((turns.get(0), turns.get(1)), (true, false), "only the owner may do cleanup");
    session.close().await.unwrap();
    db.close().await;
}
