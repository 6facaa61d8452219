//! Claims: the tasks that they take, the rows that they touch, and their reports (R2, R17, R18).

use std::collections::{BTreeMap, BTreeSet};

use rowlock_queue::{EnqueueOptions, TaskId, Token, claim_again, claim_with_payloads, enqueue, fetch};
use rowlock_tests::TestDb;
use sqlx::Executor;

#[tokio::test]
async fn a_claim_rewrites_only_the_ranges_it_takes_from() {
    let test = TestDb::new().await;
    test.enqueue_many(200 * 128).await;
    let urgent = test.enqueue_with(&EnqueueOptions { priority: Some(0), ..Default::default() }).await;
    let mut instance = test.instance("a").await;
    test.run("create table before as select k, ctid as place from rowlock.ready").await;
    let claimed = instance.claim(200).await;
    assert_eq!(claimed.tasks.len(), 200, "exactly as many as wanted");
    assert_eq!(claimed.tasks[0].id, urgent, "the task of the highest priority first");
    let moved = "select count(*) from before b where not exists (select 1 from rowlock.ready r \
        where r.k = b.k and r.ctid = b.place)";
    assert!(test.one::<i64>(moved).await <= 3, "the single, one whole range, one in part");
    let part =
        "select count(*) from rowlock.ready r where not exists (select 1 from before b where b.k = r.k)";
    assert_eq!(test.one::<i64>(part).await, 0, "a range taken in part keeps its place");
}

#[tokio::test]
async fn claims_of_any_size_take_each_task_once() {
    let test = TestDb::new().await;
    let mut open: BTreeSet<TaskId> = test.enqueue_many(1000).await.into_iter().collect();
    for _ in 0..7 {
        open.insert(test.enqueue().await);
    }
    let mut instance = test.instance("a").await;
    for want in [1, 7, 128, 129, 200, 1000] {
        let claimed = instance.claim(want).await;
        assert_eq!(claimed.tasks.len(), open.len().min(want as usize));
        assert!(claimed.tasks.iter().all(|task| open.remove(&task.id)), "a task came twice");
    }
    assert!(open.is_empty());
}

#[tokio::test]
async fn ids_come_in_the_order_of_the_payloads() {
    let test = TestDb::new().await;
    let ids = test.enqueue_many(2000).await;
    let mut instance = test.instance("a").await;
    let mut payloads = Vec::new();
    for _ in 0..2 {
        let claimed = instance.claim(1000).await;
        payloads.extend(fetch(&test.db, claimed.token.unwrap(), &ids).await.unwrap());
    }
    assert_eq!(payloads.len(), 2000);
    for body in payloads {
        let place = ids.iter().position(|id| *id == body.id).unwrap();
        assert_eq!(body.payload, format!("{{\"i\":{place}}}"));
    }
}

#[tokio::test]
async fn a_claim_brings_payloads_and_leaves_large_ones_to_a_fetch() {
    let test = TestDb::new().await;
    let small = test.enqueue_many(100).await;
    let large = format!("\"{}\"", "x".repeat(300 << 10));
    let last = enqueue(&test.db, "mail", "send", &large, &EnqueueOptions::default()).await.unwrap();
    let instance = test.instance("a").await;
    let (id, token) = (instance.id(), Token::random());
    let claimed = claim_with_payloads(&test.db, id, 1000, &instance.watermarks, token).await.unwrap();
    assert_eq!((claimed.token, claimed.tasks.len()), (Some(token), 101));
    let came: BTreeMap<TaskId, String> =
        claimed.payloads.into_iter().map(|body| (body.id, body.payload)).collect();
    let expected = small.into_iter().enumerate().map(|(place, id)| (id, format!("{{\"i\":{place}}}")));
    assert_eq!(came, expected.collect());
    let rest = fetch(&test.db, token, &[last]).await.unwrap();
    assert_eq!(rest.into_iter().map(|body| body.payload).collect::<Vec<_>>(), [large]);
    let again = claim_again(&test.db, id, 1000, &instance.watermarks, token).await.unwrap();
    assert_eq!(again.tasks.len(), 101, "the same lease, as after a lost answer");
    let none = claim_with_payloads(&test.db, id, 10, &instance.watermarks, Token::random()).await.unwrap();
    assert!(none.tasks.is_empty() && none.payloads.is_empty());
}

#[tokio::test]
async fn a_claim_blocked_by_other_sessions_reports_contention() {
    let test = TestDb::new().await;
    test.enqueue_many(128).await;
    let mut instance = test.instance("a").await;
    let mut other = test.session().await;
    other.execute("begin; select * from rowlock.ready for update").await.unwrap();
    let claimed = instance.claim(10).await;
    assert!(claimed.contended && claimed.tasks.is_empty());
    other.execute("rollback").await.unwrap();
    let claimed = instance.claim(200).await;
    assert!(!claimed.contended, "no task is left, and no other session blocks the claim");
    assert_eq!(claimed.tasks.len(), 128);
    assert!(!instance.claim(1).await.contended, "an empty queue is not contended");
}

#[tokio::test]
async fn concurrent_claims_take_each_task_exactly_once() {
    let test = TestDb::new().await;
    let all = test.enqueue_many(3000).await;
    let instances = futures_util::future::join_all((0..6).map(|i| {
        let db = test.db.clone();
        async move {
            let mut instance = rowlock_tests::TestInstance::join(&db, &format!("m{i}")).await;
            let mut mine = Vec::new();
            loop {
                let claimed = instance.claim(37).await;
                if claimed.tasks.is_empty() && !claimed.contended {
                    return mine;
                }
                mine.extend(claimed.tasks.into_iter().map(|task| task.id));
            }
        }
    }))
    .await;
    let mut claimed: Vec<TaskId> = instances.into_iter().flatten().collect();
    claimed.sort();
    let mut all = all;
    all.sort();
    assert_eq!(claimed, all);
}

#[tokio::test]
async fn payloads_are_read_without_touching_other_partitions() {
    let test = TestDb::new().await;
    let id = test.enqueue().await;
    let token = test.instance("a").await.claim(1).await.token.unwrap();
    let other: String = test
        .one(format!(
            "select inhrelid::regclass::text from pg_inherits where inhparent = 'rowlock.task'::regclass
             and inhrelid <> (select tableoid from rowlock.task where id = {id}) limit 1"
        ))
        .await;
    let mut session = test.session().await;
    let lock = format!("begin; lock table {other} in access exclusive mode");
    session.execute(sqlx::AssertSqlSafe(lock)).await.unwrap();
    let payloads = fetch(&test.db, token, &[id]).await.unwrap();
    assert_eq!(payloads.len(), 1, "otherwise it would wait for the lock");
}

#[tokio::test]
async fn a_higher_priority_overtakes_and_equal_priorities_keep_their_order() {
    let test = TestDb::new().await;
    let with = |priority| EnqueueOptions { priority: Some(priority), ..Default::default() };
    for priority in [3, 1, 2, 0] {
        test.enqueue_with(&with(priority)).await;
    }
    let mut instance = test.instance("a").await;
    let order: Vec<u8> = instance.claim(4).await.tasks.iter().map(|task| task.priority).collect();
    assert_eq!(order, [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_paused_queue_and_a_draining_instance_claim_nothing() {
    let test = TestDb::new().await;
    test.enqueue_many(10).await;
    let mut instance = test.instance("a").await;
    let mut pausing = rowlock_tests::declaration("mail");
    pausing.paused = true;
    rowlock_queue::declare(&test.db, &pausing).await.unwrap();
    assert!(instance.claim(1).await.tasks.is_empty());
    assert!(instance.heartbeat(0, 1).await.paused);
    pausing.paused = false;
    rowlock_queue::declare(&test.db, &pausing).await.unwrap();
    assert_eq!(instance.claim(1).await.tasks.len(), 1);
    rowlock_queue::drain(&test.db, instance.id()).await.unwrap();
    assert!(instance.claim(1).await.tasks.is_empty());
}
