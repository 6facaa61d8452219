//! The command line's arguments. Doc comments are the help.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use rowlock_crds::Dur;
use rowlock_queue::{TaskId, TaskState};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

const EXIT_CODES: &str = "Exit codes:
  0  success, or the reader of standard output has gone away
  1  failure; the message says why
  2  usage error: a wrong flag, value, manifest or environment variable
  3  not found: there is no such task or queue
  4  database error: unreachable, read-only, too old, or with another schema
  5  the database refused the command: backlog full, payload too large, ...

Connecting: --database-url or --database-url-file. Without them, ROWLOCK_DATABASE_URL_FILE, the \
path of a file with the connection string, and then ROWLOCK_DATABASE_URL. --database-ca-file or \
ROWLOCK_DATABASE_CA_FILE names the CA certificate to verify the server with.";

/// Background tasks in Postgres: enqueue, inspect, retry and cancel tasks, and run Rowlock on this machine
#[derive(Parser)]
#[command(name = "rowlock", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Output format of results and errors
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the TaskQueues of a folder on this machine, with PostgreSQL, until Ctrl-C
    Dev(Dev),
    /// Enqueue a task
    Enqueue(Enqueue),
    /// Show queues with their backlog, dead tasks and workers
    Status(Status),
    /// Show all details of a task
    Task(OneTask),
    /// List tasks in a state
    Tasks(Tasks),
    /// Make dead tasks available again
    Retry(Retry),
    /// Cancel tasks; a running task is asked to stop
    Cancel(ManyTasks),
    /// Delete a queue that no TaskQueue declares any more
    Delete(Delete),
    /// Migrate the database's schema to this release
    Migrate(Migrate),
    /// Claim tasks of one queue and send them to an HTTP handler
    Worker(Box<rowlock_worker::Args>),
    /// Run a command and stop it when standard input closes
    #[command(hide = true)]
    Guard(Guard),
}

// Not clap's own `env`: a flag wins over every variable, and clap would take a variable's value for a flag's.
const DATABASE_URL_HELP: &str = "Connection string of the database [env: ROWLOCK_DATABASE_URL]";
const DATABASE_URL_FILE_HELP: &str = "File with the connection string [env: ROWLOCK_DATABASE_URL_FILE]";
const DATABASE_CA_FILE_HELP: &str = "PEM file with the CA certificate of the database; \
    sslmode=require and a URL without sslmode then mean verify-full [env: ROWLOCK_DATABASE_CA_FILE]";

#[derive(Args)]
pub(crate) struct Database {
    #[arg(long = "database-url", value_name = "URL", conflicts_with = "url_file", help = DATABASE_URL_HELP)]
    pub(crate) url: Option<String>,
    #[arg(long = "database-url-file", value_name = "FILE", help = DATABASE_URL_FILE_HELP)]
    pub(crate) url_file: Option<PathBuf>,
    #[arg(long = "database-ca-file", value_name = "FILE", help = DATABASE_CA_FILE_HELP)]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Dev {
    /// Folder of TaskQueue manifests, or one manifest file
    #[arg(short, long, value_name = "DIR")]
    pub(crate) file: PathBuf,
    /// Folder for the database, its password and logs [default: DIR/.rowlock]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Use an existing PostgreSQL server instead of starting one
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// Version of the PostgreSQL server to start
    #[arg(long, value_name = "VERSION", default_value = rowlock_local::postgres::DEFAULT_VERSION)]
    pub(crate) postgres: String,
    /// Port of that server [default: a free port]
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Address to serve /metrics and /targets on; port 0 means a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Demo: enqueue N tasks, wait until all are done and the queue is scaled to zero, then exit
    #[arg(long, value_name = "N")]
    pub(crate) demo: Option<u32>,
}

#[derive(Args)]
pub(crate) struct Enqueue {
    #[command(flatten)]
    pub(crate) database: Database,
    /// Name of the queue
    pub(crate) queue: String,
    /// Type of the task
    #[arg(value_name = "TYPE")]
    pub(crate) task_type: String,
    /// Payload as JSON; `-` reads it from standard input
    #[arg(default_value = "{}")]
    pub(crate) payload: String,
    /// Priority, 0 to 3; 0 is claimed first [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=3))]
    pub(crate) priority: Option<u8>,
    /// Delay before the task may run, for example 30s or 1h30m
    #[arg(long)]
    pub(crate) delay: Option<Dur>,
    /// Attempts after which the task is dead, in place of the queue's `maxAttempts`
    #[arg(long)]
    pub(crate) max_attempts: Option<u16>,
}

#[derive(Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) database: Database,
    /// Refresh every second until Ctrl-C
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Args)]
pub(crate) struct OneTask {
    #[command(flatten)]
    pub(crate) database: Database,
    /// Id of the task
    #[arg(value_parser = task_id)]
    pub(crate) id: TaskId,
}

#[derive(Args)]
pub(crate) struct ManyTasks {
    #[command(flatten)]
    pub(crate) database: Database,
    /// Ids of the tasks
    #[arg(required = true, value_name = "ID", value_parser = task_id)]
    pub(crate) ids: Vec<TaskId>,
}

#[derive(Args)]
pub(crate) struct Tasks {
    #[command(flatten)]
    pub(crate) database: Database,
    /// State of the tasks to list
    #[arg(long, default_value = "dead", value_parser = task_state())]
    pub(crate) state: TaskState,
    /// List only tasks of this queue
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// Number of tasks to list, at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Start after this task id (for paging)
    #[arg(long, value_name = "ID", value_parser = task_id)]
    pub(crate) after: Option<TaskId>,
}

#[derive(Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    pub(crate) database: Database,
    /// Ids of the dead tasks
    #[arg(required_unless_present = "all_dead_of", value_name = "ID", value_parser = task_id)]
    pub(crate) ids: Vec<TaskId>,
    /// Retry all dead tasks of this queue
    #[arg(long, value_name = "QUEUE", conflicts_with = "ids")]
    pub(crate) all_dead_of: Option<String>,
}

#[derive(Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) database: Database,
    /// Name of the queue
    pub(crate) queue: String,
    /// Delete even with running instances or unfinished tasks: stop the instances, cancel the tasks
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    pub(crate) database: Database,
}

#[derive(Args)]
pub(crate) struct Guard {
    #[arg(long, value_delimiter = ',')]
    pub(crate) signals: Vec<String>,
    #[arg(long)]
    pub(crate) patience_millis: u64,
    #[arg(long, default_value_t = 0)]
    pub(crate) linger_millis: u64,
    #[arg(long, requires = "gid")]
    pub(crate) uid: Option<u32>,
    #[arg(long)]
    pub(crate) gid: Option<u32>,
    #[arg(long)]
    pub(crate) records: Option<PathBuf>,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

/// The names of the states, which `--help` lists.
fn task_state() -> impl TypedValueParser<Value = TaskState> {
    PossibleValuesParser::new(TaskState::ALL.map(TaskState::as_str)).try_map(|name| name.parse::<TaskState>())
}

fn task_id(text: &str) -> Result<TaskId, &'static str> {
    text.parse().map_err(|_| "a task id is the number that `rowlock enqueue` printed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_agrees_with_the_definition() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_exit_code_is_in_the_help() {
        let help = Cli::command().render_help().to_string();
        for code in crate::failure::ALL_CODES {
            assert!(help.contains(&format!("\n  {code}  ")), "{code} is not in\n{help}");
        }
    }
}
