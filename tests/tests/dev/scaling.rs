//! Scaling from zero to what the tasks need, and back.

use rowlock_tests::{TestDb, server};

use serde_json::Value;

use crate::harness::{Home, until};

/// Before the fix, the number followed the tasks and `total`; users could not set it.
#[tokio::test]
async fn the_manifest_sets_the_number_of_instances() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    home.edit("autoscaling: { min: 0, scaleDownAfter: 1s }", "scaling: External");
    let dev = home.dev();
    // As in a cluster without a number.
    until("there is one instance", || home.status("instances") == 1);
    home.edit("External", "External, replicas: 2");
    until("there are two instances", || home.status("instances") == 2);
    home.edit("replicas: 2", "replicas: 0");
    until("there is no instance", || home.status("instances") == 0);
    let id = home.enqueue("ok");
    home.edit("replicas: 0", "replicas: 9");
    until("there are as many instances as total allows", || home.status("instances") == 2);
    until("the task is done", || home.state(&id) == "completed");
    home.edit("External, replicas: 9", "External, replicas: 0");
    until("there is no instance again", || home.status("instances") == 0);
    home.edit("External, replicas: 0", "Fixed");
    until("there are always two instances", || home.status("instances") == 2);
    dev.stop();
}

#[tokio::test]
async fn instances_start_with_the_first_task_and_stop_after_the_last() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    let dev = home.dev();
    until("the queue is declared", || home.run(&["status"]).out.contains("mail"));
    for round in 1..=2 {
        assert_eq!(home.status("instances"), 0);
        let ids: Vec<String> = (0..4).map(|_| home.enqueue("wait")).collect();
        until("both workers work", || home.status("busy") == 2);
        assert_eq!(home.status("instances"), 2, "round {round}");
        home.go();
        until("all is done", || ids.iter().all(|id| home.state(id) == "completed"));
        until("no instance is left", || home.status("instances") == 0);
        std::fs::remove_file(home.path().join("go")).unwrap();
    }
    let output = dev.stop();
    assert!(output.contains("2 slots on 2 pods") && output.contains("0 slots on 0 pods"), "{output}");
    home.assert_nothing_runs();
    let (completed, ..) = test.audited().await;
    assert_eq!(completed, 8);
}

/// The answer of `rowlock why mail --output json`; null while nothing is recorded.
fn why(home: &Home) -> Value {
    let said = home.run(&["why", "mail", "--output", "json"]);
    serde_json::from_str(&said.out).unwrap_or_default()
}

#[tokio::test]
async fn why_explains_the_number_of_instances_with_its_figures() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    home.edit("total: 2", "total: 8");
    let dev = home.dev();
    let age = |decision: &Value| decision["ageSeconds"].as_f64().unwrap_or_default();
    until("ten seconds have passed since the first record", || age(&why(&home)["decision"]) > 10.5);
    let unknown = home.run(&["why", "mial"]);
    assert!(unknown.code == 3 && unknown.err.contains("mail"), "{unknown:?}");
    test.run("select rowlock.enqueue_many('mail', 'send', array_fill('{\"do\": \"wait\"}'::text, '{3}'))")
        .await;
    let is_first = |decision: &Value| decision["reason"] == "Backlog" && decision["podsBefore"] == 0;
    let first =
        || why(&home)["changes"].as_array().and_then(|all| all.iter().find(|one| is_first(one)).cloned());
    until("the change is recorded", || first().is_some());
    let recorded = first().unwrap_or_default();
    assert_eq!(recorded["inputs"]["waiting"], 3, "{recorded}");
    let at = recorded["at"].as_str().unwrap();
    let then = home.run(&["why", "mail", "--at", at]);
    for part in [
        "up from 0, since 2",
        "tasks wait (Backlog)",
        "3 tasks waited, 0 ran",
        "none had completed yet, so 3.0 s per task was assumed",
        "No limit applies.",
        "TIME ",
        "Idle",
    ] {
        assert!(then.out.contains(part), "{part:?} is not in {then:?}");
    }
    assert!(!then.out.contains("Now "), "{then:?}");
    assert!(home.ok(&["why", "mail", "--limit", "1"]).contains("Now "));
    assert_eq!(home.run(&["why", "mail", "--at", "1d"]).code, 3, "nothing is that old");
    assert_eq!(home.run(&["why", "mail", "--at", "noon"]).code, 2);
    home.go();
    until("the way back is recorded", || why(&home)["decision"]["pods"] == 0);
    dev.stop();
}
