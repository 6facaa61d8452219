//! A scale-in ends the pods with the fewest tasks. They get no more tasks before, and lose none.

use rowlock_queue::{
    Claimed, Db, Declaration, DrainPods, Heartbeat, Outcome, Settled, Token, claim_suspect, declare,
    drain_pods, heartbeat, join_in_pod,
};
use rowlock_tests::{TestDb, TestInstance, declaration};
use sqlx::{AssertSqlSafe, Executor};

/// The UID of the pod with this number.
fn uid(pod: u32) -> String {
    format!("6b7ee2c4-1f1c-4a53-9c0e-{pod:012}")
}

/// An instance in the pod with this number, with some running tasks.
async fn instance(test: &TestDb, pod: u32, tasks: u32) -> (TestInstance, Claimed) {
    let name = format!("worker-{pod}");
    let joined = join_in_pod(&test.db, "mail", &name, 100, Some(&uid(pod))).await.unwrap();
    let watermarks = joined.watermarks.clone();
    let mut instance = TestInstance { db: test.db.clone(), joined, watermarks };
    if tasks > 0 {
        test.enqueue_many(tasks as usize).await;
    }
    let claimed = instance.claim(tasks.max(1)).await;
    assert_eq!(claimed.tasks.len(), tasks as usize);
    (instance, claimed)
}

fn drain(pods: &[u32], most: u32) -> DrainPods {
    let pods = pods.iter().map(|pod| (uid(*pod), 3)).collect();
    DrainPods { queue: "mail".into(), owner: "tests".into(), pods, most }
}

/// The chosen pods, each with the tasks that it holds.
async fn chosen(test: &TestDb, drain: &DrainPods) -> Vec<(String, u32)> {
    let chosen = drain_pods(&test.db, drain).await.unwrap();
    let mut chosen: Vec<_> = chosen.into_iter().map(|pod| (pod.uid, pod.held)).collect();
    chosen.sort();
    chosen
}

async fn count_marked(test: &TestDb) -> i64 {
    test.one("select count(*) from rowlock.instance where drain_until > now()").await
}

#[tokio::test]
async fn the_pods_with_the_fewest_tasks_are_chosen_by_their_leases() {
    let test = TestDb::new().await;
    // No heartbeat tells of these tasks.
    let (_one, _) = instance(&test, 1, 3).await;
    let (two, claimed) = instance(&test, 2, 2).await;
    let (_three, _) = instance(&test, 3, 1).await;
    let (_four, _) = instance(&test, 4, 0).await;
    let all = [1, 2, 3, 4];
    assert_eq!(chosen(&test, &drain(&all, 1)).await, [(uid(4), 0)]);
    // There are fewer idle pods than have to go, so the least loaded one goes too.
    assert_eq!(chosen(&test, &drain(&all, 2)).await, [(uid(3), 1), (uid(4), 0)]);
    assert_eq!(count_marked(&test).await, 2);
    let answers = two.settle(&claimed, &Outcome::Complete { result: None }).await;
    assert_eq!(answers, [Settled::Done; 2]);
    assert_eq!(chosen(&test, &drain(&all, 2)).await, [(uid(2), 0), (uid(4), 0)]);
    assert_eq!(count_marked(&test).await, 2, "the mark of the pod that stays is removed");
}

#[tokio::test]
async fn pods_of_a_lower_rank_and_pods_without_an_instance_go_first() {
    let test = TestDb::new().await;
    let (_one, _) = instance(&test, 1, 2).await;
    let (_two, _) = instance(&test, 2, 1).await;
    // The third pod has not joined yet.
    assert_eq!(chosen(&test, &drain(&[1, 2, 3], 1)).await, [(uid(3), 0)]);
    let mut unready = drain(&[1, 2, 3], 1);
    unready.pods[0].1 = 2;
    assert_eq!(chosen(&test, &unready).await, [(uid(1), 2)]);
    assert_eq!(count_marked(&test).await, 1);
}

#[tokio::test]
async fn a_marked_instance_claims_nothing_until_the_scale_in_is_undone() {
    let test = TestDb::new().await;
    let (mut instance, running) = instance(&test, 1, 2).await;
    assert_eq!(chosen(&test, &drain(&[1], 1)).await, [(uid(1), 2)]);
    test.enqueue_many(3).await;
    assert!(instance.claim(3).await.tasks.is_empty());
    // It lives, and finishes what it runs.
    assert!(!instance.heartbeat(2, 5).await.gone);
    let answers = instance.settle(&running, &Outcome::Complete { result: None }).await;
    assert_eq!(answers, [Settled::Done; 2]);
    assert_eq!(test.instance("other").await.claim(1).await.tasks.len(), 1, "others claim");
    assert_eq!(chosen(&test, &drain(&[1], 0)).await, []);
    let claimed = instance.claim(3).await;
    assert_eq!(claimed.tasks.iter().map(|task| task.attempt).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(test.audited().await, (2, 0, 0, 3));
}

#[tokio::test]
async fn a_mark_lapses_by_itself() {
    let test = TestDb::new().await;
    let (mut instance, _) = instance(&test, 1, 0).await;
    chosen(&test, &drain(&[1], 1)).await;
    test.enqueue().await;
    assert!(instance.claim(1).await.tasks.is_empty());
    // The operator has gone, and half a minute is over.
    test.run("update rowlock.instance set drain_until = drain_until - interval '30 s'").await;
    assert_eq!(instance.claim(1).await.tasks.len(), 1);
}

#[tokio::test]
async fn a_repeated_mark_lasts_as_long_as_the_first() {
    let test = TestDb::new().await;
    instance(&test, 1, 0).await;
    let left = "select extract(epoch from drain_until - now())::int from rowlock.instance";
    chosen(&test, &drain(&[1], 1)).await;
    let version = "select xmin::text from rowlock.instance";
    let before: String = test.one(version).await;
    chosen(&test, &drain(&[1], 1)).await;
    assert_eq!(test.one::<String>(version).await, before, "a mark of this moment is not repeated");
    test.run("update rowlock.instance set drain_until = now() + interval '15 s'").await;
    chosen(&test, &drain(&[1], 1)).await;
    assert!(test.one::<i32>(left).await > 25);
}

#[tokio::test]
async fn a_marked_instance_claims_no_suspect() {
    let test = TestDb::new().await;
    let (first, running) = instance(&test, 1, 1).await;
    assert_eq!(first.settle(&running, &Outcome::HandlerEnded).await, [Settled::Done]);
    test.run("update rowlock.suspect set due = now()").await;
    chosen(&test, &drain(&[1], 1)).await;
    let suspect = async || claim_suspect(&test.db, first.id(), Token::random(), false).await.unwrap();
    assert!(suspect().await.is_none());
    chosen(&test, &drain(&[1], 0)).await;
    assert!(suspect().await.is_some());
}

/// Without the lock, the claim would neither be counted nor see the mark, so a pod that goes would have begun
/// a task.
#[tokio::test]
async fn a_claim_in_progress_is_awaited_and_counted() {
    let test = TestDb::new().await;
    let (instance, _) = instance(&test, 1, 0).await;
    test.enqueue_many(2).await;
    let mut session = test.session().await;
    let claim = format!(
        "begin; select rowlock.claim({}, 2, array_fill(0::bigint, array[16]), 0, 4711)",
        instance.id()
    );
    session.execute(AssertSqlSafe(claim)).await.unwrap();
    let operator = Db::connect(&test.connect()).await.unwrap();
    let choice = tokio::spawn(async move { drain_pods(&operator, &drain(&[1], 1)).await.unwrap() });
    test.until_lock_wait().await;
    session.execute("commit").await.unwrap();
    assert_eq!(choice.await.unwrap()[0].held, 2);
}

#[tokio::test]
async fn a_claim_during_a_choice_takes_nothing_and_does_not_fail() {
    let test = TestDb::new().await;
    let (mut instance, _) = instance(&test, 1, 0).await;
    let mut operator = test.session().await;
    let choice =
        format!("begin; select rowlock.drain_pods('mail', 'tests', array['{}'::uuid], '{{3}}', 1)", uid(1));
    operator.execute(AssertSqlSafe(choice)).await.unwrap();
    test.enqueue().await;
    let claimed = instance.claim(1).await;
    assert!(claimed.tasks.is_empty() && claimed.contended, "it asks again in a moment");
    operator.execute("commit").await.unwrap();
    assert!(instance.claim(1).await.tasks.is_empty());
    assert_eq!(test.instance("other").await.claim(1).await.tasks.len(), 1);
}

/// Otherwise the pods that stay could not run as many tasks as the queue allows until the others are gone.
#[tokio::test]
async fn a_marked_instance_leaves_its_slots_to_the_others_until_the_scale_in_is_undone() {
    let test = TestDb::new().await;
    let changed = Declaration { total_workers: 12, generation: 2, ..declaration("mail") };
    declare(&test.db, &changed).await.unwrap();
    let instances = [instance(&test, 1, 0).await.0, instance(&test, 2, 0).await.0];
    let mut slots = [(0, 0); 2];
    for (most, expected) in [(0, [6, 6]), (1, [0, 10]), (0, [6, 6])] {
        let mut drain = drain(&[1, 2], most);
        drain.pods[1].1 += 1;
        chosen(&test, &drain).await;
        let mut heartbeats = 0;
        while slots.map(|(slots, _)| slots) != expected {
            for (instance, has) in instances.iter().zip(&mut slots) {
                let says = Heartbeat { allocated: has.0, acknowledged: has.1, ..instance.says(0, 10) };
                let answer = heartbeat(&test.db, &says).await.unwrap();
                *has = (answer.slots, answer.allocation);
            }
            heartbeats += 1;
            assert!(heartbeats < 8, "{most} marked: {slots:?}");
        }
    }
}

/// `delete_queue` locks all instances by their ids.
#[tokio::test]
async fn a_choice_waits_for_another_session_without_a_lock_that_this_one_wants_next() {
    let test = TestDb::new().await;
    let mut instances = [(instance(&test, 1, 0).await.0.id(), 1), (instance(&test, 2, 0).await.0.id(), 2)];
    instances.sort_by_key(|(id, _)| id.0);
    let [(first, marked), (second, next)] = instances;
    chosen(&test, &drain(&[marked], 1)).await;
    let mut session = test.session().await;
    let lock =
        |id| AssertSqlSafe(format!("select 1 from rowlock.instance where id = {id} for update nowait"));
    session.execute("begin").await.unwrap();
    session.execute(lock(first)).await.unwrap();
    let operator = Db::connect(&test.connect()).await.unwrap();
    let mut other = drain(&[marked, next], 1);
    other.pods[0].1 += 1;
    let choice = tokio::spawn(async move { drain_pods(&operator, &other).await.unwrap() });
    test.until_lock_wait().await;
    session.execute(lock(second)).await.unwrap();
    session.execute("rollback").await.unwrap();
    assert_eq!(choice.await.unwrap()[0].uid, uid(next));
    assert_eq!(count_marked(&test).await, 1);
}

#[tokio::test]
async fn the_pods_of_another_queue_or_owner_are_left_alone() {
    let test = TestDb::new().await;
    let (mut instance, _) = instance(&test, 1, 0).await;
    declare(&test.db, &declaration("payroll")).await.unwrap();
    for wrong in [
        DrainPods { owner: "another-cluster/shop/mail".into(), ..drain(&[1], 1) },
        DrainPods { queue: "payroll".into(), ..drain(&[1], 1) },
        DrainPods { queue: "nothing".into(), ..drain(&[1], 1) },
    ] {
        drain_pods(&test.db, &wrong).await.unwrap();
        assert_eq!(count_marked(&test).await, 0, "{wrong:?}");
    }
    test.enqueue().await;
    assert_eq!(instance.claim(1).await.tasks.len(), 1);
}

#[tokio::test]
async fn only_the_owner_of_the_tables_may_choose_pods() {
    let test = TestDb::new().await;
    instance(&test, 1, 0).await;
    for (name, rights) in [("machine", "'worker'"), ("shop", "'producer'"), ("viewer", "'reader'")] {
        let login = Db::connect(&test.login(name, rights).await).await.unwrap();
        let refused = drain_pods(&login, &drain(&[1], 1)).await.unwrap_err();
        assert!(refused.to_string().contains("permission denied"), "{name}: {refused}");
    }
    assert_eq!(count_marked(&test).await, 0);
}
