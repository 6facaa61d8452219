//! How an instance uses its two connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rowlock_queue::{Connect, Db, LEASE_DURATION};
use rowlock_tests::TestDb;
use rowlock_worker::{ExitReason, Shutdown, Worker};
use sqlx::Executor;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Blocks inserts and deletes of leases and the search for due tasks; heartbeats do neither.
const HOLD_UP: &str =
    "begin; lock table rowlock.lease in share mode; lock table rowlock.delayed in access exclusive mode";

/// Whether `n` tasks are done.
const DONE: &str = "select coalesce(sum((select sum(n) from unnest(ns) n)), 0) = $ from rowlock.receipt";

/// Longer than a lease, and longer than the timeout of any statement sent before.
const HELD: Duration = LEASE_DURATION.saturating_add(Duration::from_secs(5));

fn start(connect: Connect, stop: &Shutdown) -> JoinHandle<Result<ExitReason, rowlock_worker::WorkerError>> {
    let worker = Worker::builder(connect, "mail").slots(4).handler("send", async |_| Ok(()));
    tokio::spawn(worker.build().unwrap().run(stop.clone()))
}

async fn until(test: &TestDb, what: &str, query: &str) {
    let waits = async {
        while !test.one::<bool>(query).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waits)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test]
async fn heartbeats_continue_while_other_statements_hang_for_longer_than_a_lease() {
    let test = TestDb::new().await;
    let stop = Shutdown::new();
    let connect = Connect { max_connections: 2, application_name: "held up".into(), ..test.connect() };
    let instance = start(connect, &stop);
    test.enqueue().await;
    until(&test, "a task is done", &DONE.replace('$', "1")).await;
    let mut hold_up = test.session().await;
    hold_up.execute(HOLD_UP).await.unwrap();
    test.enqueue_many(100).await;
    let heartbeats = "select count(*) from rowlock.heartbeat";
    let before: i64 = test.one(heartbeats).await;
    tokio::time::sleep(HELD).await;
    let sent = test.one::<i64>(heartbeats).await - before;
    assert!(HELD.as_secs() / 2 < sent.unsigned_abs(), "{sent} heartbeats in {HELD:?}");
    let backends = "select count(*) from pg_stat_activity where application_name = 'held up' \
        and datname = current_database()";
    let held: i64 = test.one(backends).await;
    assert!(held <= 3, "{held} connections: abandoned connections stay open");
    let lives = "select count(*) = 1 from rowlock.instance where ended_at is null";
    assert!(!instance.is_finished() && test.one::<bool>(lives).await, "it was fenced");
    hold_up.execute("rollback").await.unwrap();
    until(&test, "all are done", &DONE.replace('$', "101")).await;
    stop.drain();
    assert_eq!(instance.await.unwrap().unwrap(), ExitReason::Drained);
    assert_eq!(test.audited().await, (101, 0, 0, 0));
    assert_eq!(
        test.one::<i64>("select count(*) from rowlock.instance").await,
        1,
        "the same instance the whole time"
    );
}

#[tokio::test]
async fn an_instance_uses_two_connections_or_one_if_no_more_are_allowed() {
    for most in [2, 1] {
        let test = TestDb::new().await;
        let stop = Shutdown::new();
        let name = format!("counted {most}");
        let connect = Connect { max_connections: most, application_name: name.clone(), ..test.connect() };
        let instance = start(connect, &stop);
        test.enqueue_many(500).await;
        until(&test, "all are done", &DONE.replace('$', "500")).await;
        let count = format!(
            "select count(*) from pg_stat_activity where application_name = '{name}' \
                and datname = current_database()"
        );
        assert!(test.one::<i64>(count).await <= i64::from(most));
        stop.drain();
        assert_eq!(instance.await.unwrap().unwrap(), ExitReason::Drained);
    }
}

#[tokio::test]
async fn a_lost_connection_is_reopened_and_no_task_is_lost() {
    let test = TestDb::new().await;
    let stop = Shutdown::new();
    let instance =
        start(Connect { max_connections: 2, application_name: "cut".into(), ..test.connect() }, &stop);
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'cut' \
        and datname = current_database()";
    for round in 1..=3 {
        test.enqueue_many(20).await;
        until(&test, "all are done", &DONE.replace('$', &(20 * round).to_string())).await;
        let listens = "select count(*) = 1 from pg_stat_activity where application_name = 'cut' \
            and datname = current_database() and query like '%rowlock.heartbeat%'";
        until(&test, "it sends heartbeats on their own connection", listens).await;
        test.run(cut).await;
    }
    stop.drain();
    assert_eq!(instance.await.unwrap().unwrap(), ExitReason::Drained);
    assert_eq!(test.audited().await, (60, 0, 0, 0));
}

/// Forwards both directions and counts the messages of the client.
async fn count_messages(server: u16) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            let (mut says, mut to_client) = client.into_split();
            let (mut answers, mut asked) = server.into_split();
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut bytes = vec![0; 65536];
                while let Ok(n @ 1..) = says.read(&mut bytes).await {
                    count.fetch_add(1, Ordering::Relaxed);
                    if asked.write_all(&bytes[..n]).await.is_err() {
                        return;
                    }
                }
            });
            tokio::spawn(async move { tokio::io::copy(&mut answers, &mut to_client).await });
        }
    });
    (port, asked)
}

#[tokio::test]
async fn a_statement_takes_one_round_trip() {
    let test = TestDb::new().await;
    let url = test.connect().url;
    let server = url.rsplit_once(':').unwrap().1.split_once('/').unwrap().0;
    let (port, asked) = count_messages(server.parse().unwrap()).await;
    let url = url.replace(&format!(":{server}/"), &format!(":{port}/"));
    let db = Db::connect(&Connect { url, max_connections: 1, ..test.connect() }).await.unwrap();
    rowlock_queue::queue_stats(&db).await.unwrap();
    let before = asked.load(Ordering::Relaxed);
    for _ in 0..10 {
        rowlock_queue::queue_stats(&db).await.unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed) - before, 10);
}

/// Before the fix, an instance whose pod was deleted at that moment stayed in the database for a lease.
#[tokio::test]
async fn an_instance_that_drains_while_it_joins_leaves() {
    let test = TestDb::new().await;
    let mut lock = test.session().await;
    lock.execute("begin; lock table rowlock.instance in share mode").await.unwrap();
    let stop = Shutdown::new();
    let instance = start(Connect { max_connections: 2, ..test.connect() }, &stop);
    test.until_lock_wait().await;
    stop.drain();
    lock.execute("rollback").await.unwrap();
    assert_eq!(instance.await.unwrap().unwrap(), ExitReason::Drained);
    let gone: bool =
        test.one("select bool_and(ended_at is not null and not gone) from rowlock.instance").await;
    assert!(gone, "it did not leave");
}
