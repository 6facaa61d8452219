//! `rowlock retry`, `rowlock cancel` and `rowlock delete`

use crate::args::{Delete, ManyTasks, Retry};
use crate::database;
use crate::failure::Failure;
use crate::output::Output;
use rowlock_queue::{Cancelled, TaskId};
use serde_json::json;

pub(crate) async fn retry(args: Retry, output: Output) -> Result<(), Failure> {
    let Retry { database, ids, all_dead_of } = args;
    let db = database::open(database).await?;
    let (mut retried, mut others) = (0, Vec::new());
    if let Some(queue) = &all_dead_of {
        database::check_queue(&db, queue).await?;
        retried = rowlock_queue::retry_all_dead(&db, queue).await?;
    }
    for id in ids {
        match rowlock_queue::retry(&db, &[id]).await? {
            0 => others.push(match rowlock_queue::describe_task(&db, id).await? {
                Some(details) => format!("{id} is {}", details.state),
                None => format!("there is no task {id}"),
            }),
            count => retried += count,
        }
    }
    let written = output.result(|| format!("{retried} made available again"), &json!({"retried": retried}));
    if others.is_empty() {
        return written;
    }
    Err(Failure::not_found(others.join("; ")).hint("only dead tasks can be retried"))
}

pub(crate) async fn cancel(args: ManyTasks, output: Output) -> Result<(), Failure> {
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

pub(crate) async fn delete(args: Delete, output: Output) -> Result<(), Failure> {
    let Delete { database, queue, force } = args;
    let db = database::open(database).await?;
    let cancelled = rowlock_queue::delete_queue(&db, &queue, force).await?;
    let value = json!({"queue": queue, "cancelled": cancelled});
    output.result(|| format!("{queue} is deleted; {cancelled} tasks cancelled"), &value)
}
