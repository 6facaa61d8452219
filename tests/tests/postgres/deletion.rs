//! Deleting a queue.

use rowlock_queue::{EnqueueOptions, Error, Outcome, declare};
use rowlock_tests::{TestDb, declaration};
use sqlx::Executor;

const DELETE: &str = "select rowlock.delete_queue('mail')";
const FORCE: &str = "select rowlock.delete_queue('mail', force => true)";

/// Why the deletion is refused.
async fn refused(test: &TestDb, sql: &'static str) -> String {
    let error = sqlx::query(sql).execute(&test.pool).await.unwrap_err();
    match Error::from(error) {
        Error::Refused { code, message, hint: Some(_) } if code == "RL009" => message,
        other => panic!("{other:?}"),
    }
}

async fn left(test: &TestDb) -> i64 {
    test.one(
        "select (select count(*) from rowlock.queue where name = 'mail') + (select count(*) \
            from rowlock.ready)
         + (select count(*) from rowlock.delayed) + (select count(*) from rowlock.lease) + (select count(*) \
         from rowlock.dead)",
    )
    .await
}

#[tokio::test]
async fn deleting_a_queue_in_use_needs_force_and_cancels_its_tasks() {
    let test = TestDb::new().await;
    let waiting = test.enqueue_many(3).await;
    let instance = test.instance("a").await;
    assert!(refused(&test, DELETE).await.contains("1 instances"));
    let later = EnqueueOptions { delay: Some(std::time::Duration::from_mins(1)), ..Default::default() };
    let scheduled = test.enqueue_with(&later).await;
    let mut running = test.instance("b").await;
    let claimed = running.claim(1).await;
    assert_eq!(test.one::<i64>(FORCE).await, 4);
    assert_eq!(left(&test).await, 0);
    for id in waiting.into_iter().chain([scheduled]) {
        assert_eq!(test.state(id).await.as_deref(), Some("cancelled"));
    }
    assert!(instance.heartbeat(0, 1).await.gone);
    let late = running.settle(&claimed, &Outcome::Complete { result: None }).await;
    assert_eq!(late, [rowlock_queue::Settled::LeaseLost]);
    // A new queue of the same name is a different queue.
    declare(&test.db, &declaration("mail")).await.unwrap();
    test.enqueue().await;
    assert_eq!(test.audited().await, (0, 0, 0, 1));
}

#[tokio::test]
async fn a_queue_without_unfinished_tasks_is_deleted_with_its_dead_tasks() {
    let test = TestDb::new().await;
    let id = test.enqueue().await;
    assert!(refused(&test, DELETE).await.contains("unfinished"));
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    instance.settle(&claimed, &Outcome::Dead { error: "no".into() }).await;
    rowlock_queue::leave(&test.db, instance.id()).await.unwrap();
    assert_eq!(test.one::<i64>(DELETE).await, 0);
    assert_eq!(left(&test).await, 0);
    assert_eq!(test.state(id).await.as_deref(), Some("dead"));
    let unknown = sqlx::query(DELETE).execute(&test.pool).await.unwrap_err();
    assert!(matches!(Error::from(unknown), Error::Refused { code, .. } if code == "RL001"));
}

#[tokio::test]
async fn no_task_of_an_open_transaction_outlives_its_queue() {
    let test = TestDb::new().await;
    let mut producer = test.session().await;
    producer.execute("begin; select rowlock.enqueue('mail', 'send', '{}')").await.unwrap();
    assert!(refused(&test, FORCE).await.contains("being used"));
    producer.execute("commit").await.unwrap();
    assert_eq!(test.one::<i64>(FORCE).await, 1);
    assert_eq!(left(&test).await, 0);
}

#[tokio::test]
async fn an_instance_outlives_a_deletion_that_is_refused() {
    let test = TestDb::new().await;
    let mut instance = test.instance("a").await;
    test.enqueue().await;
    let claimed = instance.claim(1).await;
    let mut producer = test.session().await;
    producer.execute("begin; select rowlock.enqueue('mail', 'send', '{}')").await.unwrap();
    let deletion = async { refused(&test, FORCE).await };
    let meanwhile = async {
        test.until_lock_wait().await;
        rowlock_queue::heartbeat(&test.db, &instance.says(1, 1)).await
    };
    let (refusal, answer) = tokio::join!(deletion, meanwhile);
    assert!(refusal.contains("being used"));
    assert!(
        answer.is_err_and(|error| error.is_transient()),
        "the instance was not declared gone: it retries"
    );
    assert!(!instance.heartbeat(1, 1).await.gone);
    let settled = instance.settle(&claimed, &Outcome::Complete { result: None }).await;
    assert_eq!(settled, [rowlock_queue::Settled::Done]);
}

#[tokio::test]
async fn only_the_owner_deletes_a_queue() {
    let test = TestDb::new().await;
    for permission in ["producer", "worker", "reader"] {
        test.login(permission, &format!("'{permission}'")).await;
    }
    let allowed = "select coalesce(string_agg(r.rolname, ' '), '') from pg_roles r
      where r.rolname like '%' || current_database() \
      and has_function_privilege(r.oid, 'rowlock.delete_queue(text, boolean)', 'execute')";
    assert_eq!(test.one::<String>(allowed).await, "");
}

#[tokio::test]
async fn partitions_stay_after_the_last_queue_is_deleted() {
    let test = TestDb::new().await;
    test.run(DELETE).await;
    for _ in 0..2 {
        let report = rowlock_queue::Maintainer::new().run_once(&test.db, None, None).await.unwrap();
        assert_eq!(report.partitions_dropped, 0, "they are not old");
    }
}
