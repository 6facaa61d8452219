//! Asynchronous failovers and restores, which lose the last sequence values, allocations and joins.

use std::time::{Duration, Instant};

use rowlock_queue::{Maintainer, heartbeat};
use rowlock_tests::{TestDb, TestInstance};

#[tokio::test]
async fn tasks_below_the_watermarks_are_claimed_after_a_failover() {
    let test = TestDb::new().await;
    let mut instance = test.instance("a").await;
    let mut maintainer = Maintainer::of_instance(instance.id(), instance.joined.queue);
    test.run("select nextval('rowlock.k_seq') from generate_series(1, 1000)").await;
    instance.claim_past(500).await;
    let noted = Instant::now();
    while noted.elapsed() < Duration::from_secs(1) {
        sweep(&instance, &mut maintainer).await;
    }

    test.run("select setval('rowlock.k_seq', 1)").await;
    let before_a_heartbeat = test.enqueue().await;
    assert!(instance.claim(1).await.tasks.is_empty(), "claims start above it");
    let end = Instant::now() + Duration::from_secs(30);
    while sweep(&instance, &mut maintainer).await == 0 {
        assert!(Instant::now() < end, "maintenance notices that the sequence went back");
    }
    instance.heartbeat(0, 1).await;
    let after_a_heartbeat = test.enqueue().await;
    assert_eq!(instance.claim(1).await.tasks[0].id, after_a_heartbeat);
    while sweep(&instance, &mut maintainer).await == 0 {
        assert!(Instant::now() < end, "not swept to where claims look");
    }
    assert_eq!(instance.claim(1).await.tasks[0].id, before_a_heartbeat);
}

async fn sweep(instance: &TestInstance, maintainer: &mut Maintainer) -> u64 {
    // Other sessions of the server may block it for a moment.
    tokio::time::sleep(Duration::from_millis(20)).await;
    maintainer.run_once(&instance.db, None, Some(&instance.watermarks)).await.unwrap().missed_moved
}

#[tokio::test]
async fn slots_allocated_just_before_a_failover_are_not_allocated_again() {
    let test = TestDb::new().await;
    let instances = [test.instance("a").await, test.instance("b").await];
    // `a` uses the ten slots that the old primary allocated; the new one has no heartbeat since then.
    test.run("update rowlock.heartbeat set at = at - interval '10 seconds'").await;
    for _ in 0..3 {
        assert_eq!(instances[1].heartbeat(0, 10).await.slots, 0, "the slots of the other are not known yet");
    }
    let holds = rowlock_queue::Heartbeat { allocated: 10, ..instances[0].says(10, 10) };
    assert_eq!(heartbeat(&test.db, &holds).await.unwrap().slots, 5, "its allocation is reduced to its share");
    assert_eq!(instances[1].heartbeat(0, 10).await.slots, 0, "the other has not confirmed it");
}

#[tokio::test]
async fn an_instance_lost_in_a_failover_is_not_confused_with_the_next_one() {
    let test = TestDb::new().await;
    let forgotten = test.instance("forgotten").await;
    let id = forgotten.id();
    test.run(format!(
        "delete from rowlock.heartbeat where instance = {id}; delete from rowlock.instance where id = {id}"
    ))
    .await;
    test.run("select setval('rowlock.instance_seq', 1, false)").await;
    let next = test.instance("next").await;
    assert_ne!(next.id(), id);
    assert!(forgotten.heartbeat(0, 1).await.gone);
    assert!(!next.heartbeat(0, 1).await.gone);
}
