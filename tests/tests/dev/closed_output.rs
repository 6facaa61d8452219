//! Output that cannot be written: the reader has exited, the disk is full, or output is closed.

use std::fs::File;
use std::io::{BufRead, BufReader, pipe};
use std::process::{Child, Command};

use rowlock_queue::ScalingRecord;
use rowlock_tests::{TestDb, server};

use crate::harness::{Home, ROWLOCK, Said, eventually};

/// Every command that ends by itself, in an order in which each has something to do. `ID` is a dead task.
const COMMANDS: [&[&str]; 13] = [
    &["migrate"],
    &["status"],
    &["enqueue", "mail", "send", "{}"],
    &["tasks"],
    &["task", "ID"],
    &["retry", "ID"],
    &["cancel", "ID"],
    &["why", "mail"],
    &["sidecar", "-f", "mail.yaml"],
    &["simulate", "-f", "mail.yaml", "--load", "load.csv", "--spread", "1m"],
    &["status", "--output", "json"],
    &["task", "ID", "--output", "json"],
    &["delete", "mail", "--force"],
];

/// A database with a dead task, and its id.
async fn with_dead() -> (TestDb, Home, String) {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    let id = home.enqueue("ok");
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    instance.settle(&claimed, &rowlock_queue::Outcome::Dead { error: "no".into() }).await;
    rowlock_queue::leave(&test.db, instance.id()).await.unwrap();
    let decision = ScalingRecord {
        queue: "mail".into(),
        owner: "tests".into(),
        age_seconds: 1.5,
        pods_before: 0,
        pods: 1,
        workers: 1,
        reason: "Backlog".into(),
        demand: None,
        figures: None,
        detail: None,
    };
    rowlock_queue::record_scaling_decisions(&test.db, &[decision]).await.unwrap();
    let target = "spec:\n  targetRef: { name: shop }\n  database: { secretRef: { name: shop-pg } }\n";
    home.edit("spec:\n", target);
    let load = rowlock_tests::checkout().join("examples/load.csv");
    home.write("load.csv", &std::fs::read_to_string(load).unwrap());
    (test, home, id)
}

fn command(home: &Home, test: &TestDb, id: &str, arguments: &[&str]) -> Command {
    let arguments: Vec<&str> = arguments.iter().map(|word| if *word == "ID" { id } else { word }).collect();
    let mut command = home.command(ROWLOCK, &arguments);
    command.env("ROWLOCK_DATABASE_URL", server::url(&test.name));
    command
}

#[tokio::test]
async fn a_command_completes_although_its_reader_exited() {
    let (test, home, id) = with_dead().await;
    for arguments in COMMANDS {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let printed = Said::of(&command(&home, &test, &id, arguments).stdout(writer).output().unwrap());
        assert_eq!((printed.code, printed.err.as_str()), (0, ""), "{arguments:?}");
    }
}

/// A failed print after one task does not skip the others.
#[tokio::test]
async fn all_tasks_are_cancelled_although_the_reader_exited() {
    let (test, home, _) = with_dead().await;
    let ids: Vec<String> = (0..3).map(|_| home.enqueue("ok")).collect();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let arguments = ["cancel", &ids[0], &ids[1], &ids[2]];
    let printed = Said::of(&command(&home, &test, "", &arguments).stdout(writer).output().unwrap());
    assert_eq!((printed.code, printed.err.as_str()), (0, ""));
    assert!(ids.iter().all(|id| home.state(id) == "cancelled"));
}

#[tokio::test]
async fn a_result_that_cannot_be_written_is_a_failure() {
    let (test, home, id) = with_dead().await;
    for arguments in COMMANDS {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let printed = Said::of(&command(&home, &test, &id, arguments).stdout(full).output().unwrap());
        assert_eq!(printed.code, 1, "{arguments:?}: {printed:?}");
        assert!(
            printed.err.contains("standard output cannot be written: No space left on device"),
            "{printed:?}"
        );
        assert!(printed.err.contains("was carried out"), "{printed:?}");
    }
}

/// Closed output counts as `/dev/null`: the caller wants no result.
#[tokio::test]
async fn a_command_with_closed_output_reports_by_its_exit_code() {
    let (test, home, id) = with_dead().await;
    let closed = |arguments: &[&str]| {
        let given = command(&home, &test, &id, arguments);
        let mut shell = home.command("sh", &["-c", "exec \"$0\" \"$@\" >&- 2>&-"]);
        shell.arg(given.get_program()).args(given.get_args());
        shell.env("ROWLOCK_DATABASE_URL", server::url(&test.name));
        shell.status().unwrap().code()
    };
    for arguments in COMMANDS {
        assert_eq!(closed(arguments), Some(0), "{arguments:?}");
    }
    assert_eq!(closed(&["task", "4711"]), Some(3));
    assert_eq!(closed(&["task", "x"]), Some(2));
    assert_eq!(closed(&["--help"]), Some(0));
}

/// Starts it, reads its first line and closes the pipe.
fn after_its_first_line(command: &mut Command) -> Child {
    let (reader, writer) = pipe().unwrap();
    command.stdout(writer);
    let child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).unwrap();
    assert_ne!(line, "");
    child
}

fn ends_well(mut child: Child) {
    let status = eventually("it ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

/// Before the fix, it queried the database every second until it was killed.
#[tokio::test]
async fn status_watch_ends_when_its_reader_exits() {
    let (test, home, id) = with_dead().await;
    for arguments in [&["status", "--watch"][..], &["status", "--watch", "--output", "json"]] {
        ends_well(after_its_first_line(&mut command(&home, &test, &id, arguments)));
    }
}

#[tokio::test]
async fn dev_shuts_down_cleanly_when_its_reader_exits() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    for arguments in [&["--output", "json"][..], &["--demo", "5"]] {
        let mut dev = home.command(ROWLOCK, &["dev", "-f", ".", "--database-url", &server::url(&test.name)]);
        ends_well(after_its_first_line(dev.args(arguments)));
        home.assert_nothing_runs();
    }
}

/// A worker must process tasks even if nothing reads its log.
#[tokio::test]
async fn a_worker_continues_when_its_log_pipe_closes() {
    let (test, home, _) = with_dead().await;
    let (_handler, mut worker, _) = home.worker_without_dev();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut child = worker.stderr(writer).spawn().unwrap();
    drop(worker);
    let id = home.enqueue("ok");
    crate::harness::until("it is done", || home.state(&id) == "completed");
    assert_eq!(child.try_wait().unwrap(), None);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    ends_well(child);
    drop(test);
}
