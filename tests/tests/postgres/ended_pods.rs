//! The end of a pod ends its leases: those of that pod, and of no other (R5).

use rowlock_queue::{Db, EndedPod, Outcome, Settled, TaskState, join_in_pod, rescue_pod};
use rowlock_tests::{TestDb, TestInstance, declaration};
use sqlx::{AssertSqlSafe, Executor};

const POD: &str = "6b7ee2c4-1f1c-4a53-9c0e-5d1b1f4f3a10";
const LATER_POD: &str = "0d8a52b1-7a60-4b8a-8f0e-2f4f2a1f9d77";

/// An instance named `worker-0` in the pod with this UID, with three running tasks.
async fn busy(test: &TestDb, db: &Db, pod: &str) -> (TestInstance, rowlock_queue::Claimed) {
    test.enqueue_many(3).await;
    let joined = join_in_pod(db, "mail", "worker-0", 100, Some(pod)).await.unwrap();
    let watermarks = joined.watermarks.clone();
    let mut instance = TestInstance { db: db.clone(), joined, watermarks };
    let claimed = instance.claim(3).await;
    assert_eq!(claimed.tasks.len(), 3);
    (instance, claimed)
}

fn ended(pod: &str) -> EndedPod {
    let how = "worker: Error, exit code 137; handler: OOMKilled, exit code 137".to_owned();
    EndedPod { queue: "mail".into(), owner: "tests".into(), uid: pod.into(), how }
}

#[tokio::test]
async fn the_end_of_a_pod_takes_its_tasks_back_at_once() {
    let test = TestDb::new().await;
    let (instance, claimed) = busy(&test, &test.db, POD).await;
    assert_eq!(rescue_pod(&test.db, &ended(POD)).await.unwrap(), Some(3));
    assert_eq!(rescue_pod(&test.db, &ended(POD)).await.unwrap(), None, "it may be called again");
    assert!(instance.heartbeat(3, 3).await.gone);
    let answers = instance.settle(&claimed, &Outcome::Complete { result: None }).await;
    assert_eq!(answers, [Settled::LeaseLost; 3]);
    let again = test.instance("other").await.claim(10).await;
    assert_eq!(again.tasks.iter().map(|task| task.attempt).collect::<Vec<_>>(), [1; 3]);
    let details = rowlock_queue::describe_task(&test.db, claimed.tasks[0].id).await.unwrap().unwrap();
    assert_eq!(details.state, TaskState::Running);
    assert_eq!(
        details.errors[0].error,
        "lease lost: instance worker-0 has ended with its pod (worker: Error, exit code 137; handler: \
         OOMKilled, exit code 137)"
    );
    assert_eq!(test.audited().await, (0, 0, 0, 3));
}

#[tokio::test]
async fn another_pod_of_the_same_name_keeps_its_tasks() {
    let test = TestDb::new().await;
    let (instance, claimed) = busy(&test, &test.db, LATER_POD).await;
    let outside = test.instance("worker-0").await;
    assert_eq!(rescue_pod(&test.db, &ended(POD)).await.unwrap(), None);
    assert!(!instance.heartbeat(3, 3).await.gone);
    assert!(!outside.heartbeat(0, 1).await.gone);
    let answers = instance.settle(&claimed, &Outcome::Complete { result: None }).await;
    assert_eq!(answers, [Settled::Done; 3]);
}

/// The worker's container has crashed before, and started again in the same pod.
#[tokio::test]
async fn every_instance_of_a_pod_ends_with_it() {
    let test = TestDb::new().await;
    let (first, _) = busy(&test, &test.db, POD).await;
    let (second, _) = busy(&test, &test.db, POD).await;
    assert_eq!(rescue_pod(&test.db, &ended(POD)).await.unwrap(), Some(6));
    assert!(first.heartbeat(3, 3).await.gone && second.heartbeat(3, 3).await.gone);
    assert_eq!(test.audited().await, (0, 0, 0, 6));
}

#[tokio::test]
async fn a_pod_that_ended_while_draining_uses_no_attempt() {
    let test = TestDb::new().await;
    let (instance, _) = busy(&test, &test.db, POD).await;
    rowlock_queue::drain(&test.db, instance.id()).await.unwrap();
    assert_eq!(rescue_pod(&test.db, &ended(POD)).await.unwrap(), Some(3));
    let again = test.instance("other").await.claim(10).await;
    assert_eq!(again.tasks.iter().map(|task| task.attempt).collect::<Vec<_>>(), [0; 3]);
}

#[tokio::test]
async fn a_statement_in_progress_delays_the_rescue_and_the_next_try_succeeds() {
    let test = TestDb::new().await;
    let (instance, _) = busy(&test, &test.db, POD).await;
    test.enqueue().await;
    let zeros = "array_fill(0::bigint, array[16])";
    let id = instance.id();
    for statement in [
        format!("select rowlock.heartbeat({id}, 0, 0, 0, 1, {zeros}, false, 0, 0, 0, 0)"),
        format!("select rowlock.claim({id}, 1, {zeros}, 0, 4711)"),
    ] {
        let mut session = test.session().await;
        session.execute(AssertSqlSafe(format!("begin; {statement}"))).await.unwrap();
        let refused = rescue_pod(&test.db, &ended(POD)).await.unwrap_err();
        assert!(refused.is_transient(), "{statement}: {refused}");
        session.execute("commit").await.unwrap();
    }
    assert_eq!(rescue_pod(&test.db, &ended(POD)).await.unwrap(), Some(4));
}

#[tokio::test]
async fn an_uncommitted_rescue_blocks_the_heartbeat() {
    let test = TestDb::new().await;
    let (instance, _) = busy(&test, &test.db, POD).await;
    let mut operator = test.session().await;
    let rescue = format!("begin; select rowlock.rescue_pod('mail', 'tests', '{POD}', 'Evicted')");
    operator.execute(AssertSqlSafe(rescue)).await.unwrap();
    let meanwhile = rowlock_queue::heartbeat(&test.db, &instance.says(3, 3)).await;
    assert!(meanwhile.is_err_and(|error| error.is_transient()), "the rescue has not committed yet");
    operator.execute("commit").await.unwrap();
    assert!(instance.heartbeat(3, 3).await.gone);
}

#[tokio::test]
async fn a_queue_of_another_owner_is_left_alone() {
    let test = TestDb::new().await;
    let (instance, _) = busy(&test, &test.db, POD).await;
    rowlock_queue::declare(&test.db, &declaration("payroll")).await.unwrap();
    for wrong in [
        EndedPod { owner: "another-cluster/shop/mail".into(), ..ended(POD) },
        EndedPod { queue: "payroll".into(), ..ended(POD) },
        EndedPod { queue: "nothing".into(), ..ended(POD) },
    ] {
        assert_eq!(rescue_pod(&test.db, &wrong).await.unwrap(), None, "{wrong:?}");
    }
    assert!(!instance.heartbeat(3, 3).await.gone);
}

#[tokio::test]
async fn only_the_owner_of_the_tables_may_report_the_end_of_a_pod() {
    let test = TestDb::new().await;
    let machine = Db::connect(&test.login("machine", "'worker'").await).await.unwrap();
    let (instance, _) = busy(&test, &machine, POD).await;
    for (name, rights) in [("other", "'worker'"), ("shop", "'producer'"), ("viewer", "'reader'")] {
        let login = Db::connect(&test.login(name, rights).await).await.unwrap();
        let refused = rescue_pod(&login, &ended(POD)).await.unwrap_err();
        assert!(refused.to_string().contains("permission denied"), "{name}: {refused}");
    }
    assert!(!instance.heartbeat(3, 3).await.gone);
    assert_eq!(rescue_pod(&test.db, &ended(POD)).await.unwrap(), Some(3));
}
