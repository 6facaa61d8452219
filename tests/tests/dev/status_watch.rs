//! `rowlock status --watch`, in a terminal and elsewhere.

use nix::sys::signal::Signal;
use rowlock_tests::{TestDb, server};
use serde_json::Value;

use crate::harness::{Home, ROWLOCK};
use crate::running_command::Dev;

/// Clears the terminal before a table is drawn again.
const CLEAR: &str = "\x1b[2J\x1b[H";

#[tokio::test]
async fn without_a_terminal_tables_are_appended_without_colours() {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    let mut command = home.command(ROWLOCK, &["status", "--watch"]);
    command.env("ROWLOCK_DATABASE_URL", server::url(&test.name));
    let mut watch = Dev::spawn(command);
    for available in 0..3 {
        watch.wait_for(&format!("mail           {available}  "));
        home.enqueue("ok");
    }
    watch.send(Signal::SIGINT);
    let (_, output) = watch.ended();
    assert!(output.starts_with("QUEUE") && !output.contains('\x1b'), "{output:?}");
}

#[tokio::test]
async fn json_output_has_one_line_per_refresh() {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    let mut command = home.command(ROWLOCK, &["status", "--watch", "--output", "json"]);
    command.env("ROWLOCK_DATABASE_URL", server::url(&test.name));
    let mut watch = Dev::spawn(command);
    for _ in 0..2 {
        let line = watch.wait_for("mail");
        let queues: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(queues[0]["queue"], "mail");
    }
    watch.send(Signal::SIGINT);
    watch.ended();
}

#[tokio::test]
async fn in_a_terminal_the_table_is_redrawn_in_place() {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    // `script` of util-linux provides the terminal.
    let mut command = home.command("script", &["-qefc", &format!("{ROWLOCK} status --watch"), "/dev/null"]);
    command.env("ROWLOCK_DATABASE_URL", server::url(&test.name)).env("TERM", "xterm");
    let mut watch = Dev::spawn(command);
    watch.wait_for(CLEAR);
    watch.wait_for("mail");
    watch.wait_for(CLEAR);
    watch.send(Signal::SIGTERM);
    watch.ended();
    crate::harness::until("the watch ends with its terminal", || home.processes().is_empty());
}
