//! What the decision about a canary is made from.

use rowlock_queue::{ComparedPods, Heartbeat, Runs, heartbeat, join_in_pod, leave, pod_runs};
use rowlock_tests::{TestDb, TestInstance};

const PODS: [&str; 4] = [
    "00000000-0000-0000-0000-00000000000a",
    "00000000-0000-0000-0000-00000000000b",
    "00000000-0000-0000-0000-00000000000c",
    "00000000-0000-0000-0000-00000000000d",
];

async fn instance(test: &TestDb, pod: &str) -> TestInstance {
    let joined = join_in_pod(&test.db, "mail", pod, 10, Some(pod)).await.unwrap();
    let watermarks = joined.watermarks.clone();
    TestInstance { db: test.db.clone(), joined, watermarks }
}

async fn reports(instance: &TestInstance, runs: Runs) {
    let says = Heartbeat { runs, ..instance.says(0, 1) };
    heartbeat(&instance.db, &says).await.unwrap();
}

fn runs(completed: u64, failed: u64) -> Runs {
    Runs { completed, seconds: 2.0, seconds_squared: 4.0, failed }
}

#[tokio::test]
async fn the_runs_of_new_and_old_pods_are_added_up_apart() {
    let test = TestDb::new().await;
    let owner: String = test.one("select owner from rowlock.queue where name = 'mail'").await;
    let compare = |new: &[&str], old: &[&str]| ComparedPods {
        queue: "mail".to_owned(),
        owner: owner.clone(),
        new: new.iter().map(|pod| (*pod).to_owned()).collect(),
        old: old.iter().map(|pod| (*pod).to_owned()).collect(),
    };
    let all = compare(&PODS[..1], &PODS[1..]);
    let none = pod_runs(&test.db, &all).await.unwrap();
    assert_eq!(none, Some((Runs::default(), Runs::default())), "no instance has joined");
    let mut gone = None;
    for (pod, reported) in PODS.iter().zip([runs(1, 7), runs(10, 0), runs(20, 1), runs(400, 400)]) {
        let instance = instance(&test, pod).await;
        reports(&instance, runs(9999, 9999)).await;
        // Only the newest heartbeat counts.
        reports(&instance, reported).await;
        gone = Some(instance);
    }
    leave(&test.db, gone.unwrap().id()).await.unwrap();
    let (new, old) = pod_runs(&test.db, &all).await.unwrap().unwrap();
    assert_eq!((new.completed, new.failed, new.seconds), (1, 7, 2.0));
    assert_eq!((old.completed, old.failed, old.seconds_squared), (30, 1, 8.0));
    let (new, old) = pod_runs(&test.db, &compare(&[], &PODS[1..2])).await.unwrap().unwrap();
    assert_eq!((new, old.completed), (Runs::default(), 10));
    let theirs = ComparedPods { owner: "another".to_owned(), ..all };
    assert_eq!(pod_runs(&test.db, &theirs).await.unwrap(), None);
}
