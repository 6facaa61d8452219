//! Manifests edited while `rowlock dev` runs.

use rowlock_tests::{TestDb, server};

use crate::harness::{Home, MANIFEST, until};
use crate::running_command::Dev;

const FOLLOWED: &str = "applying the edited manifests";

async fn running() -> (TestDb, Home, Dev) {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    // However slow the machine is, no task that waits for the test may reach this timeout.
    home.edit("spec:\n", "spec:\n  timeout: 10m\n");
    let dev = home.dev();
    until("the queue is declared", || home.run(&["status"]).out.contains("mail"));
    (test, home, dev)
}

#[tokio::test]
async fn changing_the_total_interrupts_no_task() {
    let (test, home, mut dev) = running().await;
    let ids: Vec<String> = (0..6).map(|_| home.enqueue("wait")).collect();
    until("two run", || home.status("running") == 2);
    home.edit("total: 2", "total: 4");
    dev.wait_for(FOLLOWED);
    until("four run", || home.status("running") == 4);
    home.edit("total: 4", "total: 1");
    dev.wait_for(FOLLOWED);
    // Or none: while four tasks run, no instance is allocated the slots that the remaining one released.
    until("three drain", || home.status("workers") == 1 && home.status("allocated") <= 1);
    assert_eq!(home.status("running"), 4, "running tasks may finish");
    home.go();
    until("all is done", || ids.iter().all(|id| home.state(id) == "completed"));
    for id in &ids {
        let details = home.json(&["task", id]);
        assert_eq!(
            (details["attempt"].as_i64(), details["errors"].as_array().map(Vec::len)),
            (Some(1), Some(0))
        );
    }
    dev.stop();
    test.audited().await;
}

#[tokio::test]
async fn an_edited_retry_policy_applies_to_the_next_failure() {
    let (_test, home, mut dev) = running().await;
    home.edit("spec:\n", "spec:\n  retry: { maxAttempts: 5, backoff: { fixed: 1h } }\n");
    dev.wait_for(FOLLOWED);
    let patient = home.enqueue("fail");
    until("it waits for an hour", || home.state(&patient) == "retryable");
    home.edit("maxAttempts: 5, backoff: { fixed: 1h }", "maxAttempts: 2, backoff: { fixed: 100ms }");
    dev.wait_for(FOLLOWED);
    let due = |id: &str| home.json(&["task", id])["dueAt"].as_str().map(str::to_owned);
    let in_an_hour = due(&patient).unwrap();
    until("the instance has the new policy with its heartbeat", || {
        let id = home.enqueue("fail");
        until("it has failed", || matches!(home.state(&id).as_str(), "retryable" | "dead"));
        // With the old policy it would be due after the one before. Without a time, it is tried again.
        due(&id).is_none_or(|due| due < in_an_hour)
    });
    assert_eq!(home.state(&patient), "retryable");
    dev.stop();
}

#[tokio::test]
async fn removing_a_manifest_stops_its_instances_and_keeps_its_tasks() {
    let (_test, home, mut dev) = running().await;
    home.write(
        "other.yaml",
        &MANIFEST
            .replace("name: mail", "name: other")
            .replace(", autoscaling: { min: 0, scaleDownAfter: 1s }", ""),
    );
    dev.wait_for(FOLLOWED);
    until("its two instances work", || home.handlers().iter().filter(|line| *line == "start 1").count() == 2);
    std::fs::remove_file(home.path().join("other.yaml")).unwrap();
    dev.wait_for(FOLLOWED);
    until("both have ended", || home.handlers().iter().filter(|line| *line == "end 1").count() == 2);
    let kept = home.ok(&["enqueue", "other", "send"]);
    let done = home.enqueue("ok");
    until("the other queue continues", || home.state(&done) == "completed");
    assert_eq!(home.state(&kept), "available");
    dev.stop();
}

#[tokio::test]
async fn an_invalid_edit_is_shown_with_its_line_and_the_last_valid_manifest_stays() {
    let (_test, home, mut dev) = running().await;
    home.edit("total: 2", "total: ten");
    let line = dev.wait_for("mail.yaml:");
    assert!(
        line.contains("mail.yaml:8: spec.workers.total: is the string \"ten\"; make it a whole number"),
        "{line}"
    );
    dev.wait_for("keeping the manifests from before the edit");
    let id = home.enqueue("ok");
    until("tasks are done as before", || home.state(&id) == "completed");
    assert_eq!(home.status("workers"), 2);
    home.edit("total: ten", "total: 3");
    dev.wait_for(FOLLOWED);
    until("the corrected manifest is applied", || home.status("workers") == 3);
    dev.stop();
}

#[tokio::test]
async fn changed_instances_are_replaced_one_by_one() {
    let (_test, home, mut dev) = running().await;
    home.edit(", autoscaling: { min: 0, scaleDownAfter: 1s }", "");
    until("two instances run", || home.handlers() == ["start 1", "start 1"]);
    until("both have joined", || home.status("instances") == 2);
    home.edit("exec python3", "exec env VERSION=2 python3");
    until("both are new", || home.handlers().iter().filter(|line| *line == "end 1").count() == 2);
    assert!(fewest(&home.handlers()) >= 2, "{:?}", home.handlers());
    home.edit("exec env VERSION=2 python3 handler.py", "exit 7");
    dev.wait_for("the handler of mail-0 ended by itself (exit status: 7)");
    let id = home.enqueue("ok");
    until("an instance that was not replaced completes the task", || home.state(&id) == "completed");
    assert_eq!(home.handlers().len(), 6, "no handler was stopped");
    home.edit("exit 7", "exec env VERSION=3 python3 handler.py");
    until("both run the corrected handler", || {
        home.handlers().iter().filter(|line| *line == "end 2").count() == 2
    });
    assert!(fewest(&home.handlers()) >= 2, "{:?}", home.handlers());
    dev.stop();
}

/// The fewest handlers that ran at the same time, once there were two.
fn fewest(handlers: &[String]) -> i32 {
    let running = handlers.iter().scan(0, |running, line| {
        *running += if line.starts_with("start") { 1 } else { -1 };
        Some(*running)
    });
    running.skip(1).min().unwrap_or(0)
}
