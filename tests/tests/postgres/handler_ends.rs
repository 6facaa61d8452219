//! Errors of tasks say why the handler ended, once the operator has heard it from the kubelet.

use rowlock_queue::{
    Db, EndedHandler, Outcome, Settled, TaskId, Token, claim_suspect, describe_task, join_in_pod,
    name_handler_end,
};
use rowlock_tests::{TestDb, TestInstance, declaration};

const POD: &str = "6b7ee2c4-1f1c-4a53-9c0e-5d1b1f4f3a10";
const LATER_POD: &str = "0d8a52b1-7a60-4b8a-8f0e-2f4f2a1f9d77";

async fn in_pod(test: &TestDb, db: &Db, pod: &str) -> TestInstance {
    let joined = join_in_pod(db, "mail", "worker-0", 100, Some(pod)).await.unwrap();
    let watermarks = joined.watermarks.clone();
    let mut instance = TestInstance { db: db.clone(), joined, watermarks };
    test.enqueue_many(2).await;
    let claimed = instance.claim(2).await;
    assert_eq!(claimed.tasks.len(), 2);
    assert_eq!(instance.settle(&claimed, &Outcome::HandlerEnded).await, [Settled::Done; 2]);
    instance
}

/// Runs a suspect alone, and its handler ends.
async fn end_alone(test: &TestDb, instance: &TestInstance) -> (TaskId, Settled) {
    test.run("update rowlock.suspect set due = now() - id * interval '1 microsecond'").await;
    let token = Token::random();
    let task = claim_suspect(&instance.db, instance.id(), token, false).await.unwrap().unwrap();
    let id = task.id;
    let watermark_observation =
        rowlock_queue::WatermarkObservation { sent: std::time::Instant::now(), newest: 0, least: Vec::new() };
    let claimed = rowlock_queue::Claimed {
        token: Some(token),
        tasks: vec![task],
        payloads: Vec::new(),
        contended: false,
        watermark_observation,
    };
    let settled = instance.settle(&claimed, &Outcome::HandlerEnded).await;
    (id, settled[0])
}

fn ended(how: &str) -> EndedHandler {
    EndedHandler { queue: "mail".into(), owner: "tests".into(), uid: POD.into(), how: how.into() }
}

const OOM: &str = "OOMKilled, exit code 137";

async fn errors(test: &TestDb, id: TaskId) -> Vec<String> {
    let details = describe_task(&test.db, id).await.unwrap().unwrap();
    details.errors.into_iter().map(|error| error.error).collect()
}

#[tokio::test]
async fn the_errors_of_a_dead_task_say_why_its_handler_ended() {
    let test = TestDb::new().await;
    let instance = in_pod(&test, &test.db, POD).await;
    assert_eq!(name_handler_end(&test.db, &ended(OOM)).await.unwrap(), 2);
    assert_eq!(name_handler_end(&test.db, &ended("Error, exit code 1")).await.unwrap(), 0, "once each");
    let (id, settled) = end_alone(&test, &instance).await;
    assert_eq!(settled, Settled::Done);
    assert_eq!(name_handler_end(&test.db, &ended("Error, exit code 1")).await.unwrap(), 1);
    // Only this one is left to run.
    test.run(format!("delete from rowlock.suspect where id <> {id}")).await;
    assert_eq!(end_alone(&test, &instance).await, (id, Settled::Dead));
    assert_eq!(name_handler_end(&test.db, &ended(OOM)).await.unwrap(), 1);
    assert_eq!(
        errors(&test, id).await,
        [
            "the handler ended (OOMKilled, exit code 137) while this task ran; it runs alone next; no \
             attempt was used",
            "the handler ended (Error, exit code 1) while this task ran alone (1 of 2 times); no attempt was \
             used",
            "the handler ended (OOMKilled, exit code 137) while this task ran alone, 2 times",
        ]
    );
}

#[tokio::test]
async fn errors_of_other_pods_other_owners_and_earlier_minutes_stay() {
    let test = TestDb::new().await;
    in_pod(&test, &test.db, LATER_POD).await;
    rowlock_queue::declare(&test.db, &declaration("payroll")).await.unwrap();
    assert_eq!(name_handler_end(&test.db, &ended(OOM)).await.unwrap(), 0);
    for wrong in [
        EndedHandler { owner: "another-cluster/shop/mail".into(), ..ended(OOM) },
        EndedHandler { queue: "payroll".into(), ..ended(OOM) },
        EndedHandler { queue: "nothing".into(), ..ended(OOM) },
    ] {
        let wrong = EndedHandler { uid: LATER_POD.into(), ..wrong };
        assert_eq!(name_handler_end(&test.db, &wrong).await.unwrap(), 0, "{wrong:?}");
    }
    let right = EndedHandler { uid: LATER_POD.into(), how: "x".repeat(500), ..ended(OOM) };
    test.run("update rowlock.task_error set at = at - interval '2 minutes'").await;
    assert_eq!(name_handler_end(&test.db, &right).await.unwrap(), 0);
    test.run("update rowlock.task_error set at = at + interval '2 minutes'").await;
    assert_eq!(name_handler_end(&test.db, &right).await.unwrap(), 2);
    let longest = test.one::<i32>("select max(length(error)) from rowlock.task_error").await;
    assert!(longest < 250, "{longest}");
}

#[tokio::test]
async fn only_the_owner_of_the_tables_may_say_why_a_handler_ended() {
    let test = TestDb::new().await;
    let machine = Db::connect(&test.login("machine", "'worker'").await).await.unwrap();
    in_pod(&test, &machine, POD).await;
    for (name, rights) in [("other", "'worker'"), ("shop", "'producer'"), ("viewer", "'reader'")] {
        let login = Db::connect(&test.login(name, rights).await).await.unwrap();
        let refused = name_handler_end(&login, &ended(OOM)).await.unwrap_err();
        assert!(refused.to_string().contains("permission denied"), "{name}: {refused}");
    }
    assert_eq!(name_handler_end(&test.db, &ended(OOM)).await.unwrap(), 2);
}
