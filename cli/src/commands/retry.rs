//! `rowlock retry`

use super::each_task::{each_task, first_failure};
use crate::args::Retry;
use crate::database;
use crate::failure::Failure;
use crate::output::Output;
use serde_json::{Value, json};

pub(crate) async fn run(args: Retry, output: Output) -> Result<(), Failure> {
    let Retry { database, ids, all_dead_of } = args;
    let db = database::open(database).await?;
    let (mut retried, mut others, mut failed) = (0, Vec::new(), Vec::new());
    if let Some(queue) = &all_dead_of {
        database::check_queue(&db, queue).await?;
        retried = rowlock_queue::retry_all_dead(&db, queue).await?;
    }
    let results = each_task(ids, async |id| match rowlock_queue::retry(&db, &[id]).await? {
        0 => Ok((0, rowlock_queue::describe_task(&db, id).await?.map(|details| details.state))),
        count => Ok((count, None)),
    });
    for (id, result) in results.await {
        match result {
            Ok((0, Some(state))) => others.push(format!("{id} is {state}")),
            Ok((0, None)) => others.push(format!("there is no task {id}")),
            Ok((count, _)) => retried += count,
            Err(failure) => failed.push((id, failure)),
        }
    }
    let value = |(id, failure): &(_, Failure)| json!({"id": format!("{id}"), "error": failure.message});
    let mut result = json!({"retried": retried});
    if !failed.is_empty() {
        result["failed"] = Value::Array(failed.iter().map(value).collect());
    }
    let written = output.result(|| format!("{retried} made available again"), &result);
    if let Some(failure) = first_failure(failed.iter().map(|(id, failure)| (*id, failure))) {
        return Err(failure);
    }
    if others.is_empty() {
        return written;
    }
    Err(Failure::not_found(others.join("; ")).hint("only dead tasks can be retried"))
}
