//! `rowlock enqueue`

use crate::args::Enqueue;
use crate::database;
use crate::failure::Failure;
use crate::output::Output;
use rowlock_queue::EnqueueOptions;
use serde_json::json;
use std::io::{ErrorKind, Read};

pub(crate) async fn run(args: Enqueue, output: Output) -> Result<(), Failure> {
    let Enqueue { database, queue, task_type, payload, .. } = args;
    let Enqueue { priority, delay, max_attempts, traceparent, tracestate, .. } = args;
    let payload = read_payload(payload)?;
    let db = database::open(database).await?;
    let delay = delay.map(rowlock_crds::Dur::as_duration);
    let options = EnqueueOptions { priority, delay, max_attempts, traceparent, tracestate, notify: None };
    let id = rowlock_queue::enqueue(&db, &queue, &task_type, &payload, &options).await?.to_string();
    output.result(|| id.clone(), &json!({"id": id}))
}

/// Reads the payload and checks it before the database does: the error names the place and needs no
/// connection.
fn read_payload(argument: String) -> Result<String, Failure> {
    let mut payload = argument;
    if payload == "-" {
        payload.clear();
        std::io::stdin().read_to_string(&mut payload).map_err(|error| match error.kind() {
            ErrorKind::InvalidData => Failure::usage("the payload on standard input is not UTF-8 text"),
            _ => Failure::new(format!("standard input: {error}")),
        })?;
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(&payload) {
        Ok(_) => Ok(payload),
        Err(error) => {
            let hint = r#"JSON strings need double quotes, as in '{"to": "anna"}'"#;
            Err(Failure::usage(format!("the payload is not JSON: {error}")).hint(hint))
        }
    }
}
