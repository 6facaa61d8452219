//! Every class of error has its exit code, a message that says what to change, and nothing on standard
//! output.

use rowlock_tests::{TestDb, server};
use serde_json::Value;

use crate::harness::{Home, Said};

fn check(printed: &Said, code: i32, message: &str) {
    assert_eq!(printed.code, code, "{printed:?}");
    assert!(printed.err.contains(message), "{message:?} is not in {printed:?}");
    assert_eq!(printed.out, "");
}

#[test]
fn wrong_usage_exits_with_2() {
    // Nothing listens at port 1: all of these fail before they connect.
    let home = Home::with_database("postgres://127.0.0.1:1/none");
    check(&home.run(&["enqueue", "mail", "send", "{to: a}"]), 2, "the payload is not JSON");
    check(&home.run(&["task", "one"]), 2, "invalid value 'one' for '<ID>': a task id is the number");
    check(&home.run(&["cancel", "1", "99999999999999999999"]), 2, "a task id is the number");
    check(&home.run(&["enqueue", "mail", "send", "--priority", "7"]), 2, "7 is not in 0..=3");
    check(&home.run(&["enqueue", "mail", "send", "--delay", "soon"]), 2, "`soon` is not a duration");
    check(&home.run(&["retry"]), 2, "required");
    check(&home.run(&["tasks", "--state", "late"]), 2, "late");
    check(&home.run(&["frobnicate"]), 2, "frobnicate");
    let none = home.command(crate::harness::ROWLOCK, &["status"]).output().unwrap();
    check(&Said::of(&none), 2, "no database is given");
}

/// Before the fix, the default was used silently.
#[test]
fn a_misspelt_variable_ends_every_program_with_2() {
    let home = Home::with_database("postgres://127.0.0.1:1/none");
    for arguments in [&["status"][..], &["dev", "-f", "."], &["worker", "--queue", "mail"]] {
        let mut command = home.command(crate::harness::ROWLOCK, arguments);
        command.env("ROWLOCK_DATABASE_URI", "postgres://127.0.0.1:1/none");
        let printed = Said::of(&command.output().unwrap());
        check(&printed, 2, "ROWLOCK_DATABASE_URI is unknown to Rowlock; did you mean ROWLOCK_DATABASE_URL?");
    }
    // The variables of a Service named `rowlock` in a pod's namespace.
    let mut command = home.command(crate::harness::ROWLOCK, &["status"]);
    command.env("ROWLOCK_PORT", "tcp://10.0.0.1:80").env("ROWLOCK_SERVICE_HOST", "10.0.0.1");
    check(&Said::of(&command.output().unwrap()), 2, "no database is given");
    home.assert_nothing_runs();
}

#[test]
fn a_wrong_manifest_exits_with_2_and_names_file_line_and_field() {
    let home = Home::new();
    home.edit("perPod: 1", "perpod: 1");
    let printed = home.run(&["dev", "-f", "."]);
    check(&printed, 2, "./mail.yaml:7: spec.workers.perpod: is not a known field; did you mean `perPod`?");
    home.edit("perpod: 1", "scaling: Fixed, perPod: 1");
    let printed = home.run(&["dev", "-f", "."]);
    check(
        &printed,
        2,
        "./mail.yaml:7: spec.workers.autoscaling: is only for workers.scaling Auto; remove it, or",
    );
    check(&home.run(&["dev", "-f", "nowhere"]), 2, "-f nowhere: No such file");
    home.write("mail.yaml", "");
    check(&home.run(&["dev", "-f", "."]), 2, "no TaskQueue found");
    home.assert_nothing_runs();
}

#[tokio::test]
async fn a_missing_queue_or_task_exits_with_3() {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    check(&home.run(&["task", "4711"]), 3, "there is no task 4711");
    check(&home.run(&["enqueue", "mial", "send"]), 3, "mial");
    check(&home.run(&["retry", "--all-dead-of", "mial"]), 3, "mial");
    check(&home.run(&["tasks", "--queue", "mial"]), 3, "mial");
}

#[tokio::test]
async fn an_unreachable_database_or_a_wrong_schema_exits_with_4() {
    let home = Home::with_database("postgres://127.0.0.1:1/none");
    check(&home.run(&["status"]), 4, "hint: check --database-url");
    check(&home.run(&["status"]), 4, "127.0.0.1:1/none: connection refused");
    let other = Home::with_database("mysql://127.0.0.1:1/none");
    check(&other.run(&["status"]), 4, "write postgres://user:password@host:5432/database");
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    test.run("update rowlock.migration set version = 0").await;
    check(&home.run(&["status"]), 4, "rowlock migrate");
    test.run("insert into rowlock.migration values (99, 'of a later release', 99)").await;
    check(&home.run(&["status"]), 4, "99");
    check(&home.run(&["migrate"]), 4, "99");
    test.run("drop schema rowlock cascade").await;
    check(&home.run(&["status"]), 4, "rowlock migrate");
}

#[tokio::test]
async fn a_read_only_database_exits_with_4_and_says_so() {
    let test = TestDb::new().await;
    let id = test.enqueue().await.to_string();
    let home = Home::with_database(&server::url(&test.name));
    test.run(format!("alter database {} set default_transaction_read_only = on", test.name)).await;
    // Before the fix: exit 1, and "cannot execute nextval() in a read-only transaction".
    for arguments in [&["enqueue", "mail", "send"][..], &["cancel", &id], &["migrate"]] {
        check(&home.run(arguments), 4, "it takes no writes (default_transaction_read_only is on)");
    }
    for arguments in [&["status"][..], &["task", &id], &["tasks", "--state", "available"]] {
        let printed = home.run(arguments);
        assert_eq!(printed.code, 0, "{printed:?}");
    }
}

#[tokio::test]
async fn a_wrong_url_or_certificate_is_not_reported_as_an_unreachable_server() {
    let home = Home::with_database("postgres://u:SECRET@127.0.0.1:1/none?ssl_mode=require");
    let printed = home.run(&["status"]);
    check(&printed, 4, "has an unknown parameter `ssl_mode`: did you mean `sslmode`?");
    assert!(!printed.err.contains("hint") && !printed.err.contains("SECRET"), "{printed:?}");
    let test = TestDb::new().await;
    let home = Home::with_database(&(server::url(&test.name) + "?sslmode=require"));
    let printed = home.run(&["status"]);
    check(&printed, 4, "the server does not support TLS, and sslmode is require");
    assert!(!printed.err.contains("hint"), "{printed:?}");
    check(
        &home.run(&["status", "--database-ca-file", "/nowhere"]),
        2,
        "--database-ca-file /nowhere: No such file",
    );
    home.write("ca.pem", "no certificate");
    let ca = home.path().join("ca.pem");
    check(
        &home.run(&["status", "--database-ca-file", ca.to_str().unwrap()]),
        4,
        "the CA holds no certificate",
    );
}

#[tokio::test]
async fn a_refusal_by_the_database_exits_with_5() {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    test.run("update rowlock.queue set payload_limit = 20").await;
    check(&home.run(&["enqueue", "mail", "send", "{\"much\": \"more than twenty\"}"]), 5, "20");
    test.run("update rowlock.queue set backlog_full = true").await;
    check(&home.run(&["enqueue", "mail", "send"]), 5, "backlog");
}

#[tokio::test]
async fn errors_are_json_with_output_json() {
    let home = Home::with_database("postgres://127.0.0.1:1/none");
    for (arguments, code) in
        [(vec!["status"], 4), (vec!["task", "one"], 2), (vec!["enqueue", "mail", "send", "{"], 2)]
    {
        let printed = home.run(&[&["--output", "json"], arguments.as_slice()].concat());
        let mistake: Value =
            serde_json::from_str(&printed.err).unwrap_or_else(|error| panic!("{error}: {printed:?}"));
        assert_eq!((printed.code, mistake["exit"].as_i64()), (code, Some(code.into())), "{printed:?}");
        assert!(mistake["error"].as_str().is_some_and(|error| !error.is_empty()), "{printed:?}");
        assert_eq!(printed.out, "");
    }
}

#[tokio::test]
async fn a_handler_that_does_not_listen_is_named() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    home.edit("exec python3 handler.py", "exec sleep 600");
    let mut dev = home.dev();
    let id = home.enqueue_when_declared();
    dev.wait_for("nothing listens on 127.0.0.1:");
    assert_eq!(home.state(&id), "available");
    dev.stop();
    home.assert_nothing_runs();
}
