//! Tasks claimed ahead: they are lost nowhere, cost no attempt, and leave their share to other instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use rowlock_queue::{Connect, EndedPod, EnqueueOptions, Heartbeat, heartbeat, join_in_pod, rescue_pod};
use rowlock_tests::{TestDb, TestInstance};
use rowlock_worker::{ExitReason, Fail, Shutdown, Task, Worker, WorkerError};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

const SLOTS: u32 = 4;

/// Enough short tasks for the instance to know that they are short.
const SHORT: usize = 100;
const LONG: usize = 12;

/// What the handler of a test did.
struct Seen {
    calls: AtomicUsize,
    running: AtomicUsize,
    most_running: AtomicUsize,
    long: AtomicI64,
    /// A long task has started.
    long_started: Notify,
    /// Long tasks end when this has a permit for each.
    may_end: Semaphore,
}

impl Seen {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicUsize::default(),
            running: AtomicUsize::default(),
            most_running: AtomicUsize::default(),
            long: AtomicI64::default(),
            long_started: Notify::new(),
            may_end: Semaphore::new(0),
        })
    }

    async fn handle(&self, task: &Task, short: Duration) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        if task.payload.contains("long") {
            self.long.fetch_add(1, Ordering::SeqCst);
            self.long_started.notify_one();
            self.may_end.acquire().await.expect("it is never closed").forget();
        } else if !short.is_zero() {
            tokio::time::sleep(short).await;
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn start(
    test: &TestDb,
    seen: &Arc<Seen>,
    short: Duration,
    stop: &Shutdown,
) -> JoinHandle<Result<ExitReason, WorkerError>> {
    let (seen, connect) = (Arc::clone(seen), Connect { max_connections: 2, ..test.connect() });
    let worker = Worker::builder(connect, "mail").slots(SLOTS).handler("send", move |task: Task| {
        let seen = Arc::clone(&seen);
        async move {
            seen.handle(&task, short).await;
            Ok::<_, Fail>(())
        }
    });
    tokio::spawn(worker.build().unwrap().run(stop.clone()))
}

/// Short tasks, and long ones behind them. One statement makes one range, so they are claimed in this order.
async fn enqueue(test: &TestDb, short: usize, long: usize) {
    let payloads: Vec<String> =
        (0..short + long).map(|i| if i < short { "{}".into() } else { r#"{"long":1}"#.into() }).collect();
    for batch in payloads.chunks(200) {
        let options = EnqueueOptions::default();
        rowlock_queue::enqueue_many(&test.db, "mail", "send", batch, &options).await.unwrap();
    }
}

async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting).await.expect(what);
}

/// Tasks that were released are ready again behind all others.
const RELEASED: &str = "select exists (select 1 from rowlock.ready where not fresh)";

#[tokio::test]
async fn tasks_that_wait_behind_long_ones_are_released_to_other_instances() {
    let test = TestDb::new().await;
    enqueue(&test, SHORT, LONG).await;
    let (stop, busy, free) = (Shutdown::new(), Seen::new(), Seen::new());
    let first = start(&test, &busy, Duration::ZERO, &stop);
    until("it releases what it claimed ahead", async || test.one::<bool>(RELEASED).await).await;
    assert_eq!(busy.long.load(Ordering::SeqCst), i64::from(SLOTS));
    free.may_end.add_permits(LONG);
    let second = start(&test, &free, Duration::ZERO, &stop);
    let rest = i64::try_from(SHORT + LONG).unwrap() - i64::from(SLOTS);
    until("the other instance runs them", async || test.audited().await == (rest, 0, 0, i64::from(SLOTS)))
        .await;
    busy.may_end.add_permits(LONG);
    until("all are done", async || test.audited().await.0 == rest + i64::from(SLOTS)).await;
    let calls = busy.calls.load(Ordering::SeqCst) + free.calls.load(Ordering::SeqCst);
    assert_eq!(calls, SHORT + LONG, "each ran once");
    assert_eq!(test.one::<i64>("select count(*) from rowlock.task_error").await, 0);
    stop.drain();
    for worker in [first, second] {
        assert_eq!(worker.await.unwrap().unwrap(), ExitReason::Drained);
    }
}

#[tokio::test]
async fn a_drain_releases_what_was_claimed_ahead_without_an_attempt() {
    let test = TestDb::new().await;
    enqueue(&test, SHORT, LONG).await;
    let (stop, seen) = (Shutdown::new(), Seen::new());
    let worker = start(&test, &seen, Duration::ZERO, &stop);
    seen.long_started.notified().await;
    stop.drain();
    let leased =
        "select coalesce(sum((select sum(n) from unnest(l.ns) n) - cardinality(l.settled)), 0)::bigint
        from rowlock.lease l";
    let running = || seen.long.load(Ordering::SeqCst);
    until("only running tasks are leased", async || test.one::<i64>(leased).await == running()).await;
    seen.may_end.add_permits(LONG);
    assert_eq!(worker.await.unwrap().unwrap(), ExitReason::Drained);
    let (long, ran) = (running(), i64::try_from(SHORT).unwrap() + running());
    assert!((1..=i64::from(SLOTS)).contains(&long), "{long} were running");
    let open = i64::try_from(LONG).unwrap() - long;
    assert_eq!(test.audited().await, (ran, 0, 0, open));
    let unused = "select coalesce(sum(n), 0)::bigint from rowlock.ready where attempt = 0";
    assert_eq!(test.one::<i64>(unused).await, open);
}

#[tokio::test]
async fn instances_that_claim_ahead_share_a_backlog_and_never_run_more_than_their_slots() {
    const TASKS: usize = 2000;
    let test = TestDb::new().await;
    let (stop, seen) = (Shutdown::new(), [Seen::new(), Seen::new()]);
    let short = Duration::from_millis(2);
    let workers = seen.each_ref().map(|seen| start(&test, seen, short, &stop));
    let allocated = "select count(distinct instance) from rowlock.heartbeat where allocated = 4";
    until("both have slots", async || test.one::<i64>(allocated).await == 2).await;
    enqueue(&test, TASKS, 0).await;
    let all = i64::try_from(TASKS).unwrap();
    until("all are done", async || test.audited().await == (all, 0, 0, 0)).await;
    for seen in &seen {
        let (calls, most) = (seen.calls.load(Ordering::SeqCst), seen.most_running.load(Ordering::SeqCst));
        assert!(TASKS / 20 < calls, "one ran only {calls}");
        assert!(most <= SLOTS as usize, "{most} at once");
    }
    stop.drain();
    for worker in workers {
        assert_eq!(worker.await.unwrap().unwrap(), ExitReason::Drained);
    }
}

#[tokio::test]
async fn tasks_that_a_lost_instance_had_not_started_use_no_attempt() {
    const POD: &str = "6b7ee2c4-1f1c-4a53-9c0e-5d1b1f4f3a10";
    let test = TestDb::new().await;
    test.enqueue_many(5).await;
    let joined = join_in_pod(&test.db, "mail", "worker-0", 100, Some(POD)).await.unwrap();
    let watermarks = joined.watermarks.clone();
    let mut instance = TestInstance { db: test.db.clone(), joined, watermarks };
    heartbeat(&test.db, &Heartbeat { allocated: 3, ..instance.says(2, 0) }).await.unwrap();
    let (first, second) = (instance.claim(2).await, instance.claim(3).await);
    let pod = EndedPod {
        queue: "mail".into(),
        owner: "tests".into(),
        uid: POD.into(),
        how: "worker: Error, exit code 137".into(),
    };
    assert_eq!(rescue_pod(&test.db, &pod).await.unwrap(), Some(5));
    let again = test.instance("other").await.claim(10).await.tasks;
    let attempt = |id| again.iter().find(|task| task.id == id).unwrap().attempt;
    let in_order = first.tasks.iter().chain(&second.tasks).map(|task| attempt(task.id));
    assert_eq!(in_order.collect::<Vec<_>>(), [1, 1, 1, 0, 0]);
    assert_eq!(test.audited().await, (0, 0, 0, 5));
}
