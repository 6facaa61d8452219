//! The cost of reading one task or one page of tasks with a large backlog and many finished tasks; and what a
//! cancel leaves unchanged.

use std::time::Duration;

use rowlock_queue::{
    Cancelled, Maintainer, Outcome, TaskId, TaskState, cancel, leave, list_tasks, maintain_partitions,
    queue_stats,
};
use rowlock_tests::TestDb;
use sqlx::{Executor, PgConnection, Row};

/// Pages for each. Without an index, reading a finished task took a tenth of all pages.
const WAITING: i64 = 150_000;
const FINISHED: i64 = 300_000;

/// Single available tasks, and tasks that finished within the last 22 hours: twenty per receipt, every
/// hundredth cancelled.
async fn fill(test: &TestDb) {
    test.run(format!(
        "begin; set local session_replication_role = replica;
         insert into rowlock.task (id, queue, k_low, priority, type, payload)
           select rowlock.id_at(now()) - (g << 14), q.id, (g - 2147483648)::int, 1, 't', '{{}}' \
           from rowlock.queue q, generate_series(1::bigint, {WAITING}) g;
         insert into rowlock.ready (queue, shard, priority, k, id, n, attempt, fresh)
           select q.id, g & 3, 1, g, rowlock.id_at(now()) - (g << 14), 1, 0, true from rowlock.queue q, \
           generate_series(1::bigint, {WAITING}) g;
         select setval('rowlock.k_seq', {WAITING});
         insert into rowlock.task (id, queue, priority, type, payload)
           select rowlock.id_at(now() - interval '22 hours') + (g / 20) * 9000000000 + g % 20, q.id, 1, 't', \
           '{{}}'
           from rowlock.queue q, generate_series(0::bigint, {FINISHED} - 1) g;
         insert into rowlock.receipt (at, queue, state, firsts, ns, attempts)
           select now() - interval '22 hours' + g * interval '4.2 s', q.id, case when g % 100 = 0 then 3 \
           else 1 end,
                  array[rowlock.id_at(now() - interval '22 hours') + g * 9000000000], array[20], array[1]
           from rowlock.queue q, generate_series(0::bigint, {FINISHED} / 20 - 1) g;
         commit; analyze"
    ))
    .await;
}

/// The minimum of several runs: the first run of a session also reads the catalogs and plans.
async fn pages_read(session: &mut PgConnection, call: &str) -> i64 {
    let explain = format!("explain (analyze, buffers, format json) select * from {call}");
    let mut least = i64::MAX;
    for _ in 0..4 {
        let plan: serde_json::Value =
            session.fetch_one(sqlx::AssertSqlSafe(explain.clone())).await.unwrap().get(0);
        let plan = &plan[0]["Plan"];
        least = least
            .min(plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap());
    }
    least
}

#[tokio::test]
async fn one_task_and_one_page_of_tasks_are_found_by_index() {
    let test = TestDb::new().await;
    let moved = test.enqueue().await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    fill(&test).await;
    instance.settle(&claimed, &Outcome::Release).await;
    let mut session = test.session().await;
    let waits: i64 =
        test.one("select id from rowlock.ready where fresh order by k offset 70000 limit 1").await;
    let early: i64 =
        test.one("select firsts[1] + 7 from rowlock.receipt order by at offset 101 limit 1").await;
    let late: i64 =
        test.one("select firsts[1] + 7 from rowlock.receipt order by at desc offset 101 limit 1").await;
    for (id, state) in
        [(waits, "available"), (moved.0, "available"), (early, "completed"), (late, "completed")]
    {
        assert_eq!(test.state(TaskId(id)).await.as_deref(), Some(state));
        for look in ["task_state", "describe_task", "cancel"] {
            let pages = pages_read(&mut session, &format!("rowlock.{look}({id})")).await;
            eprintln!("{look} of one that is {state}: {pages} pages");
            assert!(pages <= 50, "{look} of one that is {state}: {pages} pages");
        }
    }
    for (state, after) in
        [("available", 0), ("available", waits), ("completed", 0), ("completed", early), ("cancelled", 0)]
    {
        let after = if after == 0 { "null".into() } else { after.to_string() };
        let pages =
            pages_read(&mut session, &format!("rowlock.list_tasks('mail', '{state}', {after}, 50)")).await;
        eprintln!("a page of {state}: {pages} pages");
        assert!(pages <= 300, "a page of {state}: {pages} pages");
    }
}

#[tokio::test]
async fn pages_of_tasks_have_no_gap() {
    let test = TestDb::new().await;
    let mut ids = test.enqueue_many(300).await;
    ids.push(test.enqueue().await);
    let mut instance = test.instance("a").await;
    for state in [TaskState::Available, TaskState::Completed] {
        let mut seen = Vec::new();
        while let Ok(page) = list_tasks(&test.db, Some("mail"), state, 40, seen.last().copied()).await
            && !page.is_empty()
        {
            seen.extend(page.iter().map(|line| line.id));
        }
        seen.sort_unstable_by_key(|id| id.0);
        assert_eq!(seen, ids, "{state}");
        while let claimed = instance.claim(70).await
            && !claimed.tasks.is_empty()
        {
            instance.settle(&claimed, &Outcome::Complete { result: None }).await;
        }
    }
}

#[tokio::test]
async fn a_cancel_keeps_the_order_of_other_tasks() {
    let test = TestDb::new().await;
    let first = test.enqueue_many(128).await;
    let behind = test.enqueue_many(3).await;
    // The first, the last, and three in the middle.
    let gone = [first[0], first[127], first[64], first[32], first[96]];
    for id in gone {
        assert_eq!(cancel(&test.db, id).await.unwrap(), Cancelled::Done);
    }
    let mut instance = test.instance("a").await;
    let mut order = Vec::new();
    while let claimed = instance.claim(10).await
        && !claimed.tasks.is_empty()
    {
        order.extend(claimed.tasks.iter().map(|task| task.id));
        instance.settle(&claimed, &Outcome::Complete { result: None }).await;
    }
    // Before the fix, all tasks after a cancelled one moved behind all other tasks.
    order.retain(|id| !behind.contains(id));
    let expected: Vec<_> = first.iter().filter(|id| !gone.contains(id)).copied().collect();
    assert_eq!(order, expected);
    assert_eq!(test.audited().await, (126, 0, 5, 0));
}

#[tokio::test]
async fn a_range_with_many_cancelled_tasks_loses_none() {
    let test = TestDb::new().await;
    let ids = test.enqueue_many(128).await;
    for id in ids.iter().step_by(3) {
        assert_eq!(cancel(&test.db, *id).await.unwrap(), Cancelled::Done);
    }
    assert_eq!(test.audited().await, (0, 0, 43, 85));
    for (place, id) in ids.iter().enumerate() {
        let state = if place % 3 == 0 { "cancelled" } else { "available" };
        assert_eq!(test.state(*id).await.as_deref(), Some(state), "{place}");
    }
}

#[tokio::test]
async fn an_obsolete_cancel_request_is_deleted() {
    let test = TestDb::new().await;
    let id = test.enqueue().await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    instance.settle(&claimed, &Outcome::Complete { result: None }).await;
    let runs = test.enqueue().await;
    instance.claim(1).await;
    // As a cancel request that came during the settlement leaves it.
    test.run(format!(
        "insert into rowlock.cancel_request \
        values ({id}, now() - interval '2 minutes'), ({runs}, now() - interval '2 minutes')"
    ))
    .await;
    Maintainer::new().run_once(&test.db, None, None).await.unwrap();
    let left: i64 = test.one("select sum(id)::bigint from rowlock.cancel_request").await;
    assert_eq!(left, runs.0, "the other one runs");
}

#[tokio::test]
async fn counting_running_tasks_stays_cheap_with_many_deleted_leases() {
    let test = TestDb::new().await;
    test.enqueue_many(5).await;
    let mut instance = test.instance("a").await;
    instance.claim(3).await;
    instance.heartbeat(3, 5).await;
    let running = async || rowlock_queue::queue_stats(&test.db).await.unwrap()[0].running;
    assert_eq!(running().await, 3);
    let mut pins = test.session().await;
    pins.execute("begin isolation level repeatable read; select 1").await.unwrap();
    test.run(
        "insert into rowlock.lease (token, instance, queue, firsts, ns, attempts, priorities)
      select g, 0, 1, array[g], array[1], array[0], array[1] from generate_series(1, 60000) g; delete \
      from rowlock.lease where instance = 0; analyze rowlock.lease",
    )
    .await;
    let mut session = test.session().await;
    let pages = pages_read(&mut session, "rowlock.running()").await;
    assert!(pages < 100, "{pages} pages");
    assert_eq!(running().await, 3, "the number that the heartbeat reported");
    let known: i64 = test.one("select count(mean_seconds) from rowlock.running()").await;
    assert_eq!(known, 0, "heartbeats do not say for how long");
    test.run("update rowlock.heartbeat set at = at - interval '2 minutes'").await;
    assert_eq!(running().await, 3, "without heartbeats, the number of the leases");
}

#[tokio::test]
async fn a_flood_of_late_commits_is_swept_in_one_pass() {
    let test = TestDb::new().await;
    let mut instance = test.instance("a").await;
    let mut producer = test.session().await;
    producer
        .execute(
            "begin; set constraints all immediate; select rowlock.enqueue('mail', 'send', '{}') \
        from generate_series(1, 3500)",
        )
        .await
        .unwrap();
    test.run("select setval('rowlock.k_seq', (select last_value + 5000 from rowlock.k_seq))").await;
    let newest: i64 = test.one("select last_value from rowlock.k_seq").await;
    instance.claim_past(newest - 1000).await;
    producer.execute("commit").await.unwrap();
    let mut maintainer = Maintainer::of_instance(instance.id(), instance.joined.queue);
    let mut swept = 0;
    for _ in 0..50 {
        swept = maintainer.run_once(&test.db, None, Some(&instance.watermarks)).await.unwrap().missed_moved;
        if 0 < swept {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Before the fix, each pass, every two or ten seconds, moved a thousand.
    assert_eq!(swept, 3500);
}

/// Long enough after the last instance that none of its heartbeats counts.
async fn pass_a_while(test: &TestDb) {
    test.run(
        "update rowlock.heartbeat set at = at - interval '2 minutes';
         update rowlock.instance set ended_at = ended_at - interval '2 minutes' where ended_at is not null",
    )
    .await;
}

/// The lowest published watermark.
async fn lowest(test: &TestDb) -> Option<i64> {
    test.one("select (select min(l) from unnest(rowlock.published_watermarks(1)) l)").await
}

/// One pass takes a note. It counts in a later pass, once all transactions before it have ended, in all
/// databases of the server.
async fn until_kept(test: &TestDb, is_it: impl Fn(i64) -> bool) {
    let since = std::time::Instant::now();
    while !lowest(test).await.is_some_and(&is_it) {
        assert!(since.elapsed() < Duration::from_mins(1), "{:?}", lowest(test).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
        maintain_partitions(&test.db).await.unwrap();
    }
}

/// Before the fix, each query on a queue that was scaled to zero read all its dead rows.
#[tokio::test]
async fn a_queue_scaled_to_zero_is_counted_without_reading_dead_rows() {
    let test = TestDb::new().await;
    let mut pins = test.session().await;
    pins.execute("begin isolation level repeatable read; select 1").await.unwrap();
    let instance = test.instance("a").await;
    test.run(
        "insert into rowlock.ready (queue, shard, priority, k, id, n, attempt, fresh, notify)
           select 1, k & 3, 1, k, rowlock.id_at(now()) - (k << 14), 1, 0, false, false \
           from (select nextval('rowlock.k_seq') k from generate_series(1, 80000)) x;
         delete from rowlock.ready; analyze rowlock.ready",
    )
    .await;
    leave(&test.db, instance.id()).await.unwrap();
    pass_a_while(&test).await;
    let mut session = test.session().await;
    let oldest = "rowlock.oldest_by_priority(1, coalesce(rowlock.published_watermarks(1), \
                  array_fill(0::bigint, array[16])))";
    let before = pages_read(&mut session, oldest).await;
    until_kept(&test, |watermark| 80_000 <= watermark).await;
    let pages = pages_read(&mut session, oldest).await;
    eprintln!("{before} pages, and {pages} from where it was kept");
    assert!(1000 < before && pages < 200, "{before}, then {pages} pages");
    // A task enqueued later is found and claimed by an instance that joins.
    let id = test.enqueue().await;
    assert_eq!(queue_stats(&test.db).await.unwrap()[0].available, 1);
    let mut instance = test.instance("b").await;
    assert!(80_000 <= instance.watermarks.as_slice().iter().copied().min().unwrap());
    assert_eq!(instance.claim(1).await.tasks[0].id, id);
}

#[tokio::test]
async fn a_queue_scaled_to_zero_misses_no_late_commit() {
    let test = TestDb::new().await;
    let mut late = test.session().await;
    late.execute("begin; set constraints all immediate; select rowlock.enqueue('mail', 'send', '{}')")
        .await
        .unwrap();
    let k: i64 = test.one("select last_value from rowlock.k_seq").await;
    test.run("select setval('rowlock.k_seq', (select last_value + 5000 from rowlock.k_seq))").await;
    for _ in 0..3 {
        maintain_partitions(&test.db).await.unwrap();
    }
    assert_eq!(lowest(&test).await, None, "its transaction was open when the heartbeat noted k");
    late.execute("commit").await.unwrap();
    until_kept(&test, |watermark| watermark == k).await;
    // A failover that sets the sequence back invalidates all of it.
    test.run("select setval('rowlock.k_seq', 1)").await;
    maintain_partitions(&test.db).await.unwrap();
    assert_eq!(lowest(&test).await, None);
}
