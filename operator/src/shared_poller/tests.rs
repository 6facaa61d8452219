//! How controllers of one database share its connections and its poller.

use super::*;
use rowlock_crds::TaskQueueSpec;
use rowlock_plan::{Memory, decide};
use rowlock_queue::{ARRIVAL_SECONDS, QueueStats, Runs};
use std::future::{Ready, ready};

fn join(shared: &Arc<SharedPoller>, name: &str) -> Participant {
    Participant::join(shared, format!("{name}/db"), 0)
}

/// Publishes a queue that asks for ten pods of ten slots, and has `pods` of them.
fn asks(participant: &Participant, queue: &str, pods: u32) {
    let observed =
        ObservedQueue { pods, per_pod: 10, ..ObservedQueue::of(&TaskQueueSpec::with_workers(100)) };
    let decision = decide(&observed, Memory::default(), Duration::ZERO);
    assert_eq!(decision.pods_desired, 10);
    let demand = QueueDemand { task_queue: format!("tq-{queue}"), observed, decision };
    participant.publish_demand(Some("shop"), [(queue.to_owned(), demand)].into_iter(), 0);
}

fn pods(participant: &Participant, limit: u32) -> Vec<u32> {
    let connections = Connections { limit, others: 0, others_steady: 0, leaving: participant.leaving(None) };
    participant.shares(&connections, None).0.iter().map(|decision| decision.pods_desired).collect()
}

#[test]
fn controllers_of_one_database_compute_the_same_shares_of_its_connections() {
    let shared = Arc::new(SharedPoller::default());
    let (one, two) = (join(&shared, "b"), join(&shared, "a"));
    asks(&one, "emails", 0);
    assert_eq!(pods(&one, 100), [10]);
    asks(&two, "letters", 0);
    // Eleven pods: room for twenty-two connections next to the five reserved ones.
    assert_eq!((pods(&one, 27), pods(&two, 27)), (vec![6], vec![5]));
    // The first controller scales down to its share. The other waits for the connections.
    asks(&one, "emails", 10);
    assert_eq!((pods(&one, 27), pods(&two, 27)), (vec![6], vec![1]));
    drop(two);
    assert_eq!(pods(&one, 27), [10]);
}

/// A controller of another Secret holds the rest.
#[test]
fn a_queue_knows_what_the_queues_of_other_controllers_hold() {
    let shared = Arc::new(SharedPoller::default());
    let (one, two) = (join(&shared, "b"), join(&shared, "a"));
    asks(&one, "emails", 0);
    asks(&two, "letters", 8);
    let connections = Connections { limit: 27, others: 0, others_steady: 0, leaving: 0 };
    let (decisions, holdings) = one.shares(&connections, None);
    let limit = crate::Limit { of: "x", is_own: false, connections, operators: 3, workers: 0 };
    let given = decisions[0].pods_desired;
    let asked = crate::shortage::Asked { wanted: 10, given, room: None };
    let shortage = crate::Shortage::new(("tq-emails", given), asked, &limit, &holdings, Group::default());
    assert!(shortage.to_string().contains(". Of the pods, tq-letters holds 8. Raise x"), "{shortage}");
}

#[test]
fn leaving_pods_of_other_controllers_are_counted() {
    let shared = Arc::new(SharedPoller::default());
    let (one, two) = (join(&shared, "a"), join(&shared, "b"));
    asks(&one, "emails", 0);
    two.publish_demand(None, std::iter::empty(), 8);
    assert_eq!(pods(&one, 27), [3]);
}

/// A queue of another controller, with that many instances.
pub(crate) fn declared(queue: &str, owner: &str, instances: i64) -> Declared {
    let stats = QueueStats {
        queue: QueueId(1),
        name: queue.into(),
        paused: false,
        total_workers: 1,
        available: 0,
        scheduled: 0,
        retryable: 0,
        suspects: 0,
        oldest_suspect_seconds: None,
        due_soon: 0,
        running: 0,
        dead: 0,
        oldest_available_seconds: None,
        oldest_by_priority: [None; 4],
        completed_total: 0,
        arrivals: [0; ARRIVAL_SECONDS],
        arrivals_second: 0,
        arrivals_known: ARRIVAL_SECONDS,
        enqueued: [0; ARRIVAL_SECONDS],
        newly_dead: 0,
        instances,
        allocated: 0,
        busy: 0,
        runs: Runs::default(),
        mean_running_seconds: None,
    };
    Declared { stats, owner: owner.into(), generation: 1, backlog_full: false }
}

#[test]
fn all_controllers_know_the_owners_of_this_operator() {
    let shared = Arc::new(SharedPoller::default());
    let (one, two) = (join(&shared, "a"), join(&shared, "b"));
    let elsewhere = [declared("emails", "c1/shop/emails", 3), declared("letters", "c2/bank/letters", 4)];
    let counted = || {
        let OtherInstances { others, unreported } = one.count_other_instances(elsewhere.iter());
        (others.queues, others.pods, unreported)
    };
    assert_eq!(counted(), (2, 7, 0));
    shared.set_owners(["c1/shop/emails".to_owned()].into());
    assert_eq!(counted(), (1, 4, 3), "not reported yet");
    asks(&two, "emails", 0);
    assert_eq!(counted(), (1, 4, 0));
}

fn sees() -> Ready<Result<Snapshot, Error>> {
    ready(Ok(Snapshot::empty()))
}

fn fails() -> Ready<Result<Snapshot, Error>> {
    ready(Err(Error::Timeout))
}

#[tokio::test(start_paused = true)]
async fn one_controller_polls_for_all_until_it_fails_or_leaves() {
    let shared = Arc::new(SharedPoller::default());
    let [one, two, three] = ["a", "b", "c"].map(|name| join(&shared, name));
    let (seen, itself) = one.snapshot(None, sees()).await;
    let seen = seen.ok();
    assert!(itself && one.is_poller());
    for participant in [&two, &three] {
        let (snapshot, itself) = participant.snapshot(None, fails()).await;
        assert!(!itself && !participant.is_poller());
        assert!(Arc::ptr_eq(&snapshot.unwrap(), seen.as_ref().unwrap()));
    }
    // The poller polls each time.
    let (failed, itself) = one.snapshot(None, fails()).await;
    assert!(itself && failed.is_err() && !one.is_poller());
    assert!(two.snapshot(None, sees()).await.1 && two.is_poller(), "perhaps only the first one fails");
    assert!(!one.snapshot(None, fails()).await.1, "the other one polls now");
    drop(two);
    assert!(three.snapshot(None, sees()).await.1 && three.is_poller());
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_has_declared_a_queue_polls_at_once_and_shares_the_snapshot() {
    let shared = Arc::new(SharedPoller::default());
    let [one, two] = ["a", "b"].map(|name| join(&shared, name));
    let before = one.snapshot(None, sees()).await.0.unwrap().requested_at;
    let changed = Some(Instant::now());
    let (after, itself) = two.snapshot(changed, sees()).await;
    assert!(itself && Some(after.unwrap().requested_at) >= changed);
    assert!(one.is_poller() && !two.is_poller(), "that does not make it the poller");
    two.woken(Some(before)).await;
}

#[tokio::test(start_paused = true)]
async fn after_two_controllers_have_failed_the_others_do_not_poll() {
    let shared = Arc::new(SharedPoller::default());
    let [one, two, three] = ["a", "b", "c"].map(|name| join(&shared, name));
    // This takes time on the real clock, since tokio's is paused: the back-off grows with the time of the
    // poll.
    let slow = async |failed_again: &str| {
        std::thread::sleep(Duration::from_millis(50));
        tokio::task::yield_now().await;
        Err(if failed_again == "b" { Error::Timeout } else { Error::Unreachable(String::new()) })
    };
    let all = tokio::join!(
        one.snapshot(None, slow("a")),
        two.snapshot(None, slow("b")),
        three.snapshot(None, sees())
    );
    let ((first, _), (second, _), (third, itself)) = all;
    assert!(first.is_err() && second.is_err() && !itself);
    assert!(matches!(*third.unwrap_err(), Error::Timeout), "the last error");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_of_another_server_is_not_shared() {
    let shared = Arc::new(SharedPoller::default());
    let [one, two] = ["a", "b"].map(|name| join(&shared, name));
    let other = Snapshot { started_at: 7, ..Snapshot::empty() };
    assert_eq!(one.snapshot(None, ready(Ok(other))).await.0.unwrap().started_at, 7);
    assert!(!one.is_poller());
    assert!(two.snapshot(None, sees()).await.1 && two.is_poller());
}

#[tokio::test(start_paused = true)]
async fn the_poller_is_notified_of_queues_that_are_scaled_to_zero() {
    let shared = Arc::new(SharedPoller::default());
    let [one, two] = ["a", "b"].map(|name| join(&shared, name));
    assert!(one.snapshot(None, sees()).await.1);
    two.publish_scaled_to_zero([QueueId(7)].into());
    one.woken(None).await;
    assert_eq!(one.publish_scaled_to_zero([QueueId(3)].into()), [QueueId(3), QueueId(7)].into());
}
