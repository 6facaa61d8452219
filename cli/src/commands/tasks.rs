//! `rowlock tasks`

use crate::args::Tasks;
use crate::database;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::table;
use rowlock_queue::TaskSummary;
use serde_json::{Value, json};

pub(crate) async fn run(args: Tasks, output: Output) -> Result<(), Failure> {
    let Tasks { database, state, queue, limit, after } = args;
    let db = database::open_to_read(database).await?;
    if let Some(queue) = &queue {
        database::check_queue(&db, queue).await?;
    }
    let tasks = rowlock_queue::list_tasks(&db, queue.as_deref(), state, limit, after).await?;
    let text = || {
        if tasks.is_empty() {
            return format!("no {state} tasks");
        }
        let header = ["ID", "QUEUE", "TYPE", "STATE", "ATTEMPT", "AT"];
        let lines = std::iter::once(table(&header, &tasks.iter().map(row).collect::<Vec<_>>()));
        lines.chain(tasks.iter().filter_map(fault)).collect::<Vec<_>>().join("\n")
    };
    output.result(text, &Value::Array(tasks.iter().map(value).collect()))
}

fn row(task: &TaskSummary) -> Vec<String> {
    let TaskSummary { id, queue, kind, state, attempt, at, .. } = task;
    vec![id.to_string(), queue.clone(), kind.clone(), state.to_string(), attempt.to_string(), at.clone()]
}

/// Why a task cannot be read completely, for a line below the table.
fn fault(task: &TaskSummary) -> Option<String> {
    let why = task.unreadable.as_ref()?;
    Some(format!("task {} cannot be read completely: {why}", task.id))
}

fn value(task: &TaskSummary) -> Value {
    let TaskSummary { id, queue, kind, state, attempt, at, unreadable } = task;
    json!({"id": id.to_string(), "queue": queue, "type": kind, "state": state, "attempt": attempt, "at": at,
           "unreadable": unreadable})
}
