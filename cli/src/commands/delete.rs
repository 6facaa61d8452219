//! `rowlock delete`

use crate::args::Delete;
use crate::database;
use crate::failure::Failure;
use crate::output::Output;
use serde_json::json;

pub(crate) async fn run(args: Delete, output: Output) -> Result<(), Failure> {
    let Delete { database, queue, force } = args;
    let db = database::open(database).await?;
    let cancelled = rowlock_queue::delete_queue(&db, &queue, force).await?;
    let value = json!({"queue": queue, "cancelled": cancelled});
    output.result(|| format!("{queue} is deleted; {cancelled} tasks cancelled"), &value)
}
