//! Commands in a second terminal: inspection and administration.

use rowlock_queue::Outcome;
use rowlock_tests::{TestDb, server};
use serde_json::json;

use crate::harness::Home;

/// Three tasks; the first two returned are dead.
async fn with_dead() -> (TestDb, Home, Vec<String>) {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    let mut ids: Vec<String> = (0..3).map(|_| home.enqueue("ok")).collect();
    let mut instance = test.instance("mail-0").await;
    let claimed = instance.claim(2).await;
    assert_eq!(claimed.tasks.len(), 2);
    ids.sort_by_key(|id| (claimed.tasks.iter().all(|task| task.id.to_string() != *id), id.clone()));
    instance.settle(&claimed, &Outcome::Dead { error: "no such address".into() }).await;
    (test, home, ids)
}

#[tokio::test]
async fn dead_tasks_are_listed_retried_one_by_one_and_all_at_once() {
    let (_test, home, ids) = with_dead().await;
    let listed = home.json(&["tasks", "--state", "dead"]);
    let dead: Vec<&str> =
        listed.as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap()).collect();
    assert_eq!(dead, ids[..2], "oldest first");
    let text = home.ok(&["tasks", "--queue", "mail"]);
    assert!(
        text.trim_start().starts_with("ID ") && text.contains(&ids[0]) && !text.contains(&ids[2]),
        "{text}"
    );
    assert_eq!(home.ok(&["retry", &ids[0]]), "1 made available again");
    assert_eq!(home.state(&ids[0]), "available");
    assert_eq!(home.json(&["retry", "--all-dead-of", "mail"]), json!({"retried": 1}));
    assert_eq!(home.ok(&["tasks"]), "no dead tasks");
    let again = home.run(&["retry", &ids[0], "--output", "json"]);
    assert_eq!((again.code, again.out.as_str()), (3, "{\"retried\":0}\n"));
    assert!(again.err.contains("is available"), "{again:?}");
}

#[tokio::test]
async fn the_details_of_a_task_show_every_error_and_its_payload() {
    let (_test, home, ids) = with_dead().await;
    let details = home.ok(&["task", &ids[0]]);
    let lines = [
        "queue     mail",
        "type      send",
        "state     dead",
        "attempts  1 of 6",
        "payload   {\"do\": \"ok\"}",
    ];
    for line in lines {
        assert!(details.lines().any(|printed| printed == line), "{line:?} is not in\n{details}");
    }
    assert!(details.contains("attempt 1: no such address"), "{details}");
    let value = home.json(&["task", &ids[0]]);
    assert_eq!(value["errors"][0]["error"], "no such address");
    assert_eq!(value["id"], ids[0]);
}

#[tokio::test]
async fn waiting_tasks_are_cancelled_and_finished_ones_are_not() {
    let (_test, home, ids) = with_dead().await;
    assert_eq!(home.ok(&["cancel", &ids[2]]), format!("{} cancelled", ids[2]));
    assert_eq!(home.state(&ids[2]), "cancelled");
    assert_eq!(home.json(&["cancel", &ids[2]]), json!([{"id": ids[2], "result": "finished"}]));
    let unknown = home.run(&["cancel", &ids[2], "1", "--output", "json"]);
    assert_eq!(unknown.code, 3);
    let results: serde_json::Value = serde_json::from_str(&unknown.out).unwrap();
    assert_eq!(results[1]["result"], "notFound");
}

/// Before the fix, the command stopped at the second task and said nothing of the first one.
#[tokio::test]
async fn a_task_that_cannot_be_cancelled_or_retried_hides_no_other() {
    let (test, home, dead) = with_dead().await;
    let ids: Vec<String> = (0..3).map(|_| home.enqueue("ok")).collect();
    test.run(format!(
        "create function public.refuse() returns trigger language plpgsql as $$ begin
           if {0} = any (new.firsts) then raise 'this row is bad'; end if; return new; end $$;
         create trigger refuse before insert on rowlock.receipt for each row \
         execute function public.refuse();
         create function public.keep() returns trigger language plpgsql as $$ begin
           if old.id = {1} then raise 'this row is bad'; end if; return old; end $$;
         create trigger keep before delete on rowlock.dead for each row execute function public.keep()",
        ids[1], dead[0]
    ))
    .await;
    let printed = home.run(&["cancel", &ids[0], &ids[1], &ids[2], "--output", "json"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    let results: serde_json::Value = serde_json::from_str(&printed.out).unwrap();
    assert_eq!(results[0], json!({"id": ids[0], "result": "cancelled"}));
    assert_eq!(results[1]["result"], "failed");
    assert!(results[1]["error"].as_str().unwrap().contains("this row is bad"), "{results}");
    assert_eq!(results[2], json!({"id": ids[2], "result": "cancelled"}));
    assert!(printed.err.contains(&format!("task {}: ", ids[1])), "{printed:?}");
    let printed = home.run(&["retry", &dead[0], &dead[1], "--output", "json"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    let results: serde_json::Value = serde_json::from_str(&printed.out).unwrap();
    assert_eq!((&results["retried"], &results["failed"][0]["id"]), (&json!(1), &json!(dead[0])));
    assert_eq!(home.state(&dead[1]), "available");
}

/// Before the fix, it said that nothing waited.
#[tokio::test]
async fn the_status_shows_suspects_that_wait() {
    let (test, home, _) = with_dead().await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    instance.settle(&claimed, &Outcome::HandlerEnded).await;
    let value = home.json(&["status"]);
    assert_eq!((&value[0]["suspects"], &value[0]["available"]), (&json!(1), &json!(0)));
    assert!(value[0]["oldestSuspectSeconds"].as_f64().is_some_and(|seconds| seconds < 60.0), "{value}");
    let shown = home.ok(&["status"]);
    assert!(shown.contains("SUSPECTS") && shown.contains("1 for "), "{shown}");
}

#[tokio::test]
async fn a_queue_is_deleted_when_nothing_is_unfinished_or_by_force() {
    let (_test, home, _ids) = with_dead().await;
    home.enqueue("ok");
    let refused = home.run(&["delete", "mail"]);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.err.contains("has 1 instances"), "{refused:?}");
    let deleted = home.json(&["delete", "mail", "--force"]);
    assert!(deleted["cancelled"].as_i64().is_some_and(|tasks| tasks > 0), "{deleted}");
    assert_eq!(home.run(&["delete", "mail"]).code, 3);
}

#[tokio::test]
async fn every_command_answers_in_json() {
    let (_test, home, ids) = with_dead().await;
    let options =
        ["enqueue", "mail", "send", "{}", "--delay", "1h", "--priority", "0", "--max-attempts", "2"];
    let id = home.json(&options)["id"].as_str().unwrap().to_owned();
    let details = home.json(&["task", &id]);
    assert_eq!(
        (&details["state"], &details["priority"], &details["maxAttempts"]),
        (&json!("scheduled"), &json!(0), &json!(2))
    );
    let status = home.json(&["status"]);
    assert_eq!(
        (&status[0]["queue"], &status[0]["dead"], &status[0]["scheduled"]),
        (&json!("mail"), &json!(2), &json!(1))
    );
    assert_eq!(home.json(&["tasks", "--state", "available"])[0]["id"], ids[2]);
    let migrated = home.json(&["migrate"]);
    assert_eq!((&migrated["from"], &migrated["notes"]), (&json!(rowlock_queue::SCHEMA_VERSION), &json!([])));
}

#[tokio::test]
async fn a_payload_comes_from_standard_input_too() {
    let (test, home, _) = with_dead().await;
    home.write("payload.json", "{\"to\":   \"a\"}");
    let mut command = home.command(crate::harness::ROWLOCK, &["enqueue", "mail", "send", "-"]);
    command.stdin(std::fs::File::open(home.path().join("payload.json")).unwrap());
    command.env("ROWLOCK_DATABASE_URL", server::url(&test.name));
    let printed = crate::harness::Said::of(&command.output().unwrap());
    let id = printed.out.trim();
    assert!(home.ok(&["task", id]).ends_with("payload   {\"to\":   \"a\"}"), "as it was written");
    assert_eq!(home.json(&["task", id])["payload"], json!({"to": "a"}));
}
