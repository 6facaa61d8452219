//! Statistics and their cost with a large backlog.

use rowlock_queue::{
    Declaration, EnqueueOptions, Maintainer, Outcome, QueueStats, declare, enqueue, overview, queue_stats,
};
use rowlock_tests::{TestDb, declaration};
use sqlx::{Executor, PgConnection, Row};

const ROWS: i64 = 150_000;

/// One row per task, as single enqueues leave it; every second one in the same queue.
async fn fill(test: &TestDb) {
    test.run(format!(
        "begin; set local session_replication_role = replica;
         insert into rowlock.ready (queue, shard, priority, since, k, id, n, attempt, fresh)
           select (select id from rowlock.queue where name = 'mail'), k & 3, 1, 1000, k, \
           rowlock.id_at(now()) + k * 256, 1, 0, true
           from (select nextval('rowlock.k_seq') k from generate_series(1, {ROWS})) s;
         insert into rowlock.delayed (id, queue, priority, attempt, waits, run_at, due)
           select rowlock.id_at(now()) - nextval('rowlock.k_seq'), (select id from rowlock.queue \
           where name = 'mail'), 1, 0, g & 1, t, t
           from generate_series(1, {ROWS}) g, lateral (select now() + interval '1 day' t) d;
         insert into rowlock.dead (id, queue, priority, attempt)
           select rowlock.id_at(now()) - nextval('rowlock.k_seq'), (select id from rowlock.queue \
           where name = 'mail'), 1, 1 from generate_series(1, {ROWS});
         commit; analyze rowlock.ready"
    ))
    .await;
}

/// The minimum of a few runs: the first run of a session also reads the catalogs.
async fn pages_read(session: &mut PgConnection, call: &str) -> i64 {
    let explain = format!("explain (analyze, buffers, format json) select * from {call}");
    let mut least = i64::MAX;
    for _ in 0..3 {
        let plan: serde_json::Value =
            session.fetch_one(sqlx::AssertSqlSafe(explain.clone())).await.unwrap().get(0);
        let plan = &plan[0]["Plan"];
        least = least
            .min(plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap());
    }
    least
}

async fn stats(test: &TestDb, queue: &str) -> QueueStats {
    let all = queue_stats(&test.db).await.unwrap();
    all.into_iter().find(|stats| stats.name == queue).unwrap()
}

fn about(message: i64, is: i64) {
    assert!(message * 4 / 5 <= is && is <= message * 5 / 4, "{message} is not about {is}");
}

#[tokio::test]
async fn statistics_cost_the_same_for_any_backlog_and_are_approximately_right() {
    let test = TestDb::new().await;
    declare(&test.db, &declaration("small")).await.unwrap();
    fill(&test).await;
    for _ in 0..3 {
        enqueue(&test.db, "small", "send", "{}", &EnqueueOptions::default()).await.unwrap();
    }
    let small = stats(&test, "small").await;
    assert_eq!(small.available, 3, "exact, although another queue is large");
    assert!(small.oldest_available_seconds.unwrap() < 600.0);
    let large = stats(&test, "mail").await;
    about(large.available, ROWS);
    about(large.scheduled, ROWS / 2);
    about(large.retryable, ROWS / 2);
    about(large.dead, ROWS);
    assert_eq!((large.newly_dead, small.newly_dead), (1000, 0), "no more are counted");
    assert!(large.oldest_available_seconds.unwrap() > 1_000_000.0, "the oldest is the first");
    let mut session = test.session().await;
    let calls = ["rowlock.statistics()", "rowlock.update_backlog_limits()"];
    let before = [pages_read(&mut session, calls[0]).await, pages_read(&mut session, calls[1]).await];
    fill(&test).await;
    for (call, before) in calls.into_iter().zip(before) {
        let after = pages_read(&mut session, call).await;
        eprintln!("{call}: {before} pages of {ROWS} rows, {after} of twice as many");
        assert!(after < before * 5 / 4, "{call}: {before} pages, then {after}");
    }
    about(stats(&test, "mail").await.available, 2 * ROWS);
}

/// Before the fix, each poll planned and ran 16 lookups for each queue with a task: with 5,000 of them it
/// took nine seconds.
#[tokio::test]
async fn a_few_tasks_in_each_of_many_queues_are_found_in_one_scan() {
    const QUEUES: i64 = 300;
    let test = TestDb::new().await;
    let names: Vec<String> = (0..QUEUES).map(|n| format!("queue-{n}")).collect();
    for name in &names {
        declare(&test.db, &declaration(name)).await.unwrap();
    }
    let mut session = test.session().await;
    let empty = pages_read(&mut session, "rowlock.statistics()").await;
    for name in &names {
        enqueue(&test.db, name, "send", "{}", &EnqueueOptions::default()).await.unwrap();
    }
    let pages = pages_read(&mut session, "rowlock.statistics()").await;
    eprintln!("{empty} pages, and {pages} with a task in each of {QUEUES} queues");
    assert!(pages < empty + 2 * QUEUES, "{empty} pages, then {pages}");
    let oldest = stats(&test, "queue-7").await.oldest_by_priority;
    assert!(oldest[1].is_some_and(|age| age < 600.0) && oldest[0].is_none(), "{oldest:?}");
}

/// Before, an alert compared numbers of dead tasks, which are estimates once there are many: a queue could
/// seem to have new ones because others died in another queue.
#[tokio::test]
async fn newly_dead_tasks_are_counted_exactly_in_each_queue() {
    let test = TestDb::new().await;
    for name in ["small", "old"] {
        declare(&test.db, &declaration(name)).await.unwrap();
    }
    let die = async |queue: &str, tasks: i64, ago: &str| {
        test.run(format!(
            "insert into rowlock.dead (id, queue, priority, attempt, at)
               select rowlock.id_at(now()) - nextval('rowlock.k_seq'),
                 (select id from rowlock.queue where name = '{queue}'), 1, 1, now() - interval '{ago}'
               from generate_series(1, {tasks})"
        ))
        .await;
    };
    die("old", 4, "16 minutes").await;
    die("small", 2, "14 minutes").await;
    let newly_dead = async |queue: &str| stats(&test, queue).await.newly_dead;
    assert_eq!((newly_dead("old").await, newly_dead("small").await), (0, 2));
    die("mail", 2 * ROWS, "1 hour").await;
    assert_eq!((newly_dead("old").await, newly_dead("small").await, newly_dead("mail").await), (0, 2, 0));
}

#[tokio::test]
async fn a_full_queue_leaves_other_queues_usable() {
    let test = TestDb::new().await;
    let limited = |name: &str| Declaration { backlog_limit: 50_000, generation: 2, ..declaration(name) };
    for name in ["mail", "small"] {
        declare(&test.db, &limited(name)).await.unwrap();
    }
    fill(&test).await;
    Maintainer::new().run_once(&test.db, None, None).await.unwrap();
    let full: Vec<String> = sqlx::query_scalar("select name from rowlock.queue where backlog_full")
        .fetch_all(&test.pool)
        .await
        .unwrap();
    assert_eq!(full, ["mail"]);
    let seen = overview(&test.db).await.unwrap().queues.into_iter();
    let full: Vec<String> = seen.filter(|queue| queue.backlog_full).map(|queue| queue.stats.name).collect();
    assert_eq!(full, ["mail"]);
}

#[tokio::test]
async fn statistics_have_the_oldest_task_of_each_priority() {
    let test = TestDb::new().await;
    for priority in [0, 2] {
        let options = EnqueueOptions { priority: Some(priority), ..Default::default() };
        test.enqueue_with(&options).await;
    }
    test.run("update rowlock.ready set since = since - 600 where priority = 2").await;
    // Before the fix, one number for all priorities hid which one was waiting.
    let oldest = stats(&test, "mail").await.oldest_by_priority;
    assert!(oldest[0].is_some_and(|seconds| seconds < 60.0), "{oldest:?}");
    assert!(oldest[2].is_some_and(|seconds| seconds >= 600.0), "{oldest:?}");
    assert_eq!((oldest[1], oldest[3]), (None, None));
}

/// Before the fix, no number of a queue told them from tasks that wait for their next attempt.
#[tokio::test]
async fn suspects_that_wait_to_run_alone_are_counted_with_their_age() {
    let test = TestDb::new().await;
    test.enqueue_many(3).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(3).await;
    instance.settle(&claimed, &Outcome::HandlerEnded).await;
    let found = stats(&test, "mail").await;
    assert_eq!((found.suspects, found.retryable, found.available), (3, 3, 0));
    assert!(found.oldest_suspect_seconds.is_some_and(|seconds| seconds < 30.0), "{found:?}");
    test.run("update rowlock.suspect set due = now(), until = until - interval '10 minutes'").await;
    let found = stats(&test, "mail").await;
    assert!(found.oldest_suspect_seconds.is_some_and(|seconds| 600.0 <= seconds), "{found:?}");
    let token = rowlock_queue::Token::random();
    rowlock_queue::claim_suspect(&test.db, instance.id(), token, false).await.unwrap().unwrap();
    let found = stats(&test, "mail").await;
    assert_eq!((found.suspects, found.running), (2, 1), "the one that runs does not wait");
}
