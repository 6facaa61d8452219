//! Other programs on the machine, and the user that runs `rowlock dev`.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};

use rowlock_tests::{TestDb, server};
use serde_json::{Value, json};

use crate::harness::{Home, ROWLOCK, Said, until};
use crate::running_command::Dev;

/// A handler whose port is taken once, between the choice of the port and its start.
const ROBBED: &str = "import os, socket, subprocess, sys
if not os.path.exists('robbed'):
    open('robbed', 'w').write(os.environ['PORT'])
    thief = \"import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); \
    open('taken', 'w'); time.sleep(600)\"
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
    until("the task is completed nevertheless", || home.state(&id) == "completed");
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
async fn a_second_dev_in_the_same_folder_fails_with_one_line() {
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
async fn instances_of_dev_ignore_a_database_url_of_the_terminal() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    home.write("other-database", "postgres://127.0.0.1:1/none");
    let mut command = home.command(ROWLOCK, &["dev", "-f", ".", "--database-url", &server::url(&test.name)]);
    command.env("ROWLOCK_DATABASE_URL_FILE", home.path().join("other-database"));
    // It has one slot according to its manifest.
    command.env("ROWLOCK_SLOTS", "no number");
    let mut dev = Dev::spawn(command);
    // Before the fix, nothing said so.
    dev.wait_for("variables=\"ROWLOCK_DATABASE_URL_FILE, ROWLOCK_SLOTS\"");
    dev.wait_for("metrics   http://");
    let id = home.enqueue_when_declared();
    home.go();
    until("it is done", || home.state(&id) == "completed");
    dev.stop();
}

/// Before the fix, it connected without verifying anything.
#[tokio::test]
async fn dev_verifies_a_server_by_the_certificate_of_the_environment() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    let url = server::url(&test.name);
    let mut command = home.command(ROWLOCK, &["dev", "-f", ".", "--database-url", &url]);
    command.env("ROWLOCK_DATABASE_CA_FILE", "/nowhere.pem");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--database-ca-file /nowhere.pem: No such file"), "{said}");
}

#[test]
fn a_port_that_is_taken_is_named_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let home = Home::new();
    let port = address.port().to_string();
    let output = home.run(&["dev", "-f", ".", "--port", &port]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.err.contains(&format!("port {port} is not free; choose another, or none")), "{output:?}");
    let output = home.run(&["dev", "-f", ".", "--listen", &address.to_string()]);
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.err.contains(&format!("--listen {address}: Address already in use")), "{output:?}");
    home.assert_nothing_runs();
}

#[test]
fn dev_runs_as_root_and_as_any_user_with_an_unprivileged_server() {
    let home = Home::new();
    let root = nix::unistd::geteuid().is_root();
    let dev = home.dev();
    let cluster = home.data().join("postgres-18");
    assert_ne!(cluster.metadata().unwrap().uid(), 0, "the server's user is not root");
    dev.stop();
    home.assert_nothing_runs();
    // Without root the test above has covered an unprivileged user.
    if root {
        as_anybody();
    }
}

/// The user `nobody`.
const NOBODY: u32 = 65534;

fn as_anybody() {
    let home = Home::new();
    chown(home.path(), Some(NOBODY), None).unwrap();
    // Programs below root's home cannot be executed by `nobody`.
    std::fs::copy(ROWLOCK, home.path().join("rowlock")).unwrap();
    let arguments =
        ["--reuid=65534", "--regid=65534", "--clear-groups", "./rowlock", "dev", "-f", ".", "--demo", "3"];
    let mut command = home.command("setpriv", &arguments);
    // The folder where root has installed the server, so that nothing is downloaded.
    command.env("XDG_CACHE_HOME", "/var/cache").env("HOME", home.path()).env("TMPDIR", home.path());
    let (code, output) = Dev::spawn(command).ended();
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("3 enqueued, 3 completed, 0 dead, 0 lost"), "{output}");
    home.assert_nothing_runs();
}

#[tokio::test]
async fn an_unusable_existing_database_is_named() {
    let home = Home::with_database("postgres://nobody:secret@127.0.0.1:1/none");
    let Said { code, err, .. } = home.run(&["status"]);
    assert_eq!(code, 4);
    assert!(!err.contains("secret"), "{err}");
}

#[tokio::test]
async fn json_output_has_all_endpoints_in_one_line() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    let mut dev = home.begin(&["--output", "json"]);
    let line = dev.wait_for("metrics");
    let output: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!((&output["queues"], &output["databaseUrlFile"]), (&json!(["mail"]), &Value::Null));
    assert!(output["metrics"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:")), "{line}");
    let all = dev.stop();
    assert!(!all.contains("queue     mail"), "{all}");
}
