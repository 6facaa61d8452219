//! Faulty or hostile instances and producers: limits of the harm they can do to others.

use std::time::Duration;

use rowlock_queue::{
    Db, Declaration, EnqueueOptions, Error, Heartbeat, TaskId, Watermarks, declare, enqueue, heartbeat,
};
use rowlock_tests::{TestDb, TestInstance, declaration};
use sqlx::{AssertSqlSafe, Executor, Row};

async fn rescue(test: &TestDb, victim: &TestInstance) -> Option<i32> {
    test.one(format!(
        "select rowlock.rescue(instance, heartbeat) from rowlock.newest_heartbeats() where instance = {}",
        victim.id()
    ))
    .await
}

fn code<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Err(Error::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

/// Before the fix, the number of its newest heartbeat was enough to end a live instance.
#[tokio::test]
async fn an_instance_with_a_recent_heartbeat_cannot_be_rescued() {
    let test = TestDb::new().await;
    let victim = test.instance("victim").await;
    let mut liar = test.session().await;
    // A heartbeat in a long transaction does not count as old.
    liar.execute("begin; select pg_sleep(0.2)").await.unwrap();
    assert_eq!(rescue(&test, &victim).await, None);
    liar.execute("select rowlock.join('mail', 'liar', 1)").await.unwrap();
    let late = "select max(at) > clock_timestamp() - interval '0.1 s' from rowlock.heartbeat";
    let row = liar.fetch_one(late).await.unwrap();
    assert!(row.get::<bool, _>(0));
    liar.execute("commit").await.unwrap();
    assert!(!victim.heartbeat(0, 1).await.gone);
    test.silence(victim.id()).await;
    assert_eq!(rescue(&test, &victim).await, Some(0));
}

#[tokio::test]
async fn a_dead_instance_is_rescued_although_the_clock_was_set_back() {
    let test = TestDb::new().await;
    let dead = test.instance("dead").await;
    dead.heartbeat(0, 1).await;
    test.run("update rowlock.heartbeat set at = at + interval '1 hour'").await;
    let other = test.instance("other").await;
    other.heartbeat(0, 1).await;
    assert_eq!(rescue(&test, &dead).await, None, "no heartbeat came for a whole lease");
    test.silence(other.id()).await;
    other.heartbeat(0, 1).await;
    assert_eq!(rescue(&test, &dead).await, Some(0));
}

#[tokio::test]
async fn watermarks_that_are_too_high_are_refused() {
    let test = TestDb::new().await;
    test.enqueue_many(3).await;
    let honest = test.instance("honest").await;
    honest.heartbeat(0, 1).await;
    let (liar, newest) =
        (test.instance("liar").await, test.one::<i64>("select last_value from rowlock.k_seq").await);
    for (watermark, taken) in [(1_000_000_000_000, false), (newest + 900_000, true)] {
        let watermarks = Watermarks::starting_at(Some(vec![watermark; 16]));
        let answer = heartbeat(&test.db, &Heartbeat { watermarks: &watermarks, ..liar.says(0, 1) }).await;
        if taken {
            answer.unwrap();
        } else {
            assert_eq!(code(answer), "RL005");
        }
    }
    let drawn = test.one::<i64>("select last_value from rowlock.k_seq").await - newest;
    assert!(drawn <= 10_000, "{drawn} numbers were drawn");
    let mut joins = test.instance("joins").await;
    assert_eq!(joins.claim(10).await.tasks.len(), 3, "it starts below the refused watermarks");
}

#[tokio::test]
async fn only_the_lease_holder_reads_a_payload() {
    let test = TestDb::new().await;
    let ids = test.enqueue_many(5).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(2).await;
    let payloads = rowlock_queue::fetch(&test.db, claimed.token.unwrap(), &ids).await.unwrap();
    assert_eq!(payloads.len(), 2, "its own only");
    assert!(rowlock_queue::fetch(&test.db, rowlock_queue::Token(1), &ids).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_instance_name_must_be_printable() {
    let test = TestDb::new().await;
    for name in ["", "a\u{1b}[31m", &"x".repeat(201)] {
        assert_eq!(code(rowlock_queue::join(&test.db, "mail", name, 1).await), "RL005", "{name:?}");
    }
    rowlock_queue::join(&test.db, "mail", "a pod – with a name", 1).await.unwrap();
}

async fn small(test: &TestDb) {
    let ten = Declaration { backlog_limit: 10, generation: 2, ..declaration("mail") };
    declare(&test.db, &ten).await.unwrap();
}

/// Before the fix, one transaction could put a million tasks into a queue for ten.
#[tokio::test]
async fn one_transaction_cannot_exceed_a_limit() {
    let test = TestDb::new().await;
    small(&test).await;
    let mut session = test.session().await;
    for enqueue in [
        "select rowlock.enqueue('mail', 't', '{}')",
        "select rowlock.enqueue('mail', 't', '{}', '{\"delay\": \"1 s\"}')",
        "select rowlock.enqueue_many('mail', 't', '[1, 2, 3]')",
    ] {
        session.execute("begin").await.unwrap();
        let mut calls = 0;
        let refused = loop {
            match session.execute(enqueue).await {
                Ok(_) => calls += 1,
                Err(error) => break Error::from(error),
            }
            assert!(calls <= 30, "{enqueue}");
        };
        assert_eq!(code::<()>(Err(refused)), "RL004");
        session.execute("rollback").await.unwrap();
    }
    let eleven =
        session.execute("select rowlock.enqueue_many('mail', 't', '[1,2,3,4,5,6,7,8,9,10,11]')").await;
    assert_eq!(code(eleven.map_err(Error::from)), "RL004");
    session.execute("select rowlock.enqueue_many('mail', 't', '[1,2,3,4,5,6,7,8,9,10]')").await.unwrap();
}

/// Before the fix, tasks for the year 2100 blocked all enqueueing until each of them was cancelled.
#[tokio::test]
async fn scheduled_tasks_have_their_own_limit() {
    let test = TestDb::new().await;
    small(&test).await;
    let later =
        "select rowlock.enqueue_many('mail', 't', '[1,2,3,4,5,6,7,8,9,10]', '{\"delay\": \"300 days\"}')";
    test.run(later).await;
    test.run("select rowlock.update_backlog_limits()").await;
    test.enqueue().await;
    let mut session = test.session().await;
    let refused = session.execute(later).await.map_err(Error::from);
    assert_eq!(code(refused), "RL004");
    let ids: Vec<i64> =
        sqlx::query_scalar("select id from rowlock.delayed").fetch_all(&test.pool).await.unwrap();
    for id in ids {
        rowlock_queue::cancel(&test.db, TaskId(id)).await.unwrap();
    }
    test.run("select rowlock.update_backlog_limits()").await;
    test.run(later).await;
}

/// As after days without maintenance.
const DROP_ALL_PARTITIONS: &str = "do $$ declare p regclass; begin
    for p in select inhrelid::regclass from pg_inherits where inhparent = 'rowlock.task'::regclass \
    loop execute format('drop table %s', p); end loop;
  end $$; update rowlock.queue set partitions_until = 1";

/// Before the fix, an application's transaction failed once no maintenance had run for three days.
#[tokio::test]
async fn a_producer_makes_partitions_if_nobody_did_for_days() {
    let test = TestDb::new().await;
    let seller = Db::connect(&test.login("seller", "'producer'").await).await.unwrap();
    test.run(DROP_ALL_PARTITIONS).await;
    let id = enqueue(&seller, "mail", "t", "{}", &EnqueueOptions::default()).await.unwrap();
    rowlock_queue::enqueue_many(&seller, "mail", "t", &["1".into()], &EnqueueOptions::default())
        .await
        .unwrap();
    assert!(
        test.one::<bool>("select partitions_until = rowlock.partitions_until() from rowlock.queue").await,
        "for the others"
    );
    assert_eq!(test.state(id).await.as_deref(), Some("available"));
}

/// Before the fix, no error named the session; the message said that no maintenance had run on the database.
#[tokio::test]
async fn enqueue_reports_why_no_partition_can_be_made() {
    let test = TestDb::new().await;
    let seller = Db::connect(&test.login("seller", "'producer'").await).await.unwrap();
    test.run(DROP_ALL_PARTITIONS).await;
    let mut forgotten = test.session().await;
    let pid: i32 = forgotten.fetch_one("select pg_backend_pid()").await.unwrap().get(0);
    forgotten.execute("begin; select from rowlock.mutex where operation = 1 for update").await.unwrap();
    let Err(Error::Refused { code, message, hint }) =
        enqueue(&seller, "mail", "t", "{}", &EnqueueOptions::default()).await
    else {
        panic!("there is no partition for it");
    };
    assert_eq!(code, "RL010", "{message}");
    assert!(message.contains("no partition") && message.contains(&format!("process {pid}")), "{message}");
    assert!(hint.unwrap().contains("pg_terminate_backend"));
    forgotten.execute("rollback").await.unwrap();
    enqueue(&seller, "mail", "t", "{}", &EnqueueOptions::default()).await.unwrap();
}

/// Before the fix, tasks could be scheduled for the next hundred years, where they fill the limit until each
/// is cancelled.
#[tokio::test]
async fn no_task_is_scheduled_further_ahead_than_its_queue_allows() {
    let test = TestDb::new().await;
    let day = Duration::from_hours(24);
    let enqueue_in = async |delay: Duration| {
        enqueue(&test.db, "mail", "t", "{}", &EnqueueOptions { delay: Some(delay), ..Default::default() })
            .await
    };
    assert_eq!(code(enqueue_in(366 * day).await), "RL005", "the default limit is a year");
    enqueue_in(364 * day).await.unwrap();
    declare(&test.db, &Declaration { generation: 2, max_delay: 30 * day, ..declaration("mail") })
        .await
        .unwrap();
    let Err(Error::Refused { code: found, message, hint }) = enqueue_in(31 * day).await else {
        panic!("it is too far ahead");
    };
    assert_eq!(
        (found.as_str(), message.as_str()),
        ("RL005", "queue \"mail\" accepts no task that is due in more than 30 days (limits.maxDelay)")
    );
    assert!(hint.unwrap().contains("raise limits.maxDelay"));
    // Before the fix, the longest delay allowed was refused, because the transaction had begun a moment
    // earlier.
    enqueue_in(30 * day).await.unwrap();
    let late = "begin; select pg_sleep(0.1); \
         select rowlock.enqueue_many('mail', 't', '[1]', '{\"delay\": \"30 days\"}'); commit";
    test.run(late).await;
    let many = "select rowlock.enqueue_many('mail', 't', '[1, 2]', \
         jsonb_build_object('run_at', now() + interval '31 days'))";
    let refused = test.pool.execute(many).await.unwrap_err().to_string();
    assert!(refused.contains("limits.maxDelay"), "{refused}");
}

#[tokio::test]
async fn a_delay_counts_from_the_call_under_any_session_setting() {
    let test = TestDb::new().await;
    test.run("update rowlock.queue set max_delay = '100 years'").await;
    let mut session = test.session().await;
    for setting in [
        "",
        "set intervalstyle = 'sql_standard'; set datestyle = 'German'; set timezone = 'Asia/Kolkata'; set \
            standard_conforming_strings = off;",
    ] {
        let sql = format!(
            "begin; {setting} select pg_sleep(0.3); select rowlock.enqueue('mail', 't', '{{}}', \
                '{{\"delay\": \"0.2 s\"}}');
             select rowlock.enqueue('mail', 't', '{{}}', '{{\"run_at\": \"2090-03-01T02:30:00+01:00\"}}'); \
             commit"
        );
        session.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    let due = "select count(*) filter (where due > rowlock.id_time(id)), count(distinct run_at) filter \
        (where run_at = '2090-03-01 01:30+00')";
    let row = test.pool.fetch_one(AssertSqlSafe(format!("{due} from rowlock.delayed"))).await.unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (4, 1));
}
