//! SIGKILL to `rowlock dev` at any moment leaves no processes and loses no task.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Home, until};

#[test]
fn after_sigkill_its_processes_end_and_the_next_start_completes_the_task() {
    let home = Home::new();
    let dev = home.dev();
    until("the queue is declared", || home.run(&["status"]).out.contains("mail"));
    let done = home.enqueue("ok");
    until("one is done", || home.state(&done) == "completed");
    let id = home.enqueue("wait");
    until("the other runs", || home.has_started(&id));
    dev.kill9();
    until("the guards have ended everything", || home.processes().is_empty());
    home.go();
    let dev = home.dev();
    assert_eq!(home.state(&done), "completed");
    until("the other is done", || home.state(&id) == "completed");
    dev.stop();
    home.assert_nothing_runs();
}

#[test]
fn after_sigkill_of_dev_and_its_guards_the_next_start_ends_leftover_processes() {
    let home = Home::new();
    let dev = home.dev();
    let id = home.enqueue_when_declared();
    until("it runs", || home.has_started(&id));
    let guards: Vec<i32> = home.processes().iter().filter_map(|process| guard(process)).collect();
    // A slow one may have a second one next to it.
    assert!(3 <= guards.len(), "of the server, a worker and a handler: {:?}", home.processes());
    // All are stopped first, so that none sees the others end.
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        for guard in &guards {
            kill(Pid::from_raw(*guard), signal).unwrap();
        }
        if signal == Signal::SIGSTOP {
            dev.send(Signal::SIGSTOP);
        }
    }
    dev.kill9();
    assert!(!home.processes().is_empty(), "the processes still run");
    home.go();
    let dev = home.dev();
    until("the task is done", || home.state(&id) == "completed");
    dev.stop();
    home.assert_nothing_runs();
}

#[test]
fn after_sigkill_during_start_or_stop_the_next_start_works() {
    let home = Home::new();
    let whole = home.data().join("postgres-18");
    for file in ["postgres-18.new", "postgres-18.new/PG_VERSION", "postgres-18", "postgres-18/postmaster.pid"]
    {
        let dev = home.begin(&[]);
        // A slow poll may miss the files of `initdb` and find it finished.
        until(file, || home.data().join(file).exists() || (file.contains("new") && whole.exists()));
        dev.kill9();
    }
    let mut dev = home.dev();
    let id = home.enqueue_when_declared();
    dev.send(Signal::SIGINT);
    dev.wait_for("stopping:");
    dev.kill9();
    home.go();
    let dev = home.dev();
    until("the task is done", || home.state(&id) == "completed");
    dev.stop();
    home.assert_nothing_runs();
    assert!(!home.data().join("postgres-18.new").exists());
    let records = fs::read_dir(home.data().join("processes")).unwrap().count();
    assert_eq!(records, 0, "every record of a process is gone");
}

/// The process id of a guard.
fn guard(process: &str) -> Option<i32> {
    let (path, command) = process.split_once(' ')?;
    command.contains(" guard --signals").then(|| path.trim_start_matches("/proc/").parse().unwrap())
}
