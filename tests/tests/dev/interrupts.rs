//! Ctrl-C once, and twice.

use nix::sys::signal::Signal;
use rowlock_tests::{TestDb, server};

use crate::harness::{Home, until};
use crate::running_command::Dev;

/// A task that runs until the test lets its handler continue.
fn busy(home: &Home) -> (Dev, String) {
    let dev = home.dev();
    let id = home.enqueue_when_declared();
    until("it runs", || home.has_started(&id));
    (dev, id)
}

#[tokio::test]
async fn the_first_ctrl_c_lets_running_tasks_finish() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    let (mut dev, id) = busy(&home);
    dev.send(Signal::SIGINT);
    dev.wait_for("stopping: running tasks may finish; press Ctrl-C again to stop at once");
    until("the instance drains", || home.json(&["status"])[0]["allocated"] == 0);
    assert_eq!(home.state(&id), "running");
    home.go();
    let (code, output) = dev.ended();
    assert_eq!(code, 0, "{output}");
    // Before the fix, each leaving instance warned that the database refused its heartbeats.
    assert!(!output.contains("the database operation failed"), "{output}");
    home.assert_nothing_runs();
    assert_eq!(home.state(&id), "completed");
}

#[tokio::test]
async fn the_second_ctrl_c_releases_running_tasks_and_exits_immediately() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    let (mut dev, id) = busy(&home);
    dev.send(Signal::SIGINT);
    dev.wait_for("stopping:");
    dev.send(Signal::SIGINT);
    let (code, output) = dev.ended();
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("stopped before all tasks had finished"), "{output}");
    home.assert_nothing_runs();
    let details = home.json(&["task", &id]);
    assert_eq!(
        (details["state"].as_str(), details["attempt"].as_i64()),
        (Some("available"), Some(0)),
        "{details}"
    );
}

#[test]
fn ctrl_c_stops_the_bundled_postgres_too() {
    let home = Home::new();
    let (dev, _) = busy(&home);
    home.go();
    dev.stop();
    home.assert_nothing_runs();
}
