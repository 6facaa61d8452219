//! A session that blocks one of the maintenance locks is named in the log, once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rowlock_tests::{TestDb, server};
use sqlx::{Executor, Row};

use crate::harness::{Home, until};
use crate::running_command::Dev;

fn metrics(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut output = String::new();
    stream.read_to_string(&mut output).unwrap();
    output
}

fn locks_held(address: SocketAddr) -> String {
    let text = metrics(address);
    let line = text.lines().find(|line| line.starts_with("rowlock_worker_locks_held{"));
    line.and_then(|line| line.rsplit(' ').next()).unwrap_or_default().to_owned()
}

/// Before the fix, no partitions were made or dropped, and no log line said so.
#[tokio::test]
async fn the_session_that_blocks_maintenance_is_logged_at_start_and_end() {
    let test = TestDb::new().await;
    let mut forgotten = test.session().await;
    let taken = "set application_name = 'a terminal'; begin; select rowlock.begin_maintenance(true)";
    forgotten.execute(taken).await.unwrap();
    let pid: i32 = forgotten.fetch_one("select pg_backend_pid()").await.unwrap().get(0);
    let home = Home::with_database(&server::url(&test.name));
    // A worker, and an operator whose queue has no instances.
    let (_handler, worker, address) = home.worker_without_dev();
    let other = TestDb::empty().await;
    let mut prepared = other.session().await;
    let second = Home::with_database(&server::url(&other.name));
    let dev = second
        .command(crate::harness::ROWLOCK, &["dev", "-f", ".", "--database-url", &server::url(&other.name)]);
    prepared.execute("begin; select from rowlock.mutex where operation = 2 for update").await.unwrap();
    let (mut worker, mut dev) = (Dev::spawn(worker), Dev::spawn(dev));
    let output = worker.wait_for("partitions are neither made nor cleaned up");
    for part in [&format!("process {pid} (user "), "a terminal", &format!("pg_terminate_backend({pid})")] {
        assert!(output.contains(part), "{output}");
    }
    until("the metric is 1", || locks_held(address) == "1");
    forgotten.execute("rollback").await.unwrap();
    worker.wait_for("the lock was released");
    until("the metric is 0 again", || locks_held(address) == "0");
    dev.wait_for("due tasks do not become available");
    prepared.execute("rollback").await.unwrap();
    dev.wait_for("the lock was released");
    dev.stop();
    let output = worker.stop();
    assert_eq!(output.matches("another session holds the lock").count(), 1, "{output}");
}
