//! A worker as a library: runs tasks of the queue `emails` in this process, without HTTP.
//!
//! The queue must be declared, by `rowlock dev` or by a TaskQueue in Kubernetes. A manifest for `rowlock dev`
//! must not have the annotation `rowlock.dev/dev-command`: it would start a handler that takes some of the
//! tasks. Then, in two terminals:
//!
//! ```sh
//! export ROWLOCK_DATABASE_URL_FILE=mine/.rowlock/database-url
//! cargo run -p rowlock-worker --example in_process -- emails
//! ```
//!
//! ```sh
//! export ROWLOCK_DATABASE_URL_FILE=mine/.rowlock/database-url
//! rowlock enqueue emails email.send '{"to": "anna@example.com"}'
//! ```
//!
//! Ctrl-C drains: the worker claims no new tasks and exits when the running ones have finished. A second
//! Ctrl-C stops them and releases them to the queue.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use rowlock_worker::{Connect, Done, ExitReason, Fail, LogFormat, Shutdown, Task, Worker, install_logging};
use serde::{Deserialize, Serialize};

/// One for heartbeats and NOTIFY, one for everything else.
const CONNECTIONS: u32 = 2;

/// The payload of a task.
#[derive(Deserialize)]
struct Email {
    to: String,
}

/// The result, which `rowlock task` shows.
#[derive(Serialize)]
struct Receipt {
    message_id: String,
}

/// The handler of tasks with the type `email.send`.
async fn send_email(task: Task) -> Result<Done, Fail> {
    // A payload that does not parse makes the task dead: a retry would get the same payload.
    let email: Email = task.parse()?;
    if !email.to.contains('@') {
        return Err(Fail::permanent("the address has no @"));
    }
    // `?` on any other error retries the task as the queue's retry policy says; `Fail::retry_after` and
    // `Fail::snooze` choose the delay. A task runs at least once. So give its id to the mail service, which
    // then recognises a second attempt.
    let message_id = deliver(&email.to, &task.id.to_string()).await?;
    Done::with(&Receipt { message_id })
}

/// In place of a call to a mail service.
async fn deliver(_to: &str, idempotency_key: &str) -> Result<String, std::io::Error> {
    tokio::time::sleep(Duration::from_millis(10)).await;
    Ok(format!("message-{idempotency_key}"))
}

fn database_url() -> Result<String, Box<dyn Error>> {
    let url = match std::env::var("ROWLOCK_DATABASE_URL_FILE") {
        Ok(file) => std::fs::read_to_string(file)?,
        Err(_) => std::env::var("ROWLOCK_DATABASE_URL").map_err(|_| "ROWLOCK_DATABASE_URL is missing")?,
    };
    Ok(url.trim().to_owned())
}

/// Runs tasks until it is asked to stop.
async fn run_workers(queue: &str, shutdown: &Shutdown) -> Result<(), Box<dyn Error>> {
    loop {
        let connect = Connect::new(database_url()?, "in-process example", CONNECTIONS);
        let worker = Worker::builder(connect, queue).slots(20).handler("email.send", send_email).build()?;
        // Waits for the database and the queue, then runs tasks.
        match worker.run(shutdown.clone()).await? {
            ExitReason::Drained => return Ok(()),
            // The database was unreachable until other instances were allowed to run the tasks. Only a new
            // worker, which is a new instance, may claim again.
            ExitReason::Fenced(reason) => tracing::warn!(reason, "fenced: starting a new worker"),
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let queue = std::env::args().nth(1).unwrap_or_else(|| "emails".to_owned());
    let shutdown = Shutdown::new();
    tokio::select! {
        ended = run_workers(&queue, &shutdown) => ended,
        // Stops the worker on signals. A program with its own signal handling calls `shutdown.drain()`
        // instead.
        error = shutdown.on_signals() => Err(error.into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    install_logging(LogFormat::Text);
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the worker failed");
            ExitCode::FAILURE
        }
    }
}
