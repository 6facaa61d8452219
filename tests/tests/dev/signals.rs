//! Signals other than Ctrl-C: a closed terminal, `nohup`, and signals without a meaning for Rowlock.

use std::process::Command;

use nix::sys::signal::Signal;
use rowlock_tests::{TestDb, server};

use crate::harness::{Home, until};
use crate::running_command::Dev;

/// The tests may have been started with SIGHUP ignored, which their children inherit.
fn hangs_up(home: &Home, command: &Command, with: &[&str]) -> Command {
    let mut started = home.command(with[0], &with[1..]);
    started.arg(command.get_program()).args(command.get_args());
    started.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    started
}

const DEFAULT: [&str; 2] = ["env", "--default-signal=HUP"];

/// Before the fix, it ended immediately: its tasks waited for their lease and had used an attempt, here the
/// last one.
#[tokio::test]
async fn a_worker_whose_terminal_closes_drains() {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    let (_handler, worker, _) = home.worker_without_dev();
    let mut worker = Dev::spawn(hangs_up(&home, &worker, &DEFAULT));
    worker.wait_for("joined");
    let enqueue = ["enqueue", "mail", "send", "{\"do\": \"wait\"}", "--max-attempts", "1"];
    let ids: Vec<String> = (0..3).map(|_| home.ok(&enqueue)).collect();
    until("all run", || ids.iter().all(|id| home.has_started(id)));
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        worker.send(signal);
        worker.wait_for(&format!("ignoring {signal}"));
    }
    worker.send(Signal::SIGHUP);
    worker.wait_for("draining");
    home.go();
    let (code, output) = worker.ended();
    assert_eq!(code, 0, "{output}");
    assert!(ids.iter().all(|id| home.state(id) == "completed"), "{output}");
}

#[tokio::test]
async fn nohup_keeps_a_worker_running_after_its_terminal_closes() {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    let (_handler, worker, _) = home.worker_without_dev();
    let mut worker = Dev::spawn(hangs_up(&home, &worker, &["nohup"]));
    worker.wait_for("joined");
    worker.send(Signal::SIGHUP);
    let id = home.enqueue("ok");
    until("it is done", || home.state(&id) == "completed");
    worker.send(Signal::SIGTERM);
    let (code, output) = worker.ended();
    assert!(code == 0 && output.contains("SIGTERM") && !output.contains("SIGHUP"), "{output}");
}

#[tokio::test]
async fn dev_shuts_down_cleanly_when_its_terminal_closes() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    let dev = home
        .command(crate::harness::ROWLOCK, &["dev", "-f", ".", "--database-url", &server::url(&test.name)]);
    let mut dev = Dev::spawn(hangs_up(&home, &dev, &DEFAULT));
    dev.wait_for("metrics   http://");
    let id = home.enqueue_when_declared();
    until("it runs", || home.has_started(&id));
    dev.send(Signal::SIGHUP);
    dev.wait_for("stopping: running tasks may finish");
    home.go();
    let (code, output) = dev.ended();
    assert_eq!(code, 0, "{output}");
    home.assert_nothing_runs();
    assert_eq!(home.state(&id), "completed");
}
