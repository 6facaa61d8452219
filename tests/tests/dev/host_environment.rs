//! What else runs on the machine, and as whom.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};

use rowlock_tests::{TestDb, server};
use serde_json::{Value, json};

use crate::harness::{Home, ROWLOCK, Said, until};
use crate::running_command::Dev;

/// The handler whose port is taken between its choice and its start, once.
const ROBBED: &str = "import os, socket, subprocess, sys
if not os.path.exists('robbed'):
    open('robbed', 'w').write(os.environ['PORT'])
    thief = \"import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); open('taken', 'w'); time.sleep(600)\"
    subprocess.Popen([sys.executable, '-c', thief, os.environ['PORT']], start_new_session=True)
    while not os.path.exists('taken'): pass
os.execvp(sys.executable, [sys.executable, 'handler.py'])
";

#[tokio::test]
async fn a_handler_whose_port_was_taken_moves_to_another() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    home.write("robbed.py", ROBBED);
    home.edit("handler.py", "robbed.py");
    home.edit("total: 2", "total: 1");
    let mut dev = home.dev();
    let id = home.enqueue_when_declared();
    home.go();
    let line = dev.wait_for("was taken by another program");
    assert!(line.contains("mail-0"), "{line}");
    until("it is done all the same", || home.state(&id) == "completed");
    dev.stop();
    let thief = home.processes();
    assert_eq!(thief.len(), 1, "{thief:?}");
    kill_process(&thief[0]);
}

fn kill_process(described: &str) {
    let pid = described.split(' ').next().unwrap().trim_start_matches("/proc/").parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_second_one_in_the_same_folder_is_told_so_in_one_line() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    let dev = home.dev();
    let second = home.run(&["dev", "-f", "."]);
    let folder = home.data();
    let expected = format!(
        "rowlock: another `rowlock dev` runs in {}\n  hint: stop it, or choose another --data-dir\n",
        folder.display()
    );
    assert_eq!((second.code, second.out.as_str(), second.err), (1, "", expected));
    dev.stop();
    home.assert_nothing_runs();
}

#[tokio::test]
async fn its_instances_use_its_database_whatever_the_terminal_was_told_before() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    home.write("other-database", "postgres://127.0.0.1:1/none");
    let mut command = home.command(ROWLOCK, &["dev", "-f", ".", "--database-url", &server::url(&test.name)]);
    command.env("ROWLOCK_DATABASE_URL_FILE", home.path().join("other-database"));
    let mut dev = Dev::spawn(command);
    dev.wait_for("metrics   http://");
    let id = home.enqueue_when_declared();
    home.go();
    until("it is done", || home.state(&id) == "completed");
    dev.stop();
}

#[test]
fn a_port_that_is_taken_is_named_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let home = Home::new();
    let port = address.port().to_string();
    let said = home.run(&["dev", "-f", ".", "--port", &port]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains(&format!("port {port} is not free; choose another, or none")), "{said:?}");
    let said = home.run(&["dev", "-f", ".", "--listen", &address.to_string()]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains(&format!("--listen {address}: Address already in use")), "{said:?}");
    home.assert_nothing_runs();
}

#[test]
fn it_runs_as_root_with_a_server_that_does_not_and_as_anybody() {
    let home = Home::new();
    let root = nix::unistd::geteuid().is_root();
    let dev = home.dev();
    let cluster = home.data().join("postgres-18");
    assert_ne!(cluster.metadata().unwrap().uid(), 0, "the server's user is not root");
    dev.stop();
    home.assert_nothing_runs();
    // Whoever is not root has been that anybody.
    if root {
        as_anybody();
    }
}

/// The user that owns nothing.
const NOBODY: u32 = 65534;

fn as_anybody() {
    let home = Home::new();
    chown(home.path(), Some(NOBODY), None).unwrap();
    // Below root's home nobody could execute it.
    std::fs::copy(ROWLOCK, home.path().join("rowlock")).unwrap();
    let arguments =
        ["--reuid=65534", "--regid=65534", "--clear-groups", "./rowlock", "dev", "-f", ".", "--demo", "3"];
    let mut command = home.command("setpriv", &arguments);
    // Where root has put the server, so that nothing is downloaded.
    command.env("XDG_CACHE_HOME", "/var/cache").env("HOME", home.path()).env("TMPDIR", home.path());
    let (code, said) = Dev::spawn(command).ended();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("3 enqueued, 3 completed, 0 dead, 0 lost"), "{said}");
    home.assert_nothing_runs();
}

#[tokio::test]
async fn a_database_of_the_users_that_cannot_be_used_is_named() {
    let home = Home::with_database("postgres://nobody:secret@127.0.0.1:1/none");
    let Said { code, err, .. } = home.run(&["status"]);
    assert_eq!(code, 4);
    assert!(!err.contains("secret"), "{err}");
}

#[tokio::test]
async fn as_json_it_says_in_one_line_what_there_is_and_where() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    let mut dev = home.begin(&["--output", "json"]);
    let line = dev.wait_for("metrics");
    let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!((&said["queues"], &said["databaseUrlFile"]), (&json!(["mail"]), &Value::Null));
    assert!(said["metrics"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:")), "{line}");
    let all = dev.stop();
    assert!(!all.contains("queue     mail"), "{all}");
}
