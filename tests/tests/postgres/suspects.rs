//! Tasks whose handler ends while they run: they use no attempt, and run alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rowlock_queue::{
    Cancelled, Claimed, Connect, Db, EnqueueOptions, Maintainer, Outcome, Settled, TaskId, TaskState, Token,
    cancel, claim_suspect, describe_task, queue_stats, settle,
};
use rowlock_tests::{TestDb, TestInstance, checkout};
use rowlock_worker::{Shutdown, Worker};
use sqlx::Executor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

/// Makes every suspect due now.
const DUE: &str = "update rowlock.suspect set due = now() where due <> 'infinity'";

async fn make_due(test: &TestDb) {
    test.run(DUE).await;
}

fn options(max_attempts: u16) -> EnqueueOptions {
    EnqueueOptions { max_attempts: Some(max_attempts), ..EnqueueOptions::default() }
}

/// Claims a suspect and runs it alone.
async fn run_suspect(test: &TestDb, instance: &TestInstance) -> Claimed {
    make_due(test).await;
    claim(instance).await.expect("a suspect is due")
}

async fn claim(instance: &TestInstance) -> Option<Claimed> {
    let token = Token::random();
    let claim = claim_suspect(&instance.db, instance.id(), token, false).await.unwrap()?;
    let watermark_observation =
        rowlock_queue::WatermarkObservation { sent: std::time::Instant::now(), newest: 0, least: Vec::new() };
    Some(Claimed {
        token: Some(token),
        tasks: vec![claim],
        payloads: Vec::new(),
        contended: false,
        watermark_observation,
    })
}

/// Claims the only task, and the handler ends while it runs.
async fn make_suspect(test: &TestDb, instance: &mut TestInstance) -> TaskId {
    let id = test.enqueue_with(&options(1)).await;
    let claimed = instance.claim(1).await;
    assert_eq!(instance.settle(&claimed, &Outcome::HandlerEnded).await, [Settled::Done]);
    id
}

/// How many tasks maintenance makes available.
async fn moved(test: &TestDb) -> u64 {
    Maintainer::new().run_once(&test.db, None, None).await.unwrap().due_moved
}

async fn is_suspect(test: &TestDb, id: TaskId) -> bool {
    describe_task(&test.db, id).await.unwrap().unwrap().suspect
}

/// A handler process that is restarted whenever it ends, as the kubelet does. Counts its ends.
async fn keep_handler(port: u16, ends: Arc<AtomicU32>) {
    let script = checkout().join("tests/handlers/poison.py");
    loop {
        let mut handler = Command::new("python3")
            .arg(&script)
            .arg(port.to_string())
            .kill_on_drop(true)
            .spawn()
            .expect("the handler starts");
        handler.wait().await.unwrap();
        ends.fetch_add(1, Ordering::Relaxed);
    }
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

fn worker(test: &TestDb, port: u16, slots: u32, metrics: u16) -> Worker {
    let connect = Connect { max_connections: 2, application_name: "instance".into(), ..test.connect() };
    let worker = Worker::builder(connect, "mail").slots(slots).listen(([127, 0, 0, 1], metrics).into());
    worker.http_handler(&format!("http://127.0.0.1:{port}/")).unwrap().build().unwrap()
}

/// How many tasks a worker has claimed, and how many of them it has not settled yet, by its metrics.
async fn claimed_and_unsettled(port: u16) -> (i64, i64) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let sum = |name: &str| -> i64 {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum()
    };
    let claimed = sum("rowlock_worker_tasks_claimed_total");
    (claimed, claimed - sum("rowlock_worker_tasks_settled_total"))
}

/// Waits until all tasks are settled, without the delays between the runs of a suspect.
async fn until_settled(test: &TestDb, tasks: i64) -> (i64, i64, i64, i64) {
    let settled = async {
        loop {
            let books @ (completed, dead, cancelled, _) = test.audited().await;
            if completed + dead + cancelled == tasks {
                return books;
            }
            make_due(test).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), settled).await.expect("all are settled")
}

/// Before the fix, each end of the handler used an attempt of every task that ran in it.
#[tokio::test]
async fn a_poison_task_among_a_thousand_costs_none_of_them_an_attempt() {
    let test = TestDb::new().await;
    let mut payloads = vec!["{\"ms\": 2}".to_owned(); 1001];
    payloads[500] = "{\"poison\": true}".to_owned();
    for batch in payloads.chunks(1000) {
        rowlock_queue::enqueue_many(&test.db, "mail", "send", batch, &options(1)).await.unwrap();
    }
    let (port, metrics, ends) = (free_port().await, free_port().await, Arc::default());
    let handler = tokio::spawn(keep_handler(port, Arc::clone(&ends)));
    let stop = Shutdown::new();
    let running = tokio::spawn(worker(&test, port, 6, metrics).run(stop.clone()));
    assert_eq!(until_settled(&test, 1001).await, (1000, 1, 0, 0));
    // The last settlement is counted a moment after its commit.
    let counted = async {
        while !matches!(claimed_and_unsettled(metrics).await, (1001.., 0)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), counted).await.expect("suspects count as claimed, too");
    // Once among others, and twice alone.
    assert_eq!(ends.load(Ordering::Relaxed), 3);
    assert_eq!(test.one::<i64>("select count(*) from rowlock.task_error where attempt > 0").await, 1);
    assert_eq!(test.one::<i64>("select count(*) from rowlock.suspect").await, 0);
    let dead = test.one::<i64>("select id from rowlock.dead").await;
    let details = describe_task(&test.db, TaskId(dead)).await.unwrap().unwrap();
    let errors: Vec<&str> = details.errors.iter().map(|failure| failure.error.as_str()).collect();
    assert_eq!(
        errors,
        [
            "the handler ended while this task ran; it runs alone next; no attempt was used",
            "the handler ended while this task ran alone (1 of 2 times); no attempt was used",
            "the handler ended while this task ran alone, 2 times",
        ]
    );
    stop.drain();
    running.await.unwrap().unwrap();
    handler.abort();
}

/// A handler that reads requests and hangs up before it answers.
async fn hang_up(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut bytes = [0; 1024];
            let _ = stream.read(&mut bytes).await;
        });
    }
}

#[tokio::test]
async fn a_connection_that_breaks_while_the_handler_lives_uses_an_attempt() {
    let test = TestDb::new().await;
    test.enqueue_with(&options(1)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let handler = tokio::spawn(hang_up(listener));
    let stop = Shutdown::new();
    let running = tokio::spawn(worker(&test, port, 1, free_port().await).run(stop.clone()));
    assert_eq!(until_settled(&test, 1).await, (0, 1, 0, 0));
    let error: String = test.one("select error from rowlock.task_error").await;
    assert!(error.starts_with("no complete answer from the handler"), "{error}");
    stop.drain();
    running.await.unwrap().unwrap();
    handler.abort();
}

#[tokio::test]
async fn a_suspect_is_claimed_alone_and_one_at_a_time() {
    let test = TestDb::new().await;
    let (mut first, second) = (test.instance("a").await, test.instance("b").await);
    for _ in 0..2 {
        make_suspect(&test, &mut first).await;
    }
    test.run("update rowlock.suspect set due = now() + interval '1 minute'").await;
    assert!(claim(&first).await.is_none(), "none is due");
    test.enqueue().await;
    make_due(&test).await;
    assert!(!first.heartbeat(1, 1).await.suspect_due, "an idle instance takes it first");
    assert!(first.heartbeat(0, 1).await.suspect_due);
    test.run("update rowlock.suspect set due = now() - interval '3 seconds'").await;
    assert!(first.heartbeat(1, 1).await.suspect_due);
    assert_eq!(first.claim(10).await.tasks.len(), 1, "an ordinary claim takes no suspect");
    let claimed = claim(&first).await.unwrap();
    assert!(claim(&second).await.is_none(), "the other one waits until the first has run");
    assert!(!second.heartbeat(0, 1).await.suspect_due);
    assert_eq!(queue_stats(&test.db).await.unwrap()[0].due_soon, 1);
    assert_eq!(first.settle(&claimed, &Outcome::Complete { result: None }).await, [Settled::Done]);
    assert!(claim(&second).await.is_some());
    make_suspect(&test, &mut first).await;
    make_due(&test).await;
    assert!(claim(&first).await.is_none());
    for name in ["c", "d", "e", "f", "g", "h"] {
        test.instance(name).await;
    }
    assert!(claim(&first).await.is_some(), "one for every four instances");
}

#[tokio::test]
async fn a_suspect_that_ends_the_handler_alone_twice_is_dead() {
    let test = TestDb::new().await;
    let mut instance = test.instance("a").await;
    let id = make_suspect(&test, &mut instance).await;
    let details = describe_task(&test.db, id).await.unwrap().unwrap();
    assert_eq!((details.state, details.attempt, details.suspect), (TaskState::Retryable, 0, true));
    let claimed = run_suspect(&test, &instance).await;
    assert_eq!(instance.settle(&claimed, &Outcome::HandlerEnded).await, [Settled::Done]);
    let wait = "select extract(epoch from due - now())::float8 from rowlock.suspect";
    assert!((50.0..=60.0).contains(&test.one::<f64>(wait).await), "it waits longer");
    assert_eq!(instance.settle(&claimed, &Outcome::HandlerEnded).await, [Settled::Done], "sent again");
    let claimed = run_suspect(&test, &instance).await;
    assert_eq!(instance.settle(&claimed, &Outcome::HandlerEnded).await, [Settled::Dead]);
    let details = describe_task(&test.db, id).await.unwrap().unwrap();
    assert_eq!((details.state, details.attempt, details.suspect), (TaskState::Dead, 1, false));
    assert_eq!(details.errors.len(), 3);
}

#[tokio::test]
async fn an_answer_clears_a_suspect_and_a_release_or_a_snooze_does_not() {
    let test = TestDb::new().await;
    let mut instance = test.instance("a").await;
    let id = make_suspect(&test, &mut instance).await;
    let snooze = |delay| Outcome::Snooze { delay };
    for outcome in [Outcome::Release, snooze(Duration::ZERO), snooze(Duration::from_hours(2))] {
        let claimed = run_suspect(&test, &instance).await;
        assert_eq!(instance.settle(&claimed, &outcome).await, [Settled::Done]);
        assert_eq!(moved(&test).await, 0);
        assert!(is_suspect(&test, id).await);
        assert!(instance.claim(1).await.tasks.is_empty());
    }
    assert!(claim(&instance).await.is_none(), "it is snoozed for two hours");
    let claimed = run_suspect(&test, &instance).await;
    let failed = Outcome::Retry { delay: Duration::ZERO, error: "HTTP 500".into() };
    assert_eq!(instance.settle(&claimed, &failed).await, [Settled::Dead]);
    assert!(!is_suspect(&test, id).await);
}

#[tokio::test]
async fn a_suspect_can_be_cancelled_while_it_waits_and_while_it_runs() {
    let test = TestDb::new().await;
    let mut instance = test.instance("a").await;
    let id = make_suspect(&test, &mut instance).await;
    assert_eq!(cancel(&test.db, id).await.unwrap(), Cancelled::Done);
    let id = make_suspect(&test, &mut instance).await;
    let claimed = run_suspect(&test, &instance).await;
    assert_eq!(cancel(&test.db, id).await.unwrap(), Cancelled::Requested);
    assert_eq!(instance.settle(&claimed, &Outcome::HandlerEnded).await, [Settled::Cancelled]);
    assert_eq!(test.one::<i64>("select count(*) from rowlock.suspect").await, 0);
    assert_eq!(test.audited().await, (0, 0, 2, 0));
}

/// A claim whose answer was lost returns the same lease.
#[tokio::test]
async fn a_suspect_is_claimed_once_by_a_claim_that_is_sent_twice() {
    let test = TestDb::new().await;
    let mut instance = test.instance("a").await;
    let id = make_suspect(&test, &mut instance).await;
    make_due(&test).await;
    let token = Token::random();
    for again in [false, true] {
        let claimed = claim_suspect(&test.db, instance.id(), token, again).await.unwrap();
        assert_eq!(claimed.map(|claim| claim.id), Some(id));
    }
    assert_eq!(test.one::<i64>("select count(*) from rowlock.lease").await, 1);
}

/// Part of a claimed range completes, and the rest was running when the handler ended.
#[tokio::test]
async fn one_settlement_may_complete_some_tasks_of_a_range_and_suspect_the_others() {
    let test = TestDb::new().await;
    test.enqueue_many(10).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(10).await;
    let mut outcomes = rowlock_tests::settlements(&claimed, &Outcome::HandlerEnded);
    for settlement in &mut outcomes[..7] {
        settlement.outcome = Outcome::Complete { result: None };
    }
    let answers = settle(&test.db, instance.id(), &outcomes).await.unwrap();
    assert_eq!(answers, [Settled::Done; 10]);
    assert_eq!(test.audited().await, (7, 0, 0, 3));
    assert_eq!(test.one::<i64>("select count(*) from rowlock.lease").await, 0);
    for _ in 0..3 {
        let suspect = run_suspect(&test, &instance).await;
        instance.settle(&suspect, &Outcome::Complete { result: None }).await;
    }
    assert_eq!(test.audited().await, (10, 0, 0, 0));
}

/// All workers may be of a release that does not claim suspects, or end before it has run.
#[tokio::test]
async fn a_suspect_without_an_answer_for_an_hour_becomes_available() {
    let test = TestDb::new().await;
    let mut instance = test.instance("a").await;
    let id = make_suspect(&test, &mut instance).await;
    let ago = |minutes: u32| {
        format!(
            "with due as (update rowlock.suspect set until = until - interval '{minutes} minutes')
             update rowlock.delayed set due = due - interval '{minutes} minutes'"
        )
    };
    test.run(ago(59)).await;
    assert_eq!(moved(&test).await, 0);
    for _ in 0..2 {
        let claimed = run_suspect(&test, &instance).await;
        assert_eq!(instance.settle(&claimed, &Outcome::Release).await, [Settled::Done]);
    }
    assert_eq!(moved(&test).await, 0);
    test.run(ago(2)).await;
    assert_eq!(moved(&test).await, 1);
    assert!(!is_suspect(&test, id).await);
    assert_eq!(instance.claim(1).await.tasks.len(), 1);
}

/// Two claims at once, of which one began before the other had committed.
#[tokio::test]
async fn two_claims_at_once_take_one_suspect() {
    let test = TestDb::new().await;
    let (mut first, second) = (test.instance("a").await, test.instance("b").await);
    for _ in 0..2 {
        make_suspect(&test, &mut first).await;
    }
    make_due(&test).await;
    // The claim of a session named "late" waits before it takes the lock.
    test.run(
        "create or replace function rowlock.try_mutex(operation int, queue int) returns boolean
         language plpgsql as $$
         begin
           if current_setting('application_name') = 'late' then
             perform pg_advisory_xact_lock(1);
           end if;
           perform 1 from rowlock.mutex m
             where m.operation = try_mutex.operation and m.queue = try_mutex.queue
             for update skip locked;
           return found;
         end $$;
         insert into rowlock.mutex select 8, q.id from rowlock.queue q on conflict do nothing",
    )
    .await;
    let mut lock = test.session().await;
    lock.execute("select pg_advisory_lock(1)").await.unwrap();
    let late = Connect { application_name: "late".into(), ..test.connect() };
    let late = Db::connect(&late).await.unwrap();
    let claimed =
        tokio::spawn(async move { claim_suspect(&late, second.id(), Token::random(), false).await });
    test.until_lock_wait().await;
    assert!(claim(&first).await.is_some());
    lock.execute("select pg_advisory_unlock(1)").await.unwrap();
    assert!(claimed.await.unwrap().unwrap().is_none(), "one runs alone already");
}

/// Before the fix, maintenance read all suspects that were due, in each of the databases' passes.
#[tokio::test]
async fn maintenance_does_not_read_the_suspects_that_wait() {
    const SUSPECTS: i64 = 4000;
    let test = TestDb::new().await;
    let mut instance = test.instance("a").await;
    for _ in 0..SUSPECTS / 1000 {
        test.enqueue_many(1000).await;
        let claimed = instance.claim(1000).await;
        assert_eq!(claimed.tasks.len(), 1000);
        instance.settle(&claimed, &Outcome::HandlerEnded).await;
    }
    make_due(&test).await;
    test.run("vacuum analyze rowlock.delayed, rowlock.suspect").await;
    let plan: serde_json::Value = test
        .one("explain (analyze, buffers, format json) select * from rowlock.move_due('-infinity', 1000)")
        .await;
    let pages = plan[0]["Plan"]["Shared Hit Blocks"].as_i64().unwrap();
    eprintln!("{pages} pages");
    // A new session reads some hundred pages of the catalog. A look at each suspect would read more.
    assert!(pages < SUSPECTS / 2, "{pages} pages");
}
