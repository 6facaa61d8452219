//! Every call can be repeated after a lost answer (R1), and a lease is never given out twice (R14).

use rowlock_queue::{Outcome, Settled, Settlement, Token, settle};
use rowlock_tests::{TestDb, settlements};
use sqlx::{Executor, Row};

const COMPLETE: Outcome = Outcome::Complete { result: None };

#[tokio::test]
async fn an_outcome_sent_three_times_settles_its_task_once() {
    let test = TestDb::new().await;
    test.enqueue_many(3).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(3).await;
    let retry = Outcome::Retry { delay: std::time::Duration::ZERO, error: "no".into() };
    let one = &settlements(&claimed, &retry)[..1];
    for _ in 0..3 {
        assert_eq!(settle(&test.db, instance.id(), one).await.unwrap(), [Settled::Done]);
    }
    assert_eq!(test.state(claimed.tasks[0].id).await.as_deref(), Some("retryable"));
    for task in &claimed.tasks[1..] {
        assert_eq!(test.state(task.id).await.as_deref(), Some("running"));
    }
    assert_eq!(instance.settle(&claimed, &COMPLETE).await[1..], [Settled::Done, Settled::Done]);
    assert_eq!(test.audited().await, (2, 0, 0, 1));
    assert_eq!(test.one::<i64>("select count(*) from rowlock.task_error").await, 1);
}

#[tokio::test]
async fn settling_a_whole_lease_twice_leaves_one_receipt() {
    let test = TestDb::new().await;
    test.enqueue_many(200).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(200).await;
    for _ in 0..3 {
        assert!(instance.settle(&claimed, &COMPLETE).await.iter().all(|settled| *settled == Settled::Done));
    }
    assert_eq!(test.audited().await, (200, 0, 0, 0));
    let receipts = "select sum(n) from rowlock.receipt, unnest(ns) n";
    assert_eq!(test.one::<i64>(receipts).await, 200);
}

#[tokio::test]
async fn a_task_that_the_lease_does_not_hold_is_refused() {
    let test = TestDb::new().await;
    let (mine, other) = (test.enqueue().await, test.enqueue().await);
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    let token = claimed.token.unwrap();
    let settlement = |token, task| Settlement { token, task, outcome: COMPLETE };
    let answers = settle(&test.db, instance.id(), &[settlement(token, other), settlement(token, mine)]).await;
    let mut expected = [Settled::LeaseLost, Settled::Done];
    if claimed.tasks[0].id == other {
        expected.reverse();
    }
    assert_eq!(answers.unwrap(), expected);
    let open = if claimed.tasks[0].id == other { mine } else { other };
    let unknown = settle(&test.db, instance.id(), &[settlement(Token(1), open)]).await.unwrap();
    assert_eq!(unknown, [Settled::LeaseLost]);
    assert_eq!(test.audited().await, (1, 0, 0, 1));
}

#[tokio::test]
async fn another_instance_cannot_settle_with_a_known_token() {
    let test = TestDb::new().await;
    test.enqueue().await;
    let mut instance = test.instance("a").await;
    let thief = test.instance("b").await;
    let claimed = instance.claim(1).await;
    assert_eq!(thief.settle(&claimed, &COMPLETE).await, [Settled::LeaseLost]);
    assert_eq!(instance.settle(&claimed, &COMPLETE).await, [Settled::Done]);
}

#[tokio::test]
async fn a_repeated_claim_returns_the_same_lease() {
    let test = TestDb::new().await;
    test.enqueue_many(300).await;
    let instance = test.instance("a").await;
    let claim = format!(
        "select firsts, ns from rowlock.claim({}, 100, array_fill(0::bigint, array[16]), 0, 4711)",
        instance.id()
    );
    let mut leases = Vec::new();
    for _ in 0..3 {
        let row = sqlx::query(sqlx::AssertSqlSafe(claim.clone())).fetch_one(&test.pool).await.unwrap();
        leases.push((row.get::<Vec<i64>, _>(0), row.get::<Vec<i16>, _>(1)));
    }
    assert_eq!(leases[0].1.iter().sum::<i16>(), 100);
    assert!(leases.iter().all(|lease| *lease == leases[0]));
    assert_eq!(test.one::<i64>("select sum(n) from rowlock.ready").await, 200);
}

#[tokio::test]
async fn a_snooze_and_a_release_can_be_repeated() {
    let test = TestDb::new().await;
    test.enqueue_many(3).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(3).await;
    let token = claimed.token.unwrap();
    let snooze = Outcome::Snooze { delay: std::time::Duration::from_mins(1) };
    let both = [(0, snooze), (1, Outcome::Release)].map(|(i, outcome)| Settlement {
        token,
        task: claimed.tasks[i].id,
        outcome,
    });
    for _ in 0..2 {
        let answers = settle(&test.db, instance.id(), &both).await.unwrap();
        assert_eq!(answers, [Settled::Done, Settled::Done]);
    }
    assert_eq!(test.state(claimed.tasks[0].id).await.as_deref(), Some("retryable"));
    assert_eq!(test.state(claimed.tasks[1].id).await.as_deref(), Some("available"));
    assert_eq!(test.audited().await, (0, 0, 0, 3));
}

#[tokio::test]
async fn a_repeated_claim_waits_for_the_lease_of_the_first() {
    let test = TestDb::new().await;
    test.enqueue_many(10).await;
    let instance = test.instance("a").await;
    let token = Token::random();
    let mut first = test.session().await;
    let claim = format!(
        "begin; select rowlock.claim({}, 4, array_fill(0::bigint, array[16]), 0, {token})",
        instance.id()
    );
    first.execute(sqlx::AssertSqlSafe(claim)).await.unwrap();
    let (again, ()) = tokio::join!(
        rowlock_queue::claim_again(&test.db, instance.id(), 4, &instance.watermarks, token),
        async {
            test.until_lock_wait().await;
            first.execute("commit").await.unwrap();
        }
    );
    assert_eq!(again.unwrap().tasks.len(), 4, "those of the first");
    assert_eq!(test.one::<i64>("select count(*) from rowlock.lease").await, 1);
}

#[tokio::test]
async fn a_claim_says_since_when_its_tasks_were_available_but_not_a_repeated_one() {
    let test = TestDb::new().await;
    test.enqueue().await;
    test.run("update rowlock.ready set since = since - 60").await;
    let young = test.enqueue().await;
    let instance = test.instance("a").await;
    let token = Token::random();
    let claim = |again| {
        let (db, watermarks, id) = (&test.db, &instance.watermarks, instance.id());
        async move {
            if again {
                rowlock_queue::claim_again(db, id, 2, watermarks, token).await.unwrap()
            } else {
                rowlock_queue::claim(db, id, 2, watermarks, token).await.unwrap()
            }
        }
    };
    let tasks = claim(false).await.tasks;
    assert_eq!(tasks.len(), 2);
    for task in tasks {
        let waited = task.available_since.unwrap().elapsed().as_secs();
        // Whole seconds, and the test may be slow.
        let expected = if task.id == young { 0..=30 } else { 59..=90 };
        assert!(expected.contains(&waited), "{waited}");
    }
    assert!(claim(true).await.tasks.iter().all(|task| task.available_since.is_none()));
}
