//! Which database the Secret leads to.

use rowlock_tests::{TestDb, server as postgres};

use super::stage::{EMAILS, Stage, until_async};

#[tokio::test(flavor = "multi_thread")]
async fn another_database_is_noticed_and_used() {
    let stage = Stage::new("moved").await;
    stage.task_queue("emails", EMAILS);
    let operator = stage.operator().await;
    stage.until("Ready", "True Succeeded").await;
    let first = stage.get("tq", "emails")["status"]["database"]["identity"].as_str().unwrap().to_owned();
    assert!(first.starts_with(&format!("{}@", stage.db.name)), "{first}");
    // It is remembered by the TaskQueue, not by the operator.
    operator.stop().await;
    let other = TestDb::empty().await;
    stage.secret(&postgres::url(&other.name));
    let _operator = stage.operator().await;
    let message = stage.until("DatabaseReachable", "True DatabaseChanged").await;
    assert!(message.contains(&first) && message.contains(&other.name), "{message}");
    stage.until("Ready", "True Succeeded").await;
    stage.until_event("DatabaseChanged").await;
    let queues: i64 = other.one("select count(*) from rowlock.queue where name = 'mail'").await;
    assert_eq!(queues, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_gone_are_made_again() {
    let stage = Stage::new("emptied").await;
    stage.task_queue("emails", EMAILS);
    let _operator = stage.operator().await;
    stage.until("Ready", "True Succeeded").await;
    stage.db.run("drop schema rowlock cascade").await;
    until_async("the queue is there again", || async {
        let there: bool = stage.db.one("select to_regclass('rowlock.queue') is not null").await;
        if !there {
            return Err("no tables".to_owned());
        }
        match stage.db.one::<i64>("select count(*) from rowlock.queue where name = 'mail'").await {
            1 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    stage.until("Ready", "True Succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_ring_for_a_queue_that_sleeps_without_an_instance() {
    let stage = Stage::new("rings").await;
    stage.task_queue("emails", EMAILS);
    let _operator = stage.operator().await;
    stage.until("Ready", "True Succeeded").await;
    let rings = || stage.db.one::<bool>("select bell_until > now() from rowlock.queue");
    until_async("the bell is kept", || async {
        if rings().await { Ok(()) } else { Err("it is not".to_owned()) }
    })
    .await;
    stage.db.enqueue().await;
    stage.until_replicas(1).await;
}
