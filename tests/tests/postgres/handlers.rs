//! Handlers that close connections, and payloads that cannot be read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rowlock_queue::{Connect, EnqueueOptions};
use rowlock_tests::TestDb;
use rowlock_worker::{Shutdown, Task, Worker};
use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Enough tasks to hit the moment between two requests many times.
const TASKS: usize = 2000;

fn instance(test: &TestDb) -> Connect {
    Connect { max_connections: 2, application_name: "instance".into(), ..test.connect() }
}

async fn until_settled(test: &TestDb, tasks: i64) -> (i64, i64, i64, i64) {
    let settled = async {
        loop {
            let books @ (completed, dead, cancelled, _) = test.audited().await;
            if completed + dead + cancelled == tasks {
                return books;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), settled).await.expect("all are settled")
}

/// Answers one request after another and closes the connection after each, without announcing it. Counts
/// requests per task.
async fn hang_up(listener: TcpListener, seen: Arc<Mutex<HashMap<String, u32>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            if let Some(id) = read_request(&mut stream).await {
                *seen.lock().unwrap().entry(id).or_default() += 1;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        });
    }
}

/// The id of the request's task. A payload is `{"i":…}`, so the request ends where it ends.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"}") {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    text.lines().find_map(|line| line.strip_prefix("ce-id: ")).map(str::to_owned)
}

/// Before the fix, one or two tasks in a hundred became dead without having reached the handler.
#[tokio::test]
async fn a_handler_that_hangs_up_after_each_answer_costs_no_attempt() {
    let test = TestDb::new().await;
    let options = EnqueueOptions { max_attempts: Some(1), ..EnqueueOptions::default() };
    let payloads: Vec<String> = (0..TASKS).map(|i| format!("{{\"i\":{i}}}")).collect();
    for batch in payloads.chunks(1000) {
        rowlock_queue::enqueue_many(&test.db, "mail", "send", batch, &options).await.unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let seen = Arc::default();
    let handler = tokio::spawn(hang_up(listener, Arc::clone(&seen)));
    let stop = Shutdown::new();
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let worker = Worker::builder(instance(&test), "mail").slots(5).http_handler(&url).unwrap();
            tokio::spawn(worker.build().unwrap().run(stop.clone()))
        })
        .collect();
    let tasks = i64::try_from(TASKS).unwrap();
    assert_eq!(until_settled(&test, tasks).await, (tasks, 0, 0, 0));
    assert_eq!(seen.lock().unwrap().len(), TASKS);
    stop.drain();
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
    handler.abort();
}

/// Changes the database's encoding to `SQL_ASCII` for new sessions, which `migrate` would refuse.
async fn without_encoding(test: &TestDb) {
    let no_encoding = "update pg_database set encoding = pg_char_to_encoding('SQL_ASCII') where datname = ";
    test.run(format!("{no_encoding}'{}'", test.name)).await;
}

/// `{"n":"café"}` as a client of LATIN1 writes it.
const LATIN1: &str = r"convert_from('\x7b226e223a22636166e9227d', 'SQL_ASCII')";

/// Before the fix, no task claimed together with it ran any more, in any instance, and cancel requests were
/// ignored.
#[tokio::test]
async fn a_task_with_an_unreadable_payload_is_dead_and_blocks_no_other() {
    let test = TestDb::new().await;
    without_encoding(&test).await;
    let mut producer = test.session().await;
    let mut enqueue = async |kind: &str, payload: &str| -> i64 {
        let sql = format!("select rowlock.enqueue('mail', '{kind}', {payload}::json)");
        producer.fetch_one(AssertSqlSafe(sql)).await.unwrap().get(0)
    };
    let waiting = enqueue("wait", "'{}'").await;
    let mut good = Vec::new();
    for _ in 0..4 {
        good.push(enqueue("send", "'{}'").await);
    }
    let bad = enqueue("send", LATIN1).await;
    for _ in 0..4 {
        good.push(enqueue("send", "'{}'").await);
    }
    let stop = Shutdown::new();
    let worker = Worker::builder(instance(&test), "mail")
        .slots(10)
        .handler("send", async |_: Task| Ok(()))
        .handler("wait", async |_: Task| std::future::pending::<Result<(), rowlock_worker::Fail>>().await);
    let worker = tokio::spawn(worker.build().unwrap().run(stop.clone()));
    let settled = i64::try_from(good.len()).unwrap() + 1;
    assert_eq!(until_settled(&test, settled).await, (settled - 1, 1, 0, 1));
    let why: String = test.one(format!("select error from rowlock.task_errors({bad})")).await;
    assert!(why.starts_with("the task's payload or type cannot be read from the database: "), "{why}");
    assert!(why.contains("invalid byte sequence"), "{why}");
    rowlock_queue::cancel(&test.db, rowlock_queue::TaskId(waiting)).await.unwrap();
    assert_eq!(until_settled(&test, settled + 1).await, (settled - 1, 1, 1, 0));
    stop.drain();
    worker.await.unwrap().unwrap();
}
