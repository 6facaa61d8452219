//! `rowlock cancel`

use super::each_task::{each_task, first_failure};
use crate::args::ManyTasks;
use crate::database;
use crate::failure::Failure;
use crate::output::Output;
use rowlock_queue::Cancelled;
use serde_json::json;

pub(crate) async fn run(args: ManyTasks, output: Output) -> Result<(), Failure> {
    let ManyTasks { database, ids } = args;
    let db = database::open(database).await?;
    let results = each_task(ids, async |id| rowlock_queue::cancel(&db, id).await).await;
    let mut values = Vec::with_capacity(results.len());
    let mut written = Ok(());
    for (id, result) in &results {
        let (word, shown) = match result {
            Ok(Cancelled::Done) => ("cancelled", "cancelled"),
            Ok(Cancelled::Requested) => ("requested", "is running; its instance was asked to stop it"),
            Ok(Cancelled::Finished) => ("finished", "had already finished"),
            Ok(Cancelled::NotFound) => ("notFound", "does not exist"),
            Err(failure) => ("failed", failure.message.as_str()),
        };
        let value = match result {
            Err(_) => json!({"id": id.to_string(), "result": word, "error": shown}),
            Ok(_) => json!({"id": id.to_string(), "result": word}),
        };
        let is_failed = if result.is_err() { "is not cancelled: " } else { "" };
        written = written.and(output.say(&format!("{id} {is_failed}{shown}")));
        values.push(value);
    }
    written = written.and_then(|()| output.result_json(&serde_json::Value::Array(values)));
    let failed = results.iter().filter_map(|(id, result)| Some((*id, result.as_ref().err()?)));
    let missing = results.iter().find(|(_, result)| matches!(result, Ok(Cancelled::NotFound)));
    match (first_failure(failed), missing) {
        (Some(failure), _) => Err(failure),
        (None, Some((id, _))) => Err(Failure::not_found(format!("there is no task {id}"))),
        (None, None) => written,
    }
}
