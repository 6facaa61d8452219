//! Features a database may use: publications (R9), narrow roles (R10), two-phase commits (R11), listeners
//! (R12), settings (R19).

use std::time::Duration;

use rowlock_local::postgres::{Server, ServerConfig};
use rowlock_queue::{Connect, Db, Error, Maintainer, Outcome, listen};
use rowlock_tests::{TestDb, TestInstance, declaration, server};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

#[tokio::test]
async fn every_function_works_with_a_publication_for_all_tables() {
    let test = TestDb::new().await;
    test.run("create publication everything for all tables").await;
    let ids = test.enqueue_many(300).await;
    let mut instance = test.instance("a").await;
    instance.sleep().await;
    rowlock_queue::cancel(&test.db, ids[5]).await.unwrap();
    for outcome in [
        Outcome::Complete { result: Some("{}".into()) },
        Outcome::Retry { delay: Duration::ZERO, error: "no".into() },
        Outcome::Dead { error: "no".into() },
        Outcome::Snooze { delay: Duration::ZERO },
        Outcome::Release,
    ] {
        let claimed = instance.claim(20).await;
        rowlock_queue::settle(&test.db, instance.id(), &rowlock_tests::settlements(&claimed, &outcome)[..10])
            .await
            .unwrap();
    }
    Maintainer::of_instance(instance.id(), instance.joined.queue)
        .run_once(&test.db, None, Some(&instance.watermarks))
        .await
        .unwrap();
    rowlock_queue::retry_all_dead(&test.db, "mail").await.unwrap();
    rowlock_queue::drain(&test.db, instance.id()).await.unwrap();
    rowlock_queue::leave(&test.db, instance.id()).await.unwrap();
    assert_eq!(test.audited().await, (10, 0, 1, 289));
}

#[tokio::test]
async fn a_producer_role_enqueues_in_short_and_long_transactions() {
    let test = TestDb::new().await;
    let seller = test.login("seller", "'producer'").await;
    let mut session = PgConnection::connect(&seller.url).await.unwrap();
    let enqueue = "select rowlock.enqueue('mail', 'send', '{}')";
    session.execute(enqueue).await.unwrap();
    for sql in ["begin", enqueue, "select pg_sleep(0.1)", "commit"] {
        session.execute(sql).await.unwrap();
    }
    let refused = session.execute("select * from rowlock.task").await.unwrap_err();
    assert!(refused.to_string().contains("permission denied"), "{refused}");
    assert_eq!(test.instance("a").await.claim(10).await.tasks.len(), 2);
}

#[tokio::test]
async fn a_transaction_enqueued_without_notify_may_be_prepared_while_instances_sleep() {
    let test = TestDb::new().await;
    let mut instance = test.instance("a").await;
    instance.sleep().await;
    let mut producer = test.session().await;
    producer
        .execute("begin; select rowlock.enqueue('mail', 'send', '{}', '{\"notify\": false}')")
        .await
        .unwrap();
    for sql in ["prepare transaction '{}'", "commit prepared '{}'"] {
        producer.execute(AssertSqlSafe(sql.replace("{}", &test.name))).await.unwrap();
    }
    assert_eq!(instance.claim(1).await.tasks.len(), 1);
}

/// A session that listens and stays in a transaction keeps all notifications of the server.
#[tokio::test]
async fn a_full_notification_queue_fails_no_enqueue() {
    // Before 17, the queue has a fixed size of 8 GiB.
    if std::env::var("ROWLOCK_TEST_POSTGRES").as_deref() == Ok("14") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut config = ServerConfig::new(folder.path());
    config.guard = Some(server::guard().unwrap());
    config.settings.push(("max_notify_queue_pages".into(), "64".into()));
    let server = Server::start(&config).await.unwrap();
    let url = server.url("postgres");
    let db = Db::connect(&Connect::new(url.clone(), "test", 2)).await.unwrap();
    db.migrate().await.unwrap();
    rowlock_queue::declare(&db, &declaration("mail")).await.unwrap();
    TestInstance::join(&db, "a").await.sleep().await;
    let mut listens = PgConnection::connect(&url).await.unwrap();
    for sql in ["listen others", "begin", "select 1"] {
        listens.execute(sql).await.unwrap();
    }
    let mut others = PgConnection::connect(&url).await.unwrap();
    let notify = "select pg_notify('others', rpad(n::text, 7900, 'x')) from generate_series(1, 10) n";
    while others.execute(notify).await.is_ok() {}
    // The instance is idle and asked for a NOTIFY, which the server would refuse now.
    let options = rowlock_queue::EnqueueOptions::default();
    rowlock_queue::enqueue(&db, "mail", "send", "{}", &options).await.unwrap();
    let refused = others.execute("select pg_notify('others', 'x')").await.unwrap_err();
    assert!(refused.to_string().contains("NOTIFY queue"), "{refused}");
    db.close().await;
}

#[tokio::test]
async fn notify_is_sent_for_an_idle_queue_and_for_no_other() {
    let test = TestDb::new().await;
    rowlock_queue::declare(&test.db, &declaration("awake")).await.unwrap();
    let instance = test.instance("a").await;
    instance.sleep().await;
    let mut listener = listen(&test.connect()).await.unwrap();
    let options = rowlock_queue::EnqueueOptions::default();
    rowlock_queue::enqueue(&test.db, "awake", "send", "{}", &options).await.unwrap();
    test.enqueue().await;
    let notified =
        tokio::time::timeout(Duration::from_secs(5), listener.wait()).await.expect("a NOTIFY").unwrap();
    assert_eq!(notified, instance.joined.queue, "the other queue has not been notified");
}

#[tokio::test]
async fn an_open_transaction_with_immediate_constraints_blocks_no_other_notify() {
    let test = TestDb::new().await;
    let instance = test.instance("a").await;
    let mut listener = listen(&test.connect()).await.unwrap();
    instance.sleep().await;
    let mut immediate = test.session().await;
    let enqueue = "begin; set constraints all immediate; select rowlock.enqueue('mail', 'send', '{}')";
    immediate.execute(enqueue).await.unwrap();
    test.enqueue().await;
    let notified = tokio::time::timeout(Duration::from_secs(10), listener.wait())
        .await
        .expect("a NOTIFY for the other")
        .unwrap();
    assert_eq!(notified, instance.joined.queue);
    immediate.execute("commit").await.unwrap();
    let notified = tokio::time::timeout(Duration::from_secs(10), listener.wait())
        .await
        .expect("and for its own")
        .unwrap();
    assert_eq!(notified, instance.joined.queue);
}

#[tokio::test]
async fn a_savepoint_rolled_back_enqueues_nothing() {
    let test = TestDb::new().await;
    let mut session = test.session().await;
    let enqueue = "select rowlock.enqueue('mail', 'send', '{}')";
    for sql in ["begin", enqueue, "savepoint a", enqueue, "rollback to a", enqueue, "commit"] {
        session.execute(sql).await.unwrap();
    }
    assert_eq!(test.instance("a").await.claim(10).await.tasks.len(), 2);
    assert_eq!(test.audited().await, (0, 0, 0, 2));
}

#[tokio::test]
async fn enqueue_works_at_every_isolation_level_and_other_functions_say_which_they_need() {
    let test = TestDb::new().await;
    let mut session = test.session().await;
    for level in ["repeatable read", "serializable"] {
        let begin = format!(
            "begin isolation level {level}; select rowlock.enqueue('mail', 'send', '{{}}'); \
                select pg_sleep(0.06); commit"
        );
        session.execute(AssertSqlSafe(begin)).await.unwrap();
    }
    let instance = test.instance("a").await;
    test.run(format!("alter database {} set default_transaction_isolation = 'repeatable read'", test.name))
        .await;
    let db = rowlock_queue::Db::connect(&test.connect()).await.unwrap();
    rowlock_queue::heartbeat(&db, &instance.says(0, 1))
        .await
        .expect("Rowlock's own sessions set READ COMMITTED");
    let drain = format!("select rowlock.leave({})", instance.id().0);
    let refused = Error::from(test.session().await.execute(AssertSqlSafe(drain)).await.unwrap_err());
    let Error::Refused { code, hint: Some(hint), .. } = refused else { panic!("{refused:?}") };
    assert_eq!(code, "RL007");
    assert!(hint.contains("READ COMMITTED"));
    test.run(format!("alter database {} reset default_transaction_isolation", test.name)).await;
    let mut other = test.instance("b").await;
    assert_eq!(other.claim(10).await.tasks.len(), 2);
}
