//! How outcomes are batched, and sent again after errors.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rowlock_queue::Runs;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::*;

/// A database that records batches. If there is a `gate`, each batch waits for a permit of it.
#[derive(Default)]
struct Fake {
    entered: Notify,
    gate: Option<Semaphore>,
    batches: Mutex<Vec<usize>>,
    settled: Mutex<Vec<String>>,
    failures: AtomicUsize,
    /// Refuses a batch with this task in it unless it is settled as dead.
    poison: Option<&'static str>,
    /// Refuses a batch with an outcome that contains this text.
    unwritable: Option<&'static str>,
    answer_lost: bool,
    logins_refused: AtomicUsize,
    /// Refuses a batch with this task in it, with an error that names no row. Accepts the task as dead.
    rowless: Option<&'static str>,
    /// Times out with more outcomes than this.
    most: Option<usize>,
}

impl SettlementStore for Arc<Fake> {
    async fn settle(&self, batch: &[EndedAttempt]) -> Result<Vec<Settled>, Error> {
        let batch: Vec<&Settlement> = batch.iter().map(Borrow::borrow).collect();
        self.entered.notify_one();
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(Error::Unreachable("down".into()));
        }
        if self.logins_refused.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
        {
            return Err(Error::Login("password authentication failed".into()));
        }
        if self.most.is_some_and(|most| most < batch.len()) {
            return Err(Error::Timeout);
        }
        let poisoned = |s: &Settlement| {
            Some(s.task.to_string().as_str()) == self.poison && !matches!(s.outcome, Outcome::Dead { .. })
        };
        let contains_text =
            |s: &Settlement| self.unwritable.is_some_and(|text| format!("{:?}", s.outcome).contains(text));
        let rowless = |s: &Settlement| {
            Some(s.task.to_string().as_str()) == self.rowless && !matches!(s.outcome, Outcome::Dead { .. })
        };
        if batch.iter().copied().any(rowless) {
            return Err(Error::UnsupportedEncoding("a user's trigger".into()));
        }
        if batch.iter().copied().any(|one| poisoned(one) || contains_text(one)) {
            return Err(Error::Refused { code: "22021".into(), message: "no".into(), hint: None });
        }
        self.batches.lock().unwrap().push(batch.len());
        self.settled.lock().unwrap().extend(batch.iter().map(|s| format!("{} {:?}", s.task, s.outcome)));
        let answer = || if self.answer_lost { Settled::LeaseLost } else { Settled::Done };
        Ok(batch.iter().map(|_| answer()).collect())
    }
}

fn settlement(id: i64) -> EndedAttempt {
    ended(id, Outcome::Complete { result: None })
}

/// An attempt whose handler ran for two seconds.
fn ended(id: i64, outcome: Outcome) -> EndedAttempt {
    let task = id.to_string().parse().unwrap();
    let settlement = Settlement { token: rowlock_queue::Token(1), task, outcome };
    let task_type = TypeLabel::default();
    EndedAttempt { ran: Some(Duration::from_secs(2)), task_type, ..EndedAttempt::without_run(settlement) }
}

fn settler(fake: &Arc<Fake>) -> (Settler<Arc<Fake>>, Arc<Metrics>, CancellationToken) {
    let metrics = Arc::new(Metrics::new("mail").unwrap());
    let fenced = CancellationToken::new();
    let settler = Settler {
        store: Arc::clone(fake),
        metrics: Arc::clone(&metrics),
        runs: Arc::new(RunWindow::new()),
        outage: Arc::default(),
        late: LogThrottle::default(),
        fenced: fenced.clone(),
    };
    (settler, metrics, fenced)
}

#[tokio::test]
async fn outcomes_that_arrive_during_a_flush_go_with_the_next_one() {
    let fake = Arc::new(Fake { gate: Some(Semaphore::new(0)), ..Fake::default() });
    let (settler, metrics, _) = settler(&fake);
    let (send, receive) = mpsc::channel(SETTLEMENT_BUFFER);
    let feed = async move {
        send.send(settlement(0)).await.unwrap();
        // The first flush waits for its permit. Meanwhile the others collect.
        fake.entered.notified().await;
        for id in 1..=500 {
            send.send(settlement(id)).await.unwrap();
        }
        fake.gate.as_ref().unwrap().add_permits(2);
        drop(send);
        fake
    };
    let (worked, fake) = tokio::join!(settler.run(receive), feed);
    worked.unwrap();
    assert_eq!(*fake.batches.lock().unwrap(), [1, 500]);
    assert_eq!(metrics.settled_so_far("complete"), 501);
}

/// The sizes of the flushes while this many outcomes come in each of 100 milliseconds.
async fn flushes_at(per_millisecond: i64) -> Vec<usize> {
    let fake = Arc::new(Fake::default());
    let (settler, _, _) = settler(&fake);
    let (send, receive) = mpsc::channel(SETTLEMENT_BUFFER);
    let feed = async move {
        for _ in 0..100 {
            for id in 0..per_millisecond {
                send.send(settlement(id)).await.unwrap();
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    let (worked, ()) = tokio::join!(settler.run(receive), feed);
    worked.unwrap();
    fake.batches.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_more_only_while_many_outcomes_come() {
    let few = flushes_at(1).await;
    assert!(few.iter().all(|outcomes| *outcomes == 1), "{few:?}");
    let many = flushes_at(20).await;
    assert_eq!(many.iter().sum::<usize>(), 2000);
    assert!(many.len() <= 30, "{many:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_counts_as_unwritten_until_the_database_has_accepted_it() {
    let fake = Arc::new(Fake { gate: Some(Semaphore::new(0)), ..Fake::default() });
    let (settler, metrics, _) = settler(&fake);
    let (send, receive) = mpsc::channel(SETTLEMENT_BUFFER);
    for id in 1..=3 {
        send_outcome(&metrics, &send, settlement(id)).await;
    }
    drop(send);
    let accept = async {
        fake.entered.notified().await;
        assert_eq!(metrics.unwritten_now(), 3);
        fake.gate.as_ref().unwrap().add_permits(1);
    };
    let (worked, ()) = tokio::join!(settler.run(receive), accept);
    worked.unwrap();
    assert_eq!(metrics.unwritten_now(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_transient_error_is_sent_again() {
    let fake = Arc::new(Fake { failures: AtomicUsize::new(5), ..Fake::default() });
    let (settler, metrics, _) = settler(&fake);
    let (send, receive) = mpsc::channel(SETTLEMENT_BUFFER);
    send.send(settlement(1)).await.unwrap();
    drop(send);
    settler.run(receive).await.unwrap();
    assert_eq!(metrics.settled_so_far("complete"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fence_ends_settling_for_good() {
    let fake = Arc::new(Fake { failures: AtomicUsize::new(usize::MAX), ..Fake::default() });
    let (settler, _, fenced) = settler(&fake);
    let (send, receive) = mpsc::channel(SETTLEMENT_BUFFER);
    send.send(settlement(1)).await.unwrap();
    let start = Instant::now();
    let later = async {
        tokio::time::sleep(Duration::from_secs(12)).await;
        fenced.cancel();
    };
    let (worked, ()) = tokio::join!(settler.run(receive), later);
    worked.unwrap();
    assert_eq!(start.elapsed().as_secs(), 12);
    assert!(fake.batches.lock().unwrap().is_empty());
}

#[tokio::test]
async fn one_refused_outcome_does_not_hold_up_the_others() {
    let fake = Arc::new(Fake { poison: Some("2"), ..Fake::default() });
    let (settler, metrics, _) = settler(&fake);
    let (send, receive) = mpsc::channel(SETTLEMENT_BUFFER);
    for id in 1..=3 {
        send.send(settlement(id)).await.unwrap();
    }
    drop(send);
    settler.run(receive).await.unwrap();
    assert_eq!(metrics.settled_so_far("complete"), 2);
    assert_eq!(metrics.settled_so_far("dead"), 1);
}

/// A database with another encoding may refuse a handler's text, but the task is done.
#[tokio::test]
async fn a_refused_text_is_removed_and_the_outcome_stays() {
    let fake = Arc::new(Fake { unwritable: Some("ü"), ..Fake::default() });
    let (settler, metrics, _) = settler(&fake);
    let (send, receive) = mpsc::channel(SETTLEMENT_BUFFER);
    let done = Outcome::Complete { result: Some("ü".into()) };
    let retried = Outcome::Retry { delay: Duration::ZERO, error: "ü".into() };
    let dead = Outcome::Dead { error: "ü".into() };
    for (id, outcome) in (1..).zip([done, retried, dead]) {
        send.send(ended(id, outcome)).await.unwrap();
    }
    drop(send);
    settler.run(receive).await.unwrap();
    for outcome in ["complete", "retry", "dead"] {
        assert_eq!(metrics.settled_so_far(outcome), 1, "{outcome}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_names_no_row_does_not_hold_up_other_outcomes() {
    let fake = Arc::new(Fake { rowless: Some("2"), ..Fake::default() });
    let (settler, metrics, _) = settler(&fake);
    let (send, receive) = mpsc::channel(SETTLEMENT_BUFFER);
    for id in 1..=4 {
        send.send(settlement(id)).await.unwrap();
    }
    drop(send);
    // Otherwise the instance would end after a minute, and so would the next one that claims the task.
    settler.run(receive).await.unwrap();
    assert_eq!((metrics.settled_so_far("complete"), metrics.settled_so_far("dead")), (3, 1));
}

/// Before the fix, the task became dead although it had not failed.
#[tokio::test(start_paused = true)]
async fn a_task_whose_release_or_snooze_is_refused_is_not_dead() {
    let snoozed = Outcome::Snooze { delay: Duration::from_secs(1) };
    for outcome in [Outcome::Release, snoozed, Outcome::HandlerEnded] {
        for fake in
            [Fake { rowless: Some("2"), ..Fake::default() }, Fake { poison: Some("2"), ..Fake::default() }]
        {
            let (settler, metrics, _) = settler(&Arc::new(fake));
            let (send, receive) = mpsc::channel(SETTLEMENT_BUFFER);
            for id in 1..=3 {
                send.send(ended(id, outcome.clone())).await.unwrap();
            }
            drop(send);
            settler.run(receive).await.unwrap();
            let others = ["release", "snooze", "suspect"].map(|label| metrics.settled_so_far(label));
            assert_eq!(others.iter().sum::<u64>(), 2, "{outcome:?}: the others are settled");
            assert_eq!(metrics.settled_so_far("dead"), 0, "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_lost_lease_is_counted_and_not_as_an_outcome() {
    let fake = Arc::new(Fake { answer_lost: true, ..Fake::default() });
    let (settler, metrics, _) = settler(&fake);
    let (send, receive) = mpsc::channel(SETTLEMENT_BUFFER);
    send.send(settlement(1)).await.unwrap();
    drop(send);
    settler.run(receive).await.unwrap();
    assert_eq!((metrics.lease_lost_so_far(), metrics.settled_so_far("complete")), (1, 0));
}

#[tokio::test]
async fn runs_count_where_they_completed_or_failed_and_the_lease_was_held() {
    let retried = || Outcome::Retry { delay: Duration::ZERO, error: "no".into() };
    let snoozed = Outcome::Snooze { delay: Duration::from_secs(1) };
    let outcomes = [
        Outcome::Complete { result: None },
        Outcome::Complete { result: None },
        retried(),
        Outcome::Dead { error: "no".into() },
        snoozed,
        Outcome::Release,
    ];
    let attempts = || (1..).zip(outcomes.clone()).map(|(id, outcome)| ended(id, outcome));
    let counted = async |fake: Fake, attempts: Vec<EndedAttempt>| {
        let (settler, ..) = settler(&Arc::new(fake));
        let (runs, (send, receive)) = (Arc::clone(&settler.runs), mpsc::channel(SETTLEMENT_BUFFER));
        for attempt in attempts {
            send.send(attempt).await.unwrap();
        }
        drop(send);
        settler.run(receive).await.unwrap();
        runs.sums()
    };
    let held = counted(Fake::default(), attempts().collect()).await;
    assert_eq!(held, Runs { completed: 2, seconds: 4.0, seconds_squared: 8.0, failed: 2 });
    let lost = Fake { answer_lost: true, ..Fake::default() };
    assert_eq!(counted(lost, attempts().collect()).await, Runs::default());
    // A payload that cannot be read makes a task dead without a run.
    let no_run = EndedAttempt { ran: None, ..ended(1, Outcome::Dead { error: "no".into() }) };
    assert_eq!(counted(Fake::default(), vec![no_run]).await, Runs::default());
}

#[tokio::test(start_paused = true)]
async fn an_error_unrelated_to_the_outcome_makes_no_task_dead() {
    let fake = Arc::new(Fake { logins_refused: AtomicUsize::new(3), ..Fake::default() });
    let (settler, metrics, _) = settler(&fake);
    let (send, receive) = mpsc::channel(SETTLEMENT_BUFFER);
    send.send(settlement(1)).await.unwrap();
    drop(send);
    settler.run(receive).await.unwrap();
    assert_eq!((metrics.settled_so_far("complete"), metrics.settled_so_far("dead")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lasting_error_ends_the_instance_and_settles_nothing() {
    let fake = Arc::new(Fake { logins_refused: AtomicUsize::new(usize::MAX), ..Fake::default() });
    let (settler, _, _) = settler(&fake);
    let (send, receive) = mpsc::channel(SETTLEMENT_BUFFER);
    send.send(settlement(1)).await.unwrap();
    drop(send);
    let ended = settler.run(receive).await;
    assert!(matches!(ended, Err(WorkerError::Queue(Error::Login(_)))), "{ended:?}");
    assert!(fake.settled.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_times_out_is_sent_in_parts() {
    let fake = Arc::new(Fake { most: Some(100), ..Fake::default() });
    let (settler, metrics, _) = settler(&fake);
    let (send, receive) = mpsc::channel(SETTLEMENT_BUFFER);
    for id in 0..1000 {
        send.send(settlement(id)).await.unwrap();
    }
    drop(send);
    settler.run(receive).await.unwrap();
    assert_eq!(metrics.settled_so_far("complete"), 1000);
    assert_eq!(fake.batches.lock().unwrap()[0], 63, "halved until it is taken");
}
