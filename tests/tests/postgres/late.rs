//! Transactions that commit late: ordinary ones (R3), prepared and IMMEDIATE ones (R6), and those with a due time that passed (R13).

use std::time::{Duration, Instant};

use rowlock_queue::{Caretaker, TaskId};
use rowlock_tests::{Member, TestDb};
use sqlx::{Executor, Row};

const ENQUEUE: &str = "select rowlock.enqueue('mail', 'send', '{}', '{\"bell\": false}')";

/// Enqueues in an open transaction; returns it with the task.
async fn open_producer(test: &TestDb, begin: &'static str) -> (sqlx::PgConnection, TaskId, i64) {
    let mut producer = test.session().await;
    producer.execute(begin).await.unwrap();
    let id = TaskId(producer.fetch_one(ENQUEUE).await.unwrap().get(0));
    let k = producer.fetch_one("select max(k) from rowlock.ready").await.unwrap().get(0);
    // What others draw meanwhile.
    test.run("select nextval('rowlock.k_seq')").await;
    (producer, id, k)
}

async fn sweep(member: &Member, caretaker: &mut Caretaker) -> u64 {
    caretaker.run_once(&member.db, None, Some(&member.lows)).await.unwrap().swept
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_claimed_by_the_next_claim() {
    let test = TestDb::new().await;
    let mut member = test.member("a").await;
    let (mut producer, id, k) = open_producer(&test, "begin").await;
    member.walk_past(k).await;
    producer.execute("commit").await.unwrap();
    assert_eq!(member.claim(10).await.tasks[0].id, id);
}

#[tokio::test]
async fn producers_out_of_order_are_claimed_quickly() {
    let test = TestDb::new().await;
    let mut member = test.member("a").await;
    let end = Instant::now() + Duration::from_secs(4);
    let producers = (0..4).map(|_| {
        let pool = test.pool.clone();
        tokio::spawn(async move {
            let mut n = 0;
            while Instant::now() < end {
                let mut tx = pool.begin().await.unwrap();
                let with_time = "select rowlock.enqueue('mail', 'send', json_build_object('x', 1), '{}')";
                tx.execute(with_time).await.unwrap();
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..50))).await;
                tx.commit().await.unwrap();
                n += 1;
            }
            n
        })
    });
    let producers: Vec<_> = producers.collect();
    let mut claimed = 0;
    while Instant::now() < end {
        claimed += member.claim(100).await.tasks.len();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut enqueued = 0;
    for producer in producers {
        enqueued += producer.await.unwrap();
    }
    claimed += member.claim(1000).await.tasks.len();
    assert_eq!(claimed, enqueued, "nothing is left for a sweep");
}

#[tokio::test]
async fn a_task_with_immediate_constraints_is_found_by_the_sweep() {
    let test = TestDb::new().await;
    let mut member = test.member("a").await;
    let mut caretaker = Caretaker::of_queue(member.joined.queue);
    let (mut producer, id, k) = open_producer(&test, "begin; set constraints all immediate").await;
    member.walk_past(k).await;
    for _ in 0..5 {
        assert_eq!(
            sweep(&member, &mut caretaker).await,
            0,
            "the transaction is open: its task is not there yet"
        );
    }
    producer.execute("commit").await.unwrap();
    assert!(member.claim(1).await.tasks.is_empty(), "the case that the sweep is for");
    swept_within(&member, &mut caretaker, 20).await;
    assert_eq!(member.claim(1).await.tasks[0].id, id);
}

#[tokio::test]
async fn a_prepared_transaction_is_found_whenever_it_commits() {
    let test = TestDb::new().await;
    let mut member = test.member("a").await;
    let mut caretaker = Caretaker::of_queue(member.joined.queue);
    let (mut producer, id, k) = open_producer(&test, "begin").await;
    let name = format!("'{}'", test.name);
    producer.execute(sqlx::AssertSqlSafe(format!("prepare transaction {name}"))).await.unwrap();
    // Whether or not it was given a new k when it was prepared.
    test.run("select nextval('rowlock.k_seq') from generate_series(1, 3)").await;
    member.walk_past(k + 3).await;
    for _ in 0..5 {
        assert_eq!(sweep(&member, &mut caretaker).await, 0);
    }
    producer.execute(sqlx::AssertSqlSafe(format!("commit prepared {name}"))).await.unwrap();
    swept_within(&member, &mut caretaker, 20).await;
    assert_eq!(member.claim(1).await.tasks[0].id, id);
}

/// A pass notes, the next moves the watermark and sweeps; other sessions of the server may be in the way for a moment.
async fn swept_within(member: &Member, caretaker: &mut Caretaker, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while sweep(member, caretaker).await == 0 {
        assert!(Instant::now() < end, "not swept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_due_time_that_passed_before_the_commit_is_promoted_at_once() {
    let test = TestDb::new().await;
    let mut caretaker = Caretaker::new();
    let mut producer = test.session().await;
    producer.execute("begin").await.unwrap();
    let enqueue = "select rowlock.enqueue('mail', 'send', '{}', '{\"delay\": \"200 milliseconds\"}')";
    let id = TaskId(producer.fetch_one(enqueue).await.unwrap().get(0));
    // The mover's watermark passes the due time.
    let end = Instant::now() + Duration::from_millis(600);
    while Instant::now() < end {
        assert_eq!(caretaker.run_once(&test.db, None, None).await.unwrap().promoted, 0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    producer.execute("commit").await.unwrap();
    assert_eq!(test.state(id).await.as_deref(), Some("scheduled"));
    assert_eq!(caretaker.run_once(&test.db, None, None).await.unwrap().promoted, 1);
    assert_eq!(test.state(id).await.as_deref(), Some("available"));
}

#[tokio::test]
async fn a_scheduled_task_becomes_available_when_due_and_not_before() {
    let test = TestDb::new().await;
    let mut caretaker = Caretaker::new();
    let soon = test
        .enqueue_with(&rowlock_queue::EnqueueOptions {
            delay: Some(Duration::from_millis(300)),
            ..Default::default()
        })
        .await;
    let enqueued = Instant::now();
    assert_eq!(caretaker.run_once(&test.db, None, None).await.unwrap().promoted, 0);
    while caretaker.run_once(&test.db, None, None).await.unwrap().promoted == 0 {
        assert!(enqueued.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(Duration::from_millis(250) < enqueued.elapsed());
    assert_eq!(test.state(soon).await.as_deref(), Some("available"));
}
