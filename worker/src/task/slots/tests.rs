use super::*;
use crate::task::ahead::tests::leased;

const LIMIT: Duration = Duration::from_mins(1);

fn task(id: i64) -> TaskId {
    id.to_string().parse().unwrap()
}

#[test]
fn claims_exceed_neither_allocation_nor_capacity() {
    let slots = Slots::new(4);
    assert_eq!(slots.reserve(1000), 0, "nothing is allocated before the first heartbeat");
    slots.allocate(1, 9, false);
    assert_eq!(slots.reserve(1000), 4);
    assert_eq!(slots.reserve(1000), 0);
    slots.unreserve(4);
    slots.allocate(2, 3, false);
    assert_eq!(slots.reserve(2), 2);
    assert_eq!(slots.reserve(1000), 1);
}

#[test]
fn a_smaller_allocation_starts_no_task_and_interrupts_none() {
    let slots = Slots::new(4);
    slots.allocate(1, 2, false);
    assert_eq!(slots.reserve(2), 2);
    let root = CancellationToken::new();
    let first = slots.start(task(1), &root);
    let second = slots.start(task(2), &root);
    slots.allocate(2, 1, false);
    let snapshot = slots.snapshot();
    assert_eq!((snapshot.held, snapshot.acknowledged), (2, 2));
    drop(first);
    assert_eq!(slots.reserve(2), 0);
    assert!(!second.stopped().is_cancelled());
    drop(second);
    assert_eq!(slots.reserve(2), 1);
}

#[test]
fn a_claim_in_flight_counts_as_held() {
    let slots = Slots::new(4);
    slots.allocate(1, 4, false);
    slots.reserve(3);
    slots.allocate(2, 0, false);
    assert_eq!(slots.snapshot().held, 3);
}

#[test]
fn pausing_and_draining_stop_claims() {
    let slots = Slots::new(4);
    slots.allocate(1, 4, true);
    assert_eq!(slots.reserve(1), 0);
    slots.allocate(1, 4, false);
    slots.drain();
    assert_eq!(slots.reserve(1), 0);
    assert_eq!(slots.snapshot().wants, 0);
}

#[tokio::test]
async fn a_task_that_is_to_run_alone_waits_for_the_others_and_starts_no_more() {
    let slots = Slots::new(4);
    slots.allocate(1, 4, false);
    slots.reserve(2);
    let root = CancellationToken::new();
    let (other, _suspect) = (slots.start(task(1), &root), slots.start(task(2), &root));
    let alone = slots.alone();
    assert_eq!(slots.reserve(1), 0);
    let mut waits = pin!(slots.wait_until_alone(LIMIT));
    assert!(poll_once(waits.as_mut()).await.is_none(), "another task runs");
    drop(other);
    assert!(waits.await);
    assert_eq!(slots.reserve(1), 0);
    drop(alone);
    assert_eq!(slots.reserve(4), 3);
    let waits = slots.wait_until_alone(LIMIT);
    slots.drain();
    assert!(!waits.await, "the instance drains");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_runs_for_long_does_not_keep_the_others_waiting() {
    let slots = Slots::new(4);
    slots.allocate(1, 4, false);
    slots.reserve(2);
    let root = CancellationToken::new();
    let _running = (slots.start(task(1), &root), slots.start(task(2), &root));
    let alone = slots.alone();
    assert!(!slots.wait_until_alone(LIMIT).await);
    drop(alone);
    assert_eq!(slots.reserve(4), 2);
}

/// One poll of a future.
async fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

#[test]
fn becoming_idle_is_reported_once_until_a_heartbeat_was_busy() {
    let slots = Slots::new(4);
    slots.allocate(1, 4, false);
    assert!(slots.mark_idle());
    assert!(slots.snapshot().idle);
    assert!(!slots.mark_idle(), "idle already");
    slots.reserve(1);
    let slot = slots.start(task(1), &CancellationToken::new());
    assert!(slots.snapshot().idle, "it had a free slot since the last heartbeat");
    assert!(!slots.snapshot().idle);
    drop(slot);
    assert!(slots.mark_idle());
}

#[test]
fn a_cancel_stops_only_its_attempt() {
    let slots = Slots::new(4);
    slots.allocate(1, 4, false);
    slots.reserve(2);
    let root = CancellationToken::new();
    let (first, second) = (slots.start(task(1), &root), slots.start(task(2), &root));
    assert!(slots.stop(task(1)));
    assert!(!slots.stop(task(3)));
    assert!(first.stopped().is_cancelled() && !second.stopped().is_cancelled());
}

/// With four slots that run tasks 1 to 4, after tasks that were short, and with the tasks of `ahead` waiting.
fn busy(ahead: &[i64]) -> (Arc<Slots>, Vec<Slot>) {
    let slots = Slots::new(4);
    slots.allocate(1, 4, false);
    for _ in 0..100 {
        slots.ran(Duration::from_millis(20), 2);
    }
    slots.reserve(4);
    let running = (1..=4).map(|id| slots.start(task(id), &CancellationToken::new())).collect();
    slots.keep_ahead(ahead.iter().map(|&id| leased(id, "{}")).collect());
    (slots, running)
}

fn ids(tasks: &[LeasedTask]) -> Vec<i64> {
    tasks.iter().map(|task| task.claim.id.0).collect()
}

#[tokio::test(start_paused = true)]
async fn a_claim_ahead_asks_for_one_task_per_slot_and_again_when_half_have_started() {
    let (slots, mut running) = busy(&[]);
    assert_eq!(slots.wanted(1000, false), Wanted { slots: 0, ahead: 0 });
    assert_eq!(slots.wanted(1000, true), Wanted { slots: 0, ahead: 4 });
    drop(running.pop());
    assert_eq!(slots.wanted(1000, true), Wanted { slots: 1, ahead: 4 });
    slots.unreserve(1);
    assert_eq!(slots.wanted(2, true), Wanted { slots: 1, ahead: 1 });
    let (slots, running) = busy(&[5, 6, 7]);
    assert_eq!(slots.wanted(1000, true), Wanted { slots: 0, ahead: 0 });
    let root = CancellationToken::new();
    let mut running: Vec<_> = running.into_iter().filter_map(|slot| slot.next(&root)).collect();
    assert_eq!(running.len(), 3, "three waited");
    assert_eq!(slots.wanted(1000, true), Wanted { slots: 1, ahead: 4 });
    running.clear();
}

#[tokio::test(start_paused = true)]
async fn a_slot_takes_the_next_task_at_once_and_only_running_tasks_hold_slots() {
    let (slots, mut running) = busy(&[5, 6]);
    assert_eq!((slots.snapshot().held, slots.counts().1), (4, 2));
    let root = CancellationToken::new();
    assert!(slots.start_ahead(&root).is_none(), "all slots are in use");
    let (next, started) = running.remove(0).next(&root).unwrap();
    assert_eq!((started.claim.id, next.task(), slots.snapshot().held), (task(5), task(5), 4));
    assert!(!slots.stop(task(1)), "it has ended");
    assert!(slots.stop(task(5)) && next.stopped().is_cancelled());
    drop(next);
    let (_slot, started) = slots.start_ahead(&root).unwrap();
    assert_eq!((started.claim.id, slots.snapshot().held), (task(6), 4));
}

#[tokio::test(start_paused = true)]
async fn a_smaller_allocation_a_pause_and_a_drain_release_what_has_not_started() {
    let root = CancellationToken::new();
    let change: [fn(&Slots); 3] =
        [|slots| slots.allocate(2, 3, false), |slots| slots.allocate(2, 4, true), |slots| slots.drain()];
    for change in change {
        let (slots, mut running) = busy(&[5, 6]);
        change(&slots);
        assert!(running.remove(0).next(&root).is_none() && slots.start_ahead(&root).is_none());
        assert_eq!(ids(&slots.take_back(true)), [5, 6]);
        assert_eq!((slots.counts().1, slots.snapshot().held), (0, 3), "the others run on");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_tasks_run_than_are_allocated_whatever_waits() {
    let (slots, mut running) = busy(&[]);
    slots.allocate(2, 3, false);
    slots.keep_ahead(vec![leased(5, "{}"), leased(6, "{}")]);
    let root = CancellationToken::new();
    assert!(running.remove(0).next(&root).is_none(), "four of three ran");
    assert!(slots.start_ahead(&root).is_none(), "three run");
    assert!(running.remove(0).next(&root).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_cancelled_while_it_waits_never_starts() {
    let (slots, running) = busy(&[5]);
    assert!(slots.stop(task(5)));
    assert_eq!(slots.take_back_due(), Some(Instant::now()));
    assert_eq!(ids(&slots.take_back(true)), [5]);
    assert!(running.into_iter().all(|slot| slot.next(&CancellationToken::new()).is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_to_run_alone_does_not_wait_for_tasks_claimed_ahead() {
    let (slots, mut running) = busy(&[5, 6]);
    let alone = slots.alone();
    let root = CancellationToken::new();
    running.drain(1..).for_each(|slot| assert!(slot.next(&root).is_none()));
    assert!(slots.wait_until_alone(LIMIT).await);
    assert_eq!(ids(&slots.take_back(true)), [5, 6]);
    drop(alone);
}

#[tokio::test(start_paused = true)]
async fn an_instance_with_tasks_that_wait_is_not_idle() {
    let (slots, _running) = busy(&[5]);
    assert!(!slots.mark_idle() && !slots.snapshot().idle);
    slots.take_back(false);
    assert!(slots.mark_idle() && slots.snapshot().idle);
}
