//! `rowlock simulate` as a user runs it: with a load and without any database, or with a queue's history.

use std::fs;

use rowlock_tests::{TestDb, server};
use serde_json::Value;

use crate::harness::{Home, until};

const LAWS: [&str; 5] = ["rowlock", "keda", "keda-tuned", "knative", "oracle"];

/// A folder with the example load.
fn home() -> Home {
    let home = Home::new();
    let example = rowlock_tests::checkout().join("examples/load.csv");
    home.write("load.csv", &fs::read_to_string(example).unwrap());
    home.edit("total: 2, perPod: 1", "total: 16, perPod: 4");
    home
}

fn simulate<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["simulate", "-f", "mail.yaml", "--load", "load.csv", "--spread", "1m"], more].concat()
}

/// A figure of an autoscaler, by its path in the JSON.
fn figure(replayed: &Value, autoscaler: &str, path: &str) -> f64 {
    let all = replayed["autoscalers"].as_array().unwrap();
    let found = all.iter().find(|one| one["autoscaler"] == autoscaler).unwrap();
    found.pointer(path).and_then(Value::as_f64).unwrap()
}

#[test]
fn an_example_load_gives_a_table_charts_and_a_picture() {
    let home = home();
    let text = home.ok(&simulate(&["--svg", "load.svg"]));
    assert!(
        text.starts_with("queue mail: up to 16 slots, 4 per pod, wait target 5s; 2485 tasks in "),
        "{text}"
    );
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[2].starts_with("AUTOSCALER ") && lines[2].ends_with("NOT-STARTED"), "{text}");
    for (line, law) in lines[3..8].iter().zip(LAWS) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((cells[0], cells.len(), cells[7]), (law, 8, "0"), "{text}");
    }
    for title in ["backlog: tasks that wait", "slots", "wait of the oldest task, in seconds"] {
        let chart = lines.iter().position(|line| *line == title).unwrap();
        for (line, law) in lines[chart + 1..].iter().zip(LAWS) {
            assert!(line.starts_with(law) && line.contains(|letter| ('▁'..='█').contains(&letter)), "{text}");
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let picture = fs::read_to_string(home.path().join("load.svg")).unwrap();
    assert!(picture.starts_with("<svg xmlns=") && picture.ends_with("</svg>\n"));
    assert_eq!(picture.matches("<polyline").count(), 3 * LAWS.len());
    assert!(LAWS.iter().all(|law| picture.contains(&format!(">{law}</text>"))) && !picture.contains("NaN"));
}

#[test]
fn the_same_seed_gives_the_same_result() {
    let home = home();
    let result = |seed, svg| (home.ok(&simulate(&["--seed", seed, "--svg", svg])), home.path().join(svg));
    let (first, second, third) = (result("7", "1.svg"), result("7", "2.svg"), result("8", "3.svg"));
    assert_eq!(first.0, second.0);
    assert_eq!(fs::read(first.1).unwrap(), fs::read(second.1).unwrap());
    assert_ne!(first.0, third.0);
}

#[test]
fn settings_change_what_the_operator_decides() {
    let home = home();
    let replayed = |more: &[&str]| home.json(&simulate(&[more, &["--no-oracle"]].concat()));
    let usual = replayed(&[]);
    assert_eq!((&usual["scaling"], usual["autoscalers"].as_array().unwrap().len()), (&"Auto".into(), 4));
    let hours = |replayed: &Value| figure(replayed, "rowlock", "/slotHours");
    let kept = replayed(&["--set", "spec.workers.autoscaling.scaleDownAfter=20m"]);
    assert!(hours(&kept) > 1.2 * hours(&usual), "{} {}", hours(&kept), hours(&usual));
    let slow = replayed(&["--pod-start", "2m"]);
    let wait = |replayed: &Value| figure(replayed, "rowlock", "/waitSeconds/max");
    assert!(wait(&slow) > 100.0 && wait(&usual) < 60.0, "{} {}", wait(&slow), wait(&usual));
    // 16 slots for all the time.
    home.edit("autoscaling: { min: 0, scaleDownAfter: 1s }", "scaling: Fixed");
    let fixed = replayed(&[]);
    let all = 16.0 * fixed["seconds"].as_f64().unwrap() / 3600.0;
    assert!((hours(&fixed) / all - 1.0).abs() < 0.01, "{} {all}", hours(&fixed));
    let external = replayed(&["--set", "spec.workers.scaling=External", "--set", "spec.workers.replicas=2"]);
    assert!((hours(&external) / (all / 2.0) - 1.0).abs() < 0.01, "{} {all}", hours(&external));
    assert_eq!(external["scaling"], "External");
}

#[test]
fn what_is_wrong_is_refused_with_what_to_write_instead() {
    let home = home();
    let cases: [(&[&str], i32, &str); 6] = [
        (
            &["--set", "spec.workers.totl=3"],
            2,
            "spec.workers.totl: is not a known field; did you mean `total`?",
        ),
        (&["--set", "spec.retry.maxAttempts=3"], 2, "a simulation does not follow this field"),
        (&["--queue", "mial"], 2, "has no queue `mial`\n  hint: name one with --queue: mail"),
        (&["--pod-start", "2h"], 2, "--pod-start: 2h is too long\n  hint: choose at most 1h"),
        (&["--set", "spec.timeout=1s"], 2, "load.csv:14: seconds: 1.5 is longer than spec.timeout (1s)"),
        (&["--svg", "missing/load.svg"], 1, "--svg missing/load.svg: No such file or directory"),
    ];
    for (more, code, wanted) in cases {
        let said = home.run(&simulate(more));
        assert!(said.code == code && said.err.contains(wanted), "{more:?}: {said:?}");
    }
    home.write("load.csv", "at,tasks,seconds\n0,many,1\n5,1,1,1\n");
    let said = home.run(&simulate(&[]));
    assert_eq!(said.code, 2);
    assert!(
        said.err.contains("load.csv:2:3: tasks: `many` is no number of tasks; write a whole number"),
        "{said:?}"
    );
    assert!(said.err.contains("load.csv:3:7: line: has 4 values, the header has 3"), "{said:?}");
    home.edit("total: 16", "total: -1");
    let said = home.run(&simulate(&[]));
    assert!(said.code == 2 && said.err.contains("mail.yaml:7: spec.workers.total"), "{said:?}");
}

#[tokio::test]
async fn the_history_of_a_queue_is_replayed() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    let history = ["simulate", "-f", "mail.yaml", "--no-oracle", "--from-db"];
    let simulate = |more: &[&str]| home.run(&[&history[..], more].concat());
    home.edit("scaleDownAfter: 1s", "scaleDownAfter: 2m");
    let dev = home.dev();
    home.enqueue_when_declared();
    home.go();
    for sql in [
        "select rowlock.enqueue_many('mail', 'send', array_fill('{\"do\": \"ok\"}'::text, '{40}'))",
        "select rowlock.enqueue_many('mail', 'send', array_fill('{}'::text, '{7}'), '{\"delay\": \"1h\"}')",
    ] {
        test.run(sql).await;
    }
    until("a worker has measured how long a task takes", || simulate(&["1h"]).code == 0);
    let replayed = home.json(&[&history[..], &["1h"]].concat());
    assert_eq!(replayed["autoscalers"][0]["tasks"], 41, "{replayed}");
    let notes = replayed["notes"].to_string();
    assert!(notes.contains("7 tasks with a delay are left out") && notes.contains("A task takes"), "{notes}");
    let shown = simulate(&["1h", "--task-duration", "500ms"]).out;
    assert!(shown.contains("; 41 tasks in ") && shown.contains("takes 0.500 s on average"), "{shown}");
    for (more, code, wanted) in [
        (&["1h", "--task-duration", "2m"][..], 2, "--task-duration: 2m is longer than spec.timeout"),
        (&["40d"], 2, "--from-db: 40d is too long"),
        (&["1h", "--load", "load.csv"], 2, "cannot be used with"),
        (&["1ms"], 3, "no task came to queue mail within 1ms"),
    ] {
        let said = simulate(more);
        assert!(said.code == code && said.err.contains(wanted), "{more:?}: {said:?}");
    }
    dev.stop();
    test.run(
        "update rowlock.scaling_decision set (waiting, service_seconds, service_assumed) = (0, 90, false)",
    )
    .await;
    test.run("delete from rowlock.heartbeat").await;
    let long = simulate(&["1h"]);
    let wanted = "a task of queue mail takes 90.000 s as measured, which is longer than spec.timeout (1m)";
    assert!(long.code == 2 && long.err.contains(wanted), "{long:?}");
    assert!(long.err.contains("set another value with --task-duration"), "{long:?}");
    test.run("delete from rowlock.scaling_decision").await;
    let unknown = simulate(&["1h"]);
    assert!(unknown.code == 2 && unknown.err.contains("say it, for example --task-duration"), "{unknown:?}");
}
