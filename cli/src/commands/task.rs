//! `rowlock task`

use crate::args::One;
use crate::database;
use crate::failure::Failure;
use crate::output::Output;
use crate::visible::{field, word};
use rowlock_queue::{Failure as Failed, Story, TaskId};
use serde::Serialize;
use serde_json::value::RawValue;

pub(crate) async fn run(args: One, output: Output) -> Result<(), Failure> {
    let One { database, id } = args;
    let db = database::open_to_read(database).await?;
    let Some(story) = rowlock_queue::story(&db, id).await? else {
        let hint = "finished tasks are deleted after `cleanup` of their TaskQueue";
        return Err(Failure::not_found(format!("there is no task {id}")).hint(hint));
    };
    output.result(|| text(&story), &Shown::of(&story))
}

fn text(story: &Story) -> String {
    let mut lines = vec![
        format!("task      {}", story.id),
        format!("queue     {}", word(&story.queue)),
        format!("type      {}", word(&story.kind)),
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
        optional
            .iter()
            .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name:<9} {}", field(value)))),
    );
    if let (Some(first), Some(last)) = (&story.first_snoozed_at, &story.snoozed_at) {
        lines.push(format!("put off   {} times since {first}, last {last}", story.snoozes));
    }
    for failure in &story.failures {
        let error = field(&failure.error);
        lines.push(match failure.attempt {
            0 => format!("stopped   {}: {error}", failure.at),
            attempt => format!("failed    {} attempt {attempt}: {error}", failure.at),
        });
    }
    lines.extend(story.unreadable.iter().map(|why| format!("unreadable {why}")));
    lines.join("\n")
}

/// Attempts used, and the one that runs.
fn begun(story: &Story) -> u16 {
    story.attempt.saturating_add(u16::from(story.state == "running"))
}

/// A task for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    id: TaskId,
    queue: &'a str,
    r#type: &'a str,
    state: &'a str,
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
    failures: &'a [Failed],
    payload: Option<Payload<'a>>,
    /// The handler's answer, which need not be JSON, as a string.
    result: Option<&'a str>,
    /// What of it cannot be read, and why.
    unreadable: &'a [String],
}

/// The payload as it was enqueued, byte for byte: numbers beyond 2⁵³, the order of keys and double ones are
/// somebody's.
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
    fn of(story: &'a Story) -> Self {
        Self {
            id: story.id,
            queue: &story.queue,
            r#type: &story.kind,
            state: &story.state,
            priority: story.priority,
            attempt: begun(story),
            max_attempts: story.max_attempts,
            enqueued_at: &story.enqueued_at,
            due_at: story.due_at.as_deref(),
            finished_at: story.finished_at.as_deref(),
            instance: story.instance.as_deref(),
            snoozes: story.snoozes,
            first_snoozed_at: story.first_snoozed_at.as_deref(),
            snoozed_at: story.snoozed_at.as_deref(),
            failures: &story.failures,
            payload: story.payload.as_deref().map(Payload::of),
            result: story.result.as_deref(),
            unreadable: &story.unreadable,
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
