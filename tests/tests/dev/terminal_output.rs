//! Text of producers, handlers and servers is escaped for the terminal.

use rowlock_queue::Outcome;
use rowlock_tests::{TestDb, server};
use sqlx::{Executor, Row};

use crate::harness::{Home, ROWLOCK, until};

/// Clears the screen, reverses the writing direction, and has an 8-bit control character.
const HOSTILE: &str = "\u{1b}[2J\u{202e}\u{9b}31m\u{7f}\r\nqueue     other";

/// Characters that must never reach a terminal.
fn is_obeyed(letter: char) -> bool {
    (letter.is_control() && !matches!(letter, '\n' | '\t'))
        || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn check(what: &str, shown: &str) {
    assert_eq!(shown.chars().filter(|letter| is_obeyed(*letter)).count(), 0, "{what}: {shown:?}");
    assert!(shown.contains(r"\u{1b}[2J\u{202e}\u{9b}31m\u{7f}"), "{what}: {shown:?}");
}

/// A dead task with all of these in its type and error, and some in its payload.
async fn with_hostile() -> (TestDb, Home, String) {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    let id = home.enqueue("ok");
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(1).await;
    instance.settle(&claimed, &Outcome::Dead { error: HOSTILE.into() }).await;
    let literal = HOSTILE.replace('\r', "\\r").replace('\n', "\\n");
    // Inserted directly, since enqueue refuses it.
    test.run(format!("update rowlock.task set type = E'{literal}', payload = E'\"\\u202e\\u007f\"'")).await;
    (test, home, id)
}

#[tokio::test]
async fn every_command_escapes_control_characters() {
    let (_test, home, id) = with_hostile().await;
    let details = home.ok(&["task", &id]);
    check("task", &details);
    assert_eq!(details.lines().filter(|line| line.starts_with("queue ")).count(), 1, "{details}");
    let listed = home.ok(&["tasks"]);
    check("tasks", &listed);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let refused = home.run(&["enqueue", HOSTILE, "send"]);
    check("an error of the server", &refused.err);
    assert_eq!(refused.err.lines().filter(|line| line.starts_with("queue ")).count(), 0, "{}", refused.err);
    let programs = home.run(&["task", &id, "--output", "json"]).out;
    assert!(programs.contains("\"payload\":\"\u{202e}\u{7f}\""), "byte for byte: {programs:?}");
}

/// In a terminal the output is JSON with escapes.
#[tokio::test]
async fn json_in_a_terminal_escapes_control_characters() {
    let (test, home, id) = with_hostile().await;
    let words = format!("{ROWLOCK} task {id} --output json");
    let mut terminal = home.command("script", &["-qefc", &words, "/dev/null"]);
    terminal.env("ROWLOCK_DATABASE_URL", server::url(&test.name));
    let shown = String::from_utf8(terminal.output().unwrap().stdout).unwrap().replace("\r\n", "\n");
    assert_eq!(shown.chars().filter(|letter| is_obeyed(*letter)).count(), 0, "{shown:?}");
    let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&value["payload"], &value["type"]), (&"\u{202e}\u{7f}".into(), &HOSTILE.into()));
}

/// Before the fix, numbers beyond 2⁵³ and duplicate keys changed in the copied task.
#[tokio::test]
async fn a_payload_in_json_output_is_byte_for_byte_the_enqueued_one() {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    for payload in [
        r#"{"n": 123456789012345678901234567890}"#,
        r#"{"z":0.1000000000000000055511151231257827}"#,
        r#"{"b":1,"a":2,  "b":3, "e": 1E400, "u": "\u0000\ud800"}"#,
        r#"{"id": 1970670598291982290}"#,
    ] {
        let id = home.ok(&["enqueue", "mail", "send", payload]);
        let printed = home.ok(&["task", &id, "--output", "json"]);
        assert!(printed.contains(&format!("\"payload\":{payload},")), "{printed}");
        assert!(printed.contains(&format!("\"id\":\"{id}\"")), "{printed}");
    }
}

#[tokio::test]
async fn a_handlers_output_reaches_the_terminal_unchanged() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    home.write("loud.py", "print('\\033[1mcoloured', flush=True)\nexec(open('handler.py').read())\n");
    home.edit("handler.py", "loud.py");
    let mut dev = home.dev();
    let id = home.enqueue_when_declared();
    home.go();
    assert!(dev.wait_for("coloured").contains('\u{1b}'));
    until("it is done", || home.state(&id) == "completed");
    dev.stop();
}

/// Before the fix, one such task made the whole list fail.
#[tokio::test]
async fn a_partly_unreadable_task_is_listed_with_the_reason() {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    let good = home.enqueue("ok");
    // Only new sessions see this encoding: `migrate` refuses such a database.
    let no_encoding = "update pg_database set encoding = pg_char_to_encoding('SQL_ASCII') where datname = ";
    test.run(format!("{no_encoding}'{}'", test.name)).await;
    // `café` as a client of LATIN1 writes it.
    let latin = r"convert_from('\x636166e9', 'SQL_ASCII')";
    let enqueue = format!("select rowlock.enqueue('mail', {latin}, ('\"' || {latin} || '\"')::json)");
    let bad: i64 = test.session().await.fetch_one(sqlx::AssertSqlSafe(enqueue)).await.unwrap().get(0);
    let listed = home.ok(&["tasks", "--state", "available"]);
    assert!(listed.contains(&good) && listed.contains(&format!("{bad}")), "{listed}");
    let why = format!("task {bad} cannot be read completely: the type is not UTF-8: byte 3 of it is 0xe9");
    assert_eq!(listed.lines().last(), Some(why.as_str()), "{listed}");
    let shown = home.ok(&["task", &bad.to_string()]);
    assert!(shown.contains("state     available") && !shown.contains("\npayload "), "{shown}");
    assert!(shown.contains("unreadable the payload is not UTF-8: byte 4 of it is 0xe9"), "{shown}");
    let programs = home.ok(&["task", &bad.to_string(), "--output", "json"]);
    let programs: serde_json::Value = serde_json::from_str(&programs).unwrap();
    assert!(
        programs["payload"].is_null() && programs["unreadable"].as_array().unwrap().len() == 2,
        "{programs}"
    );
    assert!(home.ok(&["cancel", &bad.to_string()]).contains("cancelled"));
}
