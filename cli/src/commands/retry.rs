//! `rowlock retry`

use crate::args::Retry;
use crate::database;
use crate::failure::Failure;
use crate::output::Output;
use serde_json::json;

pub(crate) async fn run(args: Retry, output: Output) -> Result<(), Failure> {
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
