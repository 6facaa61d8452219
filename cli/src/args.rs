//! The command line's arguments. Doc comments are the help.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use rowlock_crds::Dur;
use rowlock_queue::{DecidedAt, TaskId, TaskState};
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
ROWLOCK_DATABASE_CA_FILE names the CA certificate to verify the server with.

Pausing: no command pauses a queue. Set spec.paused of its TaskQueue to true.";

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
    /// Show queues with their tasks by state, instances and slots
    Status(Status),
    /// Explain why a queue has its number of pods and slots
    Why(Why),
    /// Simulate a load, and compare Rowlock's scaling with KEDA, Knative and an optimal schedule
    Simulate(Simulate),
    /// Print the fields that your own Deployment needs, with the worker container (`targetRef`)
    Sidecar(Sidecar),
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

// Without clap's `env`, which treats the value of a variable like that of a flag. Here a flag takes
// precedence over every variable.
const DATABASE_URL_HELP: &str = "Connection string of the database [env: ROWLOCK_DATABASE_URL]";
const DATABASE_URL_FILE_HELP: &str = "File with the connection string [env: ROWLOCK_DATABASE_URL_FILE]";
const DATABASE_CA_FILE_HELP: &str = "PEM file with the CA certificate of the database; \
    sslmode=require and a URL without sslmode then mean verify-full [env: ROWLOCK_DATABASE_CA_FILE]";

const DEV_CA_FILE_HELP: &str = "With --database-url: PEM file with the CA certificate of that server \
    [env: ROWLOCK_DATABASE_CA_FILE]";

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
    #[arg(long, value_name = "FILE", requires = "database_url", help = DEV_CA_FILE_HELP)]
    pub(crate) database_ca_file: Option<PathBuf>,
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
    /// Attempts after which the task is dead, 1 to 1000, in place of the queue's `maxAttempts`
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) max_attempts: Option<u16>,
    /// Trace that the task belongs to: a traceparent of W3C Trace Context
    #[arg(long, value_name = "TRACEPARENT")]
    pub(crate) traceparent: Option<String>,
    /// State of that trace: a tracestate of W3C Trace Context
    #[arg(long, value_name = "STATE", requires = "traceparent")]
    pub(crate) tracestate: Option<String>,
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
pub(crate) struct Why {
    #[command(flatten)]
    pub(crate) database: Database,
    /// Name of the queue
    pub(crate) queue: String,
    /// Explain the number at this time: 2026-03-01T08:00:00Z, or how long ago, for example 30m
    #[arg(long, value_name = "TIME", value_parser = decided_at)]
    pub(crate) at: Option<DecidedAt>,
    /// Number of changes to list, at most
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

/// Where the load comes from: one of the two.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct LoadSource {
    /// CSV file with the load: the header `at,tasks,seconds`, optionally with `delay` and `variation`
    #[arg(long, value_name = "FILE")]
    pub(crate) load: Option<PathBuf>,
    /// Replay the tasks that came to the queue within this time, for example 24h, as its database has them
    #[arg(long, value_name = "DURATION", conflicts_with = "spread")]
    pub(crate) from_db: Option<Dur>,
}

#[derive(Args)]
pub(crate) struct Simulate {
    /// TaskQueue manifest, or a folder of manifests
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) source: LoadSource,
    #[command(flatten)]
    pub(crate) database: Database,
    /// Name of the queue, if there are several TaskQueues
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// Change a field, for example spec.workers.autoscaling.waitTarget=2s; may be repeated
    #[arg(long, value_name = "FIELD=VALUE")]
    pub(crate) set: Vec<String>,
    /// How long a pod takes to start
    #[arg(long, value_name = "DURATION", default_value = "3s")]
    pub(crate) pod_start: Dur,
    /// Spread the tasks of a line evenly over this time, instead of enqueueing them together
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub(crate) spread: Dur,
    /// With --from-db: how long a task takes on average [default: as its workers measured last]
    #[arg(long, value_name = "DURATION", conflicts_with = "load")]
    pub(crate) task_duration: Option<Dur>,
    /// Seed of all random numbers; the same seed gives the same result
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Write the curves of each autoscaler to this file as an SVG picture
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Leave out the oracle (the optimal schedule), whose search takes most of the time
    #[arg(long)]
    pub(crate) no_oracle: bool,
}

/// The worker's image, as `make images` names it.
const WORKER_IMAGE: &str = concat!("rowlock-worker:", env!("CARGO_PKG_VERSION"));

#[derive(Args)]
pub(crate) struct Sidecar {
    /// TaskQueue manifest, or a folder of manifests
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Name of the queue, if there are several TaskQueues
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// Image of the worker
    #[arg(long, value_name = "IMAGE", default_value = WORKER_IMAGE)]
    pub(crate) image: String,
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

/// A time, or how long ago.
fn decided_at(text: &str) -> Result<DecidedAt, String> {
    if let Ok(ago) = text.parse::<Dur>() {
        return Ok(DecidedAt::Ago(ago.as_duration()));
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(time) if time >= jiff::Timestamp::UNIX_EPOCH => Ok(DecidedAt::By(time.to_string())),
        Ok(_) => Err("write a time after 1970, such as 2026-03-01T08:00:00Z".to_owned()),
        Err(_) => {
            Err("write a time with its offset, such as 2026-03-01T08:00:00Z, or how long ago, such as 30m"
                .to_owned())
        }
    }
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
    fn a_time_has_an_offset_or_is_a_duration() {
        assert_eq!(decided_at("30m"), Ok(DecidedAt::Ago(std::time::Duration::from_mins(30))));
        let summer = "2026-07-01T10:00:00+02:00";
        assert_eq!(decided_at(summer), Ok(DecidedAt::By("2026-07-01T08:00:00Z".to_owned())));
        for wrong in ["", "yesterday", "2026-07-01T10:00:00", "2026-02-30T10:00:00Z", "-5m", "10:00"] {
            assert!(decided_at(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_ranges_of_flags_are_documented() {
        let page = std::fs::read_to_string("../docs/limits.md").unwrap();
        for (command, flag, range) in [
            (&["enqueue", "emails", "send"][..], "--priority", 0..=3),
            (&["enqueue", "emails", "send"], "--max-attempts", 1..=1000),
            (&["tasks"], "--limit", 1..=1000),
            (&["why", "emails"], "--limit", 1..=1000),
        ] {
            let row = format!("| `rowlock {} {flag}` | {} to {} |", command[0], range.start(), range.end());
            assert!(page.contains(&row), "{row}");
            let accepts = |value: i64| {
                let value = format!("{flag}={value}");
                Cli::try_parse_from([&["rowlock"], command, &[&value]].concat()).is_ok()
            };
            assert!(accepts(*range.start()) && accepts(*range.end()), "{row}");
            assert!(!accepts(range.start() - 1) && !accepts(range.end() + 1), "{row}");
        }
    }

    /// People look for a command that pauses.
    #[test]
    fn the_help_says_how_to_pause() {
        assert!(Cli::command().render_help().to_string().contains("Set spec.paused"));
    }

    #[test]
    fn every_exit_code_is_in_the_help() {
        let help = Cli::command().render_help().to_string();
        for code in crate::failure::ALL_CODES {
            assert!(help.contains(&format!("\n  {code}  ")), "{code} is not in\n{help}");
        }
    }
}
