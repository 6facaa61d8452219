//! `rowlock migrate`

use crate::args::Migrate;
use crate::database;
use crate::failure::Failure;
use crate::output::Output;
use serde_json::json;

pub(crate) async fn run(args: Migrate, output: Output) -> Result<(), Failure> {
    let Migrate { database } = args;
    let db = database::open_any(database).await?;
    let report = db.migrate().await?;
    let (from, to) = (report.from, report.to);
    let text = || {
        let first = if from == to {
            format!("the schema is already at version {to}")
        } else {
            format!("migrated the schema from version {from} to {to}")
        };
        std::iter::once(first).chain(report.notes.iter().cloned()).collect::<Vec<_>>().join("\n")
    };
    output.result(text, &json!({"from": from, "to": to, "notes": report.notes}))
}
