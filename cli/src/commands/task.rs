//! `rowlock task`

use crate::args::OneTask;
use crate::database;
use crate::escape::{field, word};
use crate::failure::Failure;
use crate::output::Output;
use rowlock_queue::{TaskDetails, TaskError, TaskId, TaskState};
use serde::Serialize;
use serde_json::value::RawValue;

pub(crate) async fn run(args: OneTask, output: Output) -> Result<(), Failure> {
    let OneTask { database, id } = args;
    let db = database::open_to_read(database).await?;
    let Some(details) = rowlock_queue::describe_task(&db, id).await? else {
        let hint = "finished tasks are deleted after the time in `spec.cleanup` of their TaskQueue";
        return Err(Failure::not_found(format!("there is no task {id}")).hint(hint));
    };
    output.result(|| text(&details), &Shown::of(&details))
}

fn text(details: &TaskDetails) -> String {
    let mut lines = vec![
        format!("task      {}", details.id),
        format!("queue     {}", word(&details.queue)),
        format!("type      {}", word(&details.kind)),
        format!("state     {}", details.state),
        format!("priority  {}", details.priority),
        format!("attempts  {} of {}", attempts_started(details), details.max_attempts),
        format!("enqueued  {}", details.enqueued_at),
    ];
    let optional = [
        ("due", &details.due_at),
        ("finished", &details.finished_at),
        ("instance", &details.instance),
        ("trace", &details.trace_id),
        ("payload", &details.payload),
        ("result", &details.result),
    ];
    lines.extend(
        optional
            .iter()
            .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name:<9} {}", field(value)))),
    );
    if let (Some(first), Some(last)) = (&details.first_snoozed_at, &details.snoozed_at) {
        lines.push(format!("snoozed   {} times since {first}, last {last}", details.snoozes));
    }
    if details.suspect {
        lines.push("suspect   it runs alone until the handler has answered".to_owned());
    }
    for failed in &details.errors {
        let error = field(&failed.error);
        lines.push(match failed.attempt {
            0 => format!("stopped   {}: {error}", failed.at),
            attempt => format!("failed    {} attempt {attempt}: {error}", failed.at),
        });
    }
    lines.extend(details.unreadable.iter().map(|why| format!("unreadable {why}")));
    lines.join("\n")
}

/// Attempts used up, and the one that is running.
fn attempts_started(details: &TaskDetails) -> u16 {
    details.attempt.saturating_add(u16::from(details.state == TaskState::Running))
}

/// The JSON form of a task.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    id: TaskId,
    queue: &'a str,
    r#type: &'a str,
    state: TaskState,
    priority: u8,
    attempt: u16,
    max_attempts: u16,
    enqueued_at: &'a str,
    due_at: Option<&'a str>,
    finished_at: Option<&'a str>,
    instance: Option<&'a str>,
    snoozes: u32,
    first_snoozed_at: Option<&'a str>,
    snoozed_at: Option<&'a str>,
    /// The handler ended while it ran.
    suspect: bool,
    /// The trace that its producer gave.
    trace_id: Option<&'a str>,
    errors: &'a [TaskError],
    payload: Option<Payload<'a>>,
    /// The handler's result. It need not be JSON, so it is a string.
    result: Option<&'a str>,
    /// The parts that cannot be read, and why.
    unreadable: &'a [String],
}

/// The payload byte for byte as it was enqueued, since a user may depend on numbers above 2⁵³, the order of
/// keys or duplicate keys.
#[derive(Serialize)]
#[serde(untagged)]
enum Payload<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

impl<'a> Payload<'a> {
    fn of(text: &'a str) -> Self {
        serde_json::from_str(text).map_or(Self::Text(text), Self::Json)
    }
}

impl<'a> Shown<'a> {
    fn of(details: &'a TaskDetails) -> Self {
        Self {
            id: details.id,
            queue: &details.queue,
            r#type: &details.kind,
            state: details.state,
            priority: details.priority,
            attempt: attempts_started(details),
            max_attempts: details.max_attempts,
            enqueued_at: &details.enqueued_at,
            due_at: details.due_at.as_deref(),
            finished_at: details.finished_at.as_deref(),
            instance: details.instance.as_deref(),
            snoozes: details.snoozes,
            first_snoozed_at: details.first_snoozed_at.as_deref(),
            snoozed_at: details.snoozed_at.as_deref(),
            suspect: details.suspect,
            trace_id: details.trace_id.as_deref(),
            errors: &details.errors,
            payload: details.payload.as_deref().map(Payload::of),
            result: details.result.as_deref(),
            unreadable: &details.unreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_shown_byte_for_byte() {
        for text in [
            "123456789012345678901234567890",
            "{\"z\":0.1000000000000000055511151231257827}",
            "{\"b\":1,  \"a\":2,\n\"b\":3, \"id\": 1970670598291982290}",
            "[1E400, \"\\u0000\\ud800\", -0]",
        ] {
            assert_eq!(serde_json::to_string(&Payload::of(text)).unwrap(), text);
        }
        let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
        assert_eq!(serde_json::to_string(&Payload::of(&deep)).unwrap(), deep);
        assert_eq!(serde_json::to_string(&Payload::of("{")).unwrap(), "\"{\"");
    }
}
