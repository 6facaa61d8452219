//! `rowlock cancel`

use crate::args::ManyTasks;
use crate::database;
use crate::failure::Failure;
use crate::output::Output;
use rowlock_queue::{Cancelled, TaskId};
use serde_json::json;

pub(crate) async fn run(args: ManyTasks, output: Output) -> Result<(), Failure> {
    let ManyTasks { database, ids } = args;
    let db = database::open(database).await?;
    let mut missing: Vec<TaskId> = Vec::new();
    let mut results = Vec::with_capacity(ids.len());
    let mut written = Ok(());
    for id in ids {
        let (word, shown) = match rowlock_queue::cancel(&db, id).await? {
            Cancelled::Done => ("cancelled", "cancelled"),
            Cancelled::Requested => ("requested", "is running; its instance was asked to stop it"),
            Cancelled::Finished => ("finished", "had already finished"),
            Cancelled::NotFound => {
                missing.push(id);
                ("notFound", "does not exist")
            }
        };
        // Cancels all tasks, even if the output cannot be written.
        written = written.and(output.say(&format!("{id} {shown}")));
        results.push(json!({"id": id.to_string(), "result": word}));
    }
    written = written.and_then(|()| output.result_json(&serde_json::Value::Array(results)));
    match missing.first() {
        Some(id) => Err(Failure::not_found(format!("there is no task {id}"))),
        None => written,
    }
}
