//! Every class of mistake has its exit code, a message that says what to change, and nothing on standard output.

use rowlock_tests::{TestDb, server};
use serde_json::Value;

use crate::harness::{Home, Said};

fn check(said: &Said, code: i32, message: &str) {
    assert_eq!(said.code, code, "{said:?}");
    assert!(said.err.contains(message), "{message:?} is not in {said:?}");
    assert_eq!(said.out, "");
}

#[test]
fn wrong_usage_is_2() {
    // Nobody is at port 1: none of these gets so far.
    let home = Home::with_database("postgres://127.0.0.1:1/none");
    check(&home.run(&["enqueue", "mail", "send", "{to: a}"]), 2, "the payload is not JSON");
    check(&home.run(&["task", "one"]), 2, "invalid value 'one' for '<ID>': the id of a task is the number");
    check(&home.run(&["cancel", "1", "99999999999999999999"]), 2, "the id of a task is the number");
    check(&home.run(&["enqueue", "mail", "send", "--priority", "7"]), 2, "7 is not in 0..=3");
    check(&home.run(&["enqueue", "mail", "send", "--delay", "soon"]), 2, "`soon` is not a duration");
    check(&home.run(&["retry"]), 2, "required");
    check(&home.run(&["tasks", "--state", "late"]), 2, "late");
    check(&home.run(&["frobnicate"]), 2, "frobnicate");
    let none = home.command(crate::harness::ROWLOCK, &["status"]).output().unwrap();
    check(&Said::of(&none), 2, "no database is given");
}

/// Before, the default was in force without a word.
#[test]
fn a_misspelt_variable_is_2_for_every_program() {
    let home = Home::with_database("postgres://127.0.0.1:1/none");
    for arguments in [&["status"][..], &["dev", "-f", "."], &["worker", "--queue", "mail"]] {
        let mut command = home.command(crate::harness::ROWLOCK, arguments);
        command.env("ROWLOCK_DATABASE_URI", "postgres://127.0.0.1:1/none");
        let said = Said::of(&command.output().unwrap());
        check(&said, 2, "ROWLOCK_DATABASE_URI is unknown to Rowlock; did you mean ROWLOCK_DATABASE_URL?");
    }
    // A Service named `rowlock` beside a pod.
    let mut command = home.command(crate::harness::ROWLOCK, &["status"]);
    command.env("ROWLOCK_PORT", "tcp://10.0.0.1:80").env("ROWLOCK_SERVICE_HOST", "10.0.0.1");
    check(&Said::of(&command.output().unwrap()), 2, "no database is given");
    home.assert_nothing_runs();
}

#[test]
fn a_wrong_manifest_is_2_and_named_with_file_line_and_field() {
    let home = Home::new();
    home.edit("perPod: 1", "perpod: 1");
    let said = home.run(&["dev", "-f", "."]);
    check(&said, 2, "./mail.yaml:7: spec.workers.perpod: is not a known field; did you mean `perPod`?");
    home.edit("perpod: 1", "scaling: Fixed, perPod: 1");
    let said = home.run(&["dev", "-f", "."]);
    check(
        &said,
        2,
        "./mail.yaml:7: spec.workers.autoscaling: is only for workers.scaling Auto; remove it, or",
    );
    check(&home.run(&["dev", "-f", "nowhere"]), 2, "-f nowhere: No such file");
    home.write("mail.yaml", "");
    check(&home.run(&["dev", "-f", "."]), 2, "there is no TaskQueue in it");
    home.assert_nothing_runs();
}

#[tokio::test]
async fn what_does_not_exist_is_3() {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    check(&home.run(&["task", "4711"]), 3, "there is no task 4711");
    check(&home.run(&["enqueue", "mial", "send"]), 3, "mial");
    check(&home.run(&["retry", "--all-dead-of", "mial"]), 3, "mial");
    check(&home.run(&["tasks", "--queue", "mial"]), 3, "mial");
}

#[tokio::test]
async fn a_database_out_of_reach_or_of_another_schema_is_4() {
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
async fn a_database_that_takes_no_writes_is_4_and_said_to_be_so() {
    let test = TestDb::new().await;
    let id = test.enqueue().await.to_string();
    let home = Home::with_database(&server::url(&test.name));
    test.run(format!("alter database {} set default_transaction_read_only = on", test.name)).await;
    // Before this was mended: exit 1, and "cannot execute nextval() in a read-only transaction".
    for arguments in [&["enqueue", "mail", "send"][..], &["cancel", &id], &["migrate"]] {
        check(&home.run(arguments), 4, "it takes no writes (default_transaction_read_only is on)");
    }
    for arguments in [&["status"][..], &["task", &id], &["tasks", "--state", "available"]] {
        let said = home.run(arguments);
        assert_eq!(said.code, 0, "{said:?}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_url_or_a_certificate_is_not_said_to_be_the_server() {
    let home = Home::with_database("postgres://u:SECRET@127.0.0.1:1/none?ssl_mode=require");
    let said = home.run(&["status"]);
    check(&said, 4, "has a parameter `ssl_mode` that is not known: did you mean `sslmode`?");
    assert!(!said.err.contains("hint") && !said.err.contains("SECRET"), "{said:?}");
    let test = TestDb::new().await;
    let home = Home::with_database(&(server::url(&test.name) + "?sslmode=require"));
    let said = home.run(&["status"]);
    check(&said, 4, "the server does not speak TLS, and sslmode is require");
    assert!(!said.err.contains("hint"), "{said:?}");
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
async fn what_the_database_refuses_is_5() {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    test.run("update rowlock.queue set payload_limit = 20").await;
    check(&home.run(&["enqueue", "mail", "send", "{\"much\": \"more than twenty\"}"]), 5, "20");
    test.run("update rowlock.queue set backlog_full = true").await;
    check(&home.run(&["enqueue", "mail", "send"]), 5, "backlog");
}

#[tokio::test]
async fn a_mistake_is_json_where_json_was_asked_for() {
    let home = Home::with_database("postgres://127.0.0.1:1/none");
    for (arguments, code) in
        [(vec!["status"], 4), (vec!["task", "one"], 2), (vec!["enqueue", "mail", "send", "{"], 2)]
    {
        let said = home.run(&[&["--output", "json"], arguments.as_slice()].concat());
        let mistake: Value =
            serde_json::from_str(&said.err).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        assert_eq!((said.code, mistake["exit"].as_i64()), (code, Some(code.into())), "{said:?}");
        assert!(mistake["error"].as_str().is_some_and(|error| !error.is_empty()), "{said:?}");
        assert_eq!(said.out, "");
    }
}

#[tokio::test]
async fn a_handler_that_listens_nowhere_is_named() {
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
