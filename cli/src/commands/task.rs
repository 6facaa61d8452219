//! `rowlock task`

use crate::args::One;
use crate::database;
use crate::failure::Failure;
use crate::output::Output;
use rowlock_queue::Story;
use serde_json::{Value, json};

pub(crate) async fn run(args: One, output: Output) -> Result<(), Failure> {
    let One { database, id } = args;
    let db = database::open(database).await?;
    let Some(story) = rowlock_queue::story(&db, id).await? else {
        let hint = "finished tasks are deleted after `cleanup` of their TaskQueue";
        return Err(Failure::not_found(format!("there is no task {id}")).hint(hint));
    };
    output.result(|| text(&story), &value(&story));
    Ok(())
}

fn text(story: &Story) -> String {
    let mut lines = vec![
        format!("task      {}", story.id),
        format!("queue     {}", story.queue),
        format!("type      {}", story.kind),
        format!("state     {}", story.state),
        format!("priority  {}", story.priority),
        format!("attempts  {} of {}", begun(story), story.max_attempts),
        format!("enqueued  {}", story.enqueued_at),
    ];
    let optional = [
        ("due", &story.due_at),
        ("finished", &story.finished_at),
        ("instance", &story.instance),
        ("payload", &story.payload),
        ("result", &story.result),
    ];
    lines.extend(
        optional.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name:<9} {value}"))),
    );
    if let (Some(first), Some(last)) = (&story.first_snoozed_at, &story.snoozed_at) {
        lines.push(format!("put off   {} times since {first}, last {last}", story.snoozes));
    }
    for failure in &story.failures {
        lines.push(match failure.attempt {
            0 => format!("stopped   {}: {}", failure.at, failure.error),
            attempt => format!("failed    {} attempt {attempt}: {}", failure.at, failure.error),
        });
    }
    lines.join("\n")
}

/// Attempts used, and the one that runs.
fn begun(story: &Story) -> u16 {
    story.attempt.saturating_add(u16::from(story.state == "running"))
}

fn json_or_text(payload: &str) -> Value {
    serde_json::from_str(payload).unwrap_or_else(|_| Value::from(payload))
}

fn value(story: &Story) -> Value {
    let failures = story.failures.iter().map(|failure| {
        json!({
            "at": failure.at,
            "attempt": failure.attempt,
            "instance": failure.instance,
            "error": failure.error,
        })
    });
    json!({
        "id": story.id.to_string(),
        "queue": story.queue,
        "type": story.kind,
        "state": story.state,
        "priority": story.priority,
        "attempt": begun(story),
        "maxAttempts": story.max_attempts,
        "enqueuedAt": story.enqueued_at,
        "dueAt": story.due_at,
        "finishedAt": story.finished_at,
        "instance": story.instance,
        "snoozes": story.snoozes,
        "firstSnoozedAt": story.first_snoozed_at,
        "snoozedAt": story.snoozed_at,
        "failures": failures.collect::<Vec<_>>(),
        "payload": story.payload.as_deref().map(json_or_text),
        "result": story.result,
    })
}
