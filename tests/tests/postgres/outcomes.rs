//! Outcomes of tasks: attempts, delays, errors, cancel and retry.

use std::time::Duration;

use rowlock_queue::{
    Cancelled, Claimed, EnqueueOptions, Maintainer, Outcome, Settled, TaskId, TaskState, cancel,
    describe_task, retry, retry_all_dead,
};
use rowlock_tests::{TestDb, TestInstance, declaration};

const COMPLETE: Outcome = Outcome::Complete { result: None };

fn retry_outcome(error: &str) -> Outcome {
    Outcome::Retry { delay: Duration::ZERO, error: error.into() }
}

async fn move_due(test: &TestDb) {
    while Maintainer::new().run_once(&test.db, None, None).await.unwrap().due_moved == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_failing_task_is_dead_after_its_last_attempt_and_keeps_every_error() {
    let test = TestDb::new().await;
    let id = test.enqueue_with(&EnqueueOptions { max_attempts: Some(3), ..Default::default() }).await;
    let mut instance = test.instance("a").await;
    for attempt in 0..3 {
        let claimed = instance.claim(1).await;
        assert_eq!(claimed.tasks[0].attempt, attempt);
        let answers = instance.settle(&claimed, &retry_outcome(&format!("error {attempt}"))).await;
        if attempt < 2 {
            assert_eq!(answers, [Settled::Done]);
            move_due(&test).await;
        } else {
            assert_eq!(answers, [Settled::Dead]);
        }
    }
    let details = describe_task(&test.db, id).await.unwrap().unwrap();
    assert_eq!((details.state, details.attempt), (TaskState::Dead, 3));
    let errors: Vec<&str> = details.errors.iter().map(|failure| failure.error.as_str()).collect();
    assert_eq!(errors, ["error 0", "error 1", "error 2"]);
    assert_eq!(retry_all_dead(&test.db, "mail").await.unwrap(), 1);
    assert_eq!(instance.claim(1).await.tasks[0].attempt, 0, "retried with all its attempts");
}

#[tokio::test]
async fn a_retry_waits_for_the_given_delay() {
    let test = TestDb::new().await;
    let id = test.enqueue().await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    instance.settle(&claimed, &Outcome::Retry { delay: Duration::from_mins(3), error: "no".into() }).await;
    let wait = format!("select extract(epoch from due - now())::float8 from rowlock.delayed where id = {id}");
    let wait: f64 = test.one(wait).await;
    assert!((170.0..=180.0).contains(&wait), "{wait}");
}

#[tokio::test]
async fn snooze_and_release_use_no_attempt() {
    let test = TestDb::new().await;
    test.enqueue().await;
    let mut instance = test.instance("a").await;
    for _ in 0..3 {
        let claimed = instance.claim(1).await;
        instance.settle(&claimed, &Outcome::Snooze { delay: Duration::ZERO }).await;
        move_due(&test).await;
        let claimed = instance.claim(1).await;
        instance.settle(&claimed, &Outcome::Release).await;
    }
    assert_eq!(instance.claim(1).await.tasks[0].attempt, 0);
}

#[tokio::test]
async fn a_nul_character_in_an_error_is_removed() {
    let test = TestDb::new().await;
    test.enqueue_many(2).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(2).await;
    assert_eq!(instance.settle(&claimed, &retry_outcome("a\0b")).await, [Settled::Done; 2]);
    let error: String = test.one("select error from rowlock.task_error limit 1").await;
    assert_eq!(error, "a\u{fffd}b");
}

#[tokio::test]
async fn a_task_can_be_cancelled_in_every_unfinished_state() {
    let test = TestDb::new().await;
    let delay = Some(Duration::from_mins(1));
    let scheduled = test.enqueue_with(&EnqueueOptions { delay, ..Default::default() }).await;
    assert_eq!(cancel(&test.db, scheduled).await.unwrap(), Cancelled::Done);
    let ids = test.enqueue_many(5).await;
    assert_eq!(cancel(&test.db, ids[2]).await.unwrap(), Cancelled::Done, "out of the middle of a range");
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(10).await;
    assert_eq!(claimed.tasks.len(), 4);
    assert_eq!(cancel(&test.db, ids[0]).await.unwrap(), Cancelled::Requested);
    assert_eq!(instance.heartbeat(4, 4).await.cancelled, [ids[0]]);
    let answers = instance.settle(&claimed, &retry_outcome("stopped")).await;
    assert_eq!(answers.iter().filter(|settled| **settled == Settled::Cancelled).count(), 1);
    assert_eq!(cancel(&test.db, ids[1]).await.unwrap(), Cancelled::Done, "while it waits for a retry");
    assert_eq!(cancel(&test.db, ids[0]).await.unwrap(), Cancelled::Finished);
    assert_eq!(cancel(&test.db, TaskId(1)).await.unwrap(), Cancelled::NotFound);
    assert_eq!(test.audited().await, (0, 0, 4, 2));
    for id in [scheduled, ids[0], ids[1], ids[2]] {
        assert_eq!(test.state(id).await.as_deref(), Some("cancelled"));
    }
}

#[tokio::test]
async fn retry_takes_dead_tasks_only() {
    let test = TestDb::new().await;
    let ids = test.enqueue_many(3).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    instance.settle(&claimed, &Outcome::Dead { error: "no".into() }).await;
    assert_eq!(retry(&test.db, &ids).await.unwrap(), 1);
    let claimed = instance.claim(10).await;
    assert_eq!(claimed.tasks.len(), 3);
    instance.settle(&claimed, &COMPLETE).await;
    assert_eq!(retry(&test.db, &ids).await.unwrap(), 0);
    assert_eq!(test.audited().await, (3, 0, 0, 0));
}

#[tokio::test]
async fn the_details_of_a_task_count_its_snoozes() {
    let test = TestDb::new().await;
    let id = test.enqueue().await;
    let mut instance = test.instance("a").await;
    let put_off = Outcome::Snooze { delay: Duration::ZERO };
    for _ in 0..3 {
        let claimed = loop {
            let claimed = instance.claim(1).await;
            if !claimed.tasks.is_empty() {
                break claimed;
            }
            Maintainer::new().run_once(&test.db, None, None).await.unwrap();
        };
        instance.settle(&claimed, &put_off).await;
    }
    // Before the fix, the details did not show how long or how often it was snoozed.
    let details = rowlock_queue::describe_task(&test.db, id).await.unwrap().unwrap();
    assert_eq!((details.snoozes, details.attempt), (3, 0));
    assert!(details.first_snoozed_at.unwrap() < details.snoozed_at.unwrap());
    assert_eq!(rowlock_queue::cancel(&test.db, id).await.unwrap(), rowlock_queue::Cancelled::Done);
    assert_eq!(
        test.one::<i64>("select count(*) from rowlock.snooze").await,
        0,
        "the count is deleted with the finished task"
    );
}

/// Claims the task once it is available.
async fn claim_again(test: &TestDb, instance: &mut TestInstance) -> Claimed {
    loop {
        let claimed = instance.claim(1).await;
        if !claimed.tasks.is_empty() {
            return claimed;
        }
        Maintainer::new().run_once(&test.db, None, None).await.unwrap();
    }
}

/// Before the fix, a handler could snooze a task for ever.
#[tokio::test]
async fn a_task_snoozed_more_often_than_allowed_is_dead() {
    let test = TestDb::new().await;
    let retry = rowlock_crds::RetryPolicy { max_snoozes: Some(2), ..Default::default() };
    let policy = rowlock_crds::Policy { retry, ..Default::default() };
    let bounded = rowlock_queue::Declaration { policy, generation: 2, ..declaration("mail") };
    rowlock_queue::declare(&test.db, &bounded).await.unwrap();
    let id = test.enqueue().await;
    let mut instance = test.instance("a").await;
    let put_off = Outcome::Snooze { delay: Duration::ZERO };
    for _ in 0..2 {
        let claimed = claim_again(&test, &mut instance).await;
        assert_eq!(instance.settle(&claimed, &put_off).await, [Settled::Done]);
    }
    let claimed = claim_again(&test, &mut instance).await;
    assert_eq!(instance.settle(&claimed, &put_off).await, [Settled::Dead]);
    let details = rowlock_queue::describe_task(&test.db, id).await.unwrap().unwrap();
    assert_eq!((details.state, details.snoozes), (TaskState::Dead, 2));
    assert!(details.errors[0].error.contains("retry.maxSnoozes"), "{details:?}");
    // A retry starts the count again.
    rowlock_queue::retry(&test.db, &[id]).await.unwrap();
    let claimed = claim_again(&test, &mut instance).await;
    assert_eq!(instance.settle(&claimed, &put_off).await, [Settled::Done]);
}
