//! An instance is either alive or rescued, never both (R4, R5).

use std::time::Duration;

use rowlock_queue::{Connect, Error, Outcome, Settled, TaskState, Token, claim, leave};
use rowlock_tests::TestDb;
use rowlock_worker::{ExitReason, Shutdown, Task, Worker};
use sqlx::Executor;

/// The number of the newest heartbeat, which is made older than a lease.
async fn newest_heartbeat(test: &TestDb, instance: rowlock_queue::InstanceId) -> i64 {
    test.silence(instance).await;
    test.one(format!("select heartbeat from rowlock.newest_heartbeats() where instance = {instance}")).await
}

async fn rescue(test: &TestDb, instance: rowlock_queue::InstanceId, heartbeat: i64) -> Option<i32> {
    test.one(format!("select rowlock.rescue({instance}, {heartbeat})")).await
}

#[tokio::test]
async fn a_rescue_is_refused_when_the_instance_has_sent_a_heartbeat_again() {
    let test = TestDb::new().await;
    let instance = test.instance("a").await;
    let seen = newest_heartbeat(&test, instance.id()).await;
    instance.heartbeat(0, 1).await;
    assert_eq!(rescue(&test, instance.id(), seen).await, None);
    assert!(!instance.heartbeat(0, 1).await.gone);
}

#[tokio::test]
async fn a_refused_rescue_blocks_no_heartbeat() {
    let test = TestDb::new().await;
    let instance = test.instance("a").await;
    let seen = newest_heartbeat(&test, instance.id()).await;
    instance.heartbeat(0, 1).await;
    let mut rescuer = test.session().await;
    let rescue = format!("begin; select rowlock.rescue({}, {seen})", instance.id());
    rescuer.execute(sqlx::AssertSqlSafe(rescue)).await.unwrap();
    assert!(!instance.heartbeat(0, 1).await.gone);
    rescuer.execute("commit").await.unwrap();
}

#[tokio::test]
async fn an_uncommitted_heartbeat_prevents_a_rescue() {
    let test = TestDb::new().await;
    let instance = test.instance("a").await;
    let seen = newest_heartbeat(&test, instance.id()).await;
    let mut sending = test.session().await;
    let heartbeat = format!(
        "begin; select rowlock.heartbeat({}, 0, 0, 0, 1, array_fill(0::bigint, array[16]), false, \
         0, 0, 0, 0)",
        instance.id()
    );
    sending.execute(sqlx::AssertSqlSafe(heartbeat)).await.unwrap();
    assert_eq!(rescue(&test, instance.id(), seen).await, None);
    sending.execute("commit").await.unwrap();
    assert_eq!(rescue(&test, instance.id(), seen).await, None, "the heartbeat moved the number");
}

#[tokio::test]
async fn an_uncommitted_rescue_blocks_the_heartbeat() {
    let test = TestDb::new().await;
    let instance = test.instance("a").await;
    let seen = newest_heartbeat(&test, instance.id()).await;
    let mut rescuer = test.session().await;
    let rescue = format!("begin; select rowlock.rescue({}, {seen})", instance.id());
    rescuer.execute(sqlx::AssertSqlSafe(rescue)).await.unwrap();
    let meanwhile = rowlock_queue::heartbeat(&test.db, &instance.says(0, 1)).await;
    assert!(meanwhile.is_err_and(|error| error.is_transient()), "the rescue has not committed yet");
    rescuer.execute("commit").await.unwrap();
    assert!(instance.heartbeat(0, 1).await.gone);
}

#[tokio::test]
async fn a_rescued_instance_can_change_nothing() {
    let test = TestDb::new().await;
    test.enqueue_many(5).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(3).await;
    let heartbeat = newest_heartbeat(&test, instance.id()).await;
    assert_eq!(rescue(&test, instance.id(), heartbeat).await, Some(3));
    assert!(instance.heartbeat(3, 3).await.gone);
    let refused = claim(&test.db, instance.id(), 1, &instance.watermarks, Token::random()).await;
    assert!(matches!(refused, Err(Error::Gone)), "{refused:?}");
    let answers = instance.settle(&claimed, &Outcome::Complete { result: None }).await;
    assert_eq!(answers, [Settled::LeaseLost; 3]);
    assert_eq!(leave(&test.db, instance.id()).await.unwrap(), 0);
    assert_eq!(rescue(&test, instance.id(), heartbeat).await, None, "it is rescued once only");
    assert_eq!(test.audited().await, (0, 0, 0, 5));
    assert_eq!(test.one::<i64>("select count(*) from rowlock.task_error").await, 3);
}

#[tokio::test]
async fn an_instance_terminated_while_draining_uses_no_attempt() {
    let test = TestDb::new().await;
    let options = rowlock_queue::EnqueueOptions { max_attempts: Some(2), ..Default::default() };
    let id = test.enqueue_with(&options).await;
    for expected in [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] {
        let mut instance = test.instance("node-went").await;
        let claimed = instance.claim(10).await;
        assert_eq!((claimed.tasks[0].id, claimed.tasks[0].attempt), (id, expected));
        rowlock_queue::drain(&test.db, instance.id()).await.unwrap();
        let heartbeat = newest_heartbeat(&test, instance.id()).await;
        assert_eq!(rescue(&test, instance.id(), heartbeat).await, Some(1));
    }
    let details = rowlock_queue::describe_task(&test.db, id).await.unwrap().unwrap();
    assert_eq!((details.state, details.attempt), (TaskState::Dead, 2));
    let attempts: Vec<_> = details.errors.iter().map(|failure| failure.attempt).collect();
    assert_eq!(attempts, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert!(details.errors[0].error.contains("node-went was ended before it had drained"));
    assert_eq!(test.audited().await, (0, 1, 0, 0));
}

#[tokio::test]
async fn a_rescue_uses_an_attempt_and_the_last_one_makes_the_task_dead() {
    let test = TestDb::new().await;
    let options = rowlock_queue::EnqueueOptions { max_attempts: Some(3), ..Default::default() };
    let id = test.enqueue_with(&options).await;
    for attempt in 0..3 {
        let mut instance = test.instance(&format!("m{attempt}")).await;
        let claimed = instance.claim(10).await;
        assert_eq!((claimed.tasks[0].id, claimed.tasks[0].attempt), (id, attempt));
        let heartbeat = newest_heartbeat(&test, instance.id()).await;
        assert_eq!(rescue(&test, instance.id(), heartbeat).await, Some(1));
    }
    let details = rowlock_queue::describe_task(&test.db, id).await.unwrap().unwrap();
    assert_eq!((details.state, details.attempt), (TaskState::Dead, 3));
    assert_eq!(details.errors.iter().map(|failure| failure.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(details.errors.iter().all(|failure| failure.error.contains("stopped sending heartbeats")));
    assert_eq!(details.errors[2].instance, "m2");
}

#[tokio::test]
async fn only_an_instance_with_unbroken_heartbeats_rescues_others() {
    let test = TestDb::new().await;
    test.enqueue().await;
    let mut instance = test.instance("a").await;
    instance.claim(1).await;
    // By the server's clock it has been silent for long; only the maintainer's own clock counts.
    test.run("update rowlock.heartbeat set at = at - interval '30 minutes'").await;
    for chain_since in [None, Some(std::time::Instant::now())] {
        let report = rowlock_queue::Maintainer::new().run_once(&test.db, chain_since, None).await.unwrap();
        assert_eq!(report.rescued, 0);
    }
    assert!(!instance.heartbeat(1, 1).await.gone);
}

#[tokio::test]
async fn an_instance_that_leaves_releases_its_tasks_without_using_attempts() {
    let test = TestDb::new().await;
    test.enqueue_many(300).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(200).await;
    let done = &rowlock_tests::settlements(&claimed, &Outcome::Complete { result: None })[..50];
    rowlock_queue::settle(&test.db, instance.id(), done).await.unwrap();
    assert_eq!(leave(&test.db, instance.id()).await.unwrap(), 150);
    assert!(instance.heartbeat(0, 0).await.gone, "it has ended");
    let again = test.instance("b").await.claim(1000).await;
    assert_eq!(again.tasks.len(), 250);
    assert!(again.tasks.iter().all(|task| task.attempt == 0));
}

#[tokio::test]
async fn an_instance_that_leaves_during_a_claim_releases_the_claimed_tasks() {
    let test = TestDb::new().await;
    let id = test.enqueue().await;
    let instance = test.instance("a").await;
    let mut claiming = test.session().await;
    let claim = format!(
        "begin; select rowlock.claim({}, 1, array_fill(0::bigint, array[16]), 0, 4711)",
        instance.id()
    );
    claiming.execute(sqlx::AssertSqlSafe(claim)).await.unwrap();
    let (left, ()) = tokio::join!(leave(&test.db, instance.id()), async {
        test.until_lock_wait().await;
        claiming.execute("commit").await.unwrap();
    });
    assert_eq!(left.unwrap(), 1);
    assert_eq!(test.one::<i64>("select count(*) from rowlock.lease").await, 0);
    let mut other = test.instance("b").await;
    assert_eq!(other.claim(1).await.tasks[0].id, id);
}

/// Before the fix, a fenced worker cancelled the handle of its caller, whose next worker drained at once.
#[tokio::test]
async fn after_a_fence_the_caller_starts_a_new_worker_with_the_same_handle() {
    let test = TestDb::new().await;
    let (stop, connect) = (Shutdown::new(), Connect { max_connections: 2, ..test.connect() });
    let worker = |name: &str| {
        let worker = Worker::builder(connect.clone(), "mail").name(name);
        worker.handler("send", async |_: Task| Ok(())).build().unwrap().run(stop.clone())
    };
    let fenced = tokio::spawn(worker("first"));
    let has_joined = "select exists (select 1 from rowlock.instance where ended_at is null)";
    while !test.one::<bool>(has_joined).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    test.run("update rowlock.instance set ended_at = now()").await;
    assert!(matches!(fenced.await.unwrap().unwrap(), ExitReason::Fenced(_)));
    let next = tokio::spawn(worker("second"));
    let task = test.enqueue().await;
    let completed = async {
        while test.state(task).await.as_deref() != Some("completed") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), completed).await.expect("the second worker runs it");
    stop.drain();
    assert_eq!(next.await.unwrap().unwrap(), ExitReason::Drained);
}
