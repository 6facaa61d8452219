//! Fills the queue before a drain.

use anyhow::Result;
use sqlx::{Connection, Executor, PgConnection};

use crate::testbed::Database;

/// How tasks are enqueued, which decides how many rows a claim has to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// One call of `rowlock.enqueue` per task: one row per task, the worst case.
    Single,
    /// `rowlock.enqueue_many`, a thousand tasks per call.
    Bulk,
}

/// Commits after every hundred tasks. A transaction over 50 ms old would give its rows a new order at commit,
/// and producers that enqueue one task have short transactions.
const SINGLE: &str = "do $$ begin
  for i in 1 .. current_setting('bench.tasks')::int loop
    perform rowlock.enqueue('bench', 'noop', current_setting('bench.payload')::json);
    if i % 100 = 0 then commit; end if;
  end loop;
end $$";

const BULK: &str = "do $$ declare
  tasks int := current_setting('bench.tasks'); batch int := 1000;
begin
  while tasks > 0 loop
    perform rowlock.enqueue_many('bench', 'noop',
      array_fill(current_setting('bench.payload')::json, array[least(tasks, batch)]));
    commit;
    tasks := tasks - batch;
  end loop;
end $$";

pub(crate) async fn load(database: &Database, tasks: u32, how: Load) -> Result<()> {
    load_with(database, tasks, how, "{}").await
}

pub(crate) async fn load_with(database: &Database, tasks: u32, how: Load, payload: &str) -> Result<()> {
    let mut connection = PgConnection::connect(&database.url).await?;
    sqlx::query("select set_config('bench.tasks', $1, false), set_config('bench.payload', $2, false)")
        .bind(tasks.to_string())
        .bind(payload)
        .execute(&mut connection)
        .await?;
    // Sent as a script, because a prepared block may not commit.
    connection
        .execute(match how {
            Load::Single => SINGLE,
            Load::Bulk => BULK,
        })
        .await?;
    connection.close().await?;
    Ok(())
}
