use super::*;
use rowlock_crds::TaskQueueSpec;
use rowlock_plan::{Memory, decide};
use rowlock_queue::QueueStats;
use std::future::{Ready, ready};

fn take(room: &Arc<Room>, name: &str) -> Seat {
    Seat::take(room, format!("{name}/db"), 0)
}

/// A queue that always asks for ten pods of ten workers, and holds so many.
fn asks(seat: &Seat, queue: &str, pods: u32) {
    let observed =
        ObservedQueue { pods, per_pod: 10, ..ObservedQueue::of(&TaskQueueSpec::with_workers(100)) };
    let decision = decide(&observed, Memory::default(), Duration::ZERO);
    assert_eq!(decision.pods_desired, 10);
    seat.tell(Some("shop"), [(&queue.to_owned(), (&observed, &decision))].into_iter(), 0);
}

fn pods(seat: &Seat, limit: u32) -> Vec<u32> {
    let connections = Connections { limit, others: 0, others_steady: 0, leaving: seat.leaving(None) };
    seat.share(&connections, None).iter().map(|decision| decision.pods_desired).collect()
}

#[test]
fn loops_of_one_database_share_its_connections_and_come_to_the_same() {
    let room = Arc::new(Room::default());
    let (one, two) = (take(&room, "b"), take(&room, "a"));
    asks(&one, "emails", 0);
    assert_eq!(pods(&one, 100), [10]);
    asks(&two, "letters", 0);
    // Eleven pods: room for twenty-two connections beside the five kept free.
    assert_eq!((pods(&one, 27), pods(&two, 27)), (vec![6], vec![5]));
    // Who came first gives back what is not its share, and the other waits until it is free.
    asks(&one, "emails", 10);
    assert_eq!((pods(&one, 27), pods(&two, 27)), (vec![6], vec![1]));
    drop(two);
    assert_eq!(pods(&one, 27), [10]);
}

#[test]
fn pods_of_other_loops_that_leave_are_counted() {
    let room = Arc::new(Room::default());
    let (one, two) = (take(&room, "a"), take(&room, "b"));
    asks(&one, "emails", 0);
    two.tell(None, std::iter::empty(), 8);
    assert_eq!(pods(&one, 27), [3]);
}

/// A queue with so many instances.
fn lives(queue: &str, owner: &str, instances: i64) -> Declared {
    let stats = QueueStats {
        queue: QueueId(1),
        name: queue.into(),
        paused: false,
        total_workers: 1,
        available: 0,
        scheduled: 0,
        retryable: 0,
        due_soon: 0,
        running: 0,
        dead: 0,
        oldest_available_seconds: None,
        oldest_by_priority: [None; 4],
        completed_total: 0,
        arrivals_per_second: 0.0,
        instances,
        allocated: 0,
        busy: 0,
        mean_service_seconds: None,
    };
    Declared { stats, owner: owner.into(), generation: 1 }
}

#[test]
fn whose_queues_are_ours_is_known_to_all() {
    let room = Arc::new(Room::default());
    let (one, two) = (take(&room, "a"), take(&room, "b"));
    let elsewhere = [lives("emails", "c1/shop/emails", 3), lives("letters", "c2/bank/letters", 4)];
    assert_eq!(one.instances(elsewhere.iter()), (7, 0));
    room.set_owners(["c1/shop/emails".to_owned()].into());
    assert_eq!(one.instances(elsewhere.iter()), (4, 3), "its pods are to be found out in another way");
    asks(&two, "emails", 0);
    assert_eq!(one.instances(elsewhere.iter()), (4, 0));
}

fn sees() -> Ready<Result<Look, Error>> {
    ready(Ok(Look::of_nothing()))
}

fn fails() -> Ready<Result<Look, Error>> {
    ready(Err(Error::Timeout))
}

#[tokio::test(start_paused = true)]
async fn one_looks_for_all_until_it_fails_or_goes() {
    let room = Arc::new(Room::default());
    let [one, two, three] = ["a", "b", "c"].map(|name| take(&room, name));
    let (seen, itself) = one.look(None, sees()).await;
    let seen = seen.ok();
    assert!(itself && one.looks());
    for seat in [&two, &three] {
        let (look, itself) = seat.look(None, fails()).await;
        assert!(!itself && !seat.looks());
        assert!(Arc::ptr_eq(&look.unwrap(), seen.as_ref().unwrap()));
    }
    // It looks each time.
    let (failed, itself) = one.look(None, fails()).await;
    assert!(itself && failed.is_err() && !one.looks());
    assert!(two.look(None, sees()).await.1 && two.looks(), "that may be the first one's own trouble");
    assert!(!one.look(None, fails()).await.1, "it leaves it to the other now");
    drop(two);
    assert!(three.look(None, sees()).await.1 && three.looks());
}

#[tokio::test(start_paused = true)]
async fn who_has_changed_something_looks_at_once_and_all_have_it() {
    let room = Arc::new(Room::default());
    let [one, two] = ["a", "b"].map(|name| take(&room, name));
    let before = one.look(None, sees()).await.0.unwrap().asked;
    let changed = Some(Instant::now());
    let (after, itself) = two.look(changed, sees()).await;
    assert!(itself && Some(after.unwrap().asked) >= changed);
    assert!(one.looks() && !two.looks(), "that does not make it the one who looks");
    two.stirred(Some(before)).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_two_is_not_asked_by_all_others() {
    let room = Arc::new(Room::default());
    let [one, two, three] = ["a", "b", "c"].map(|name| take(&room, name));
    // Of a clock that goes on, unlike tokio's here: what took longer is left alone for longer.
    let slow = async |also: &str| {
        std::thread::sleep(Duration::from_millis(50));
        tokio::task::yield_now().await;
        Err(if also == "b" { Error::Timeout } else { Error::Unreachable(String::new()) })
    };
    let all = tokio::join!(one.look(None, slow("a")), two.look(None, slow("b")), three.look(None, sees()));
    let ((first, _), (second, _), (third, asked)) = all;
    assert!(first.is_err() && second.is_err() && !asked);
    assert!(matches!(*third.unwrap_err(), Error::Timeout), "what was said last");
}

#[tokio::test(start_paused = true)]
async fn what_is_seen_of_another_server_is_not_told() {
    let room = Arc::new(Room::default());
    let [one, two] = ["a", "b"].map(|name| take(&room, name));
    let other = Look { started_at: 7, ..Look::of_nothing() };
    assert_eq!(one.look(None, ready(Ok(other))).await.0.unwrap().started_at, 7);
    assert!(!one.looks());
    assert!(two.look(None, sees()).await.1 && two.looks());
}

#[tokio::test(start_paused = true)]
async fn the_one_who_looks_hears_who_falls_asleep() {
    let room = Arc::new(Room::default());
    let [one, two] = ["a", "b"].map(|name| take(&room, name));
    assert!(one.look(None, sees()).await.1);
    two.sleep([QueueId(7)].into());
    one.stirred(None).await;
    assert_eq!(one.sleep([QueueId(3)].into()), [QueueId(3), QueueId(7)].into());
}
