//! The command line's arguments. Doc comments are the help.

use clap::{Parser, Subcommand, ValueEnum};

/// Benchmarks of Rowlock and its peers
#[derive(Debug, Parser)]
#[command(name = "rowlock-bench", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure enqueue, drain (and River's), latency, HTTP (and wrk's), memory and the cost of an idle
    /// instance
    Main(MainArgs),
    /// Measure how soon the operator scales up, and what it costs
    Operator(OperatorArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct OperatorArgs {
    /// Number of TaskQueues
    #[arg(long, default_value_t = 100)]
    pub(crate) queues: u32,
    /// How often to scale from 0 to 100 pods; from 0 to 1 twice as often
    #[arg(long, default_value_t = 5)]
    pub(crate) repeats: u32,
    /// Seconds to measure the idle operator
    #[arg(long, default_value_t = 60)]
    pub(crate) window: u64,
}

impl OperatorArgs {
    /// Whether the run is long enough for published numbers.
    pub(crate) fn is_complete(&self) -> bool {
        self.queues >= 100 && self.repeats >= 5 && self.window >= 60
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct MainArgs {
    /// Connection string of a superuser on an existing server [default: start a server]
    #[arg(long, env = "ROWLOCK_BENCH_DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
    /// Factor for numbers of tasks and lengths of windows; below 1 for a quick run
    #[arg(long, default_value_t = 1.0)]
    pub(crate) scale: f64,
    /// How often to measure each row; the median counts
    #[arg(long, default_value_t = 3)]
    pub(crate) repeats: u32,
    /// Measure only these groups of rows
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<Group>,
}

/// Rows that are measured together, so that each ratio is from one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    Enqueue,
    Drain,
    Latency,
    Http,
    Memory,
    Idle,
}

impl MainArgs {
    pub(crate) fn wants(&self, group: Group) -> bool {
        self.only.is_empty() || self.only.contains(&group)
    }

    /// Whether the run is complete and long enough for published numbers.
    pub(crate) fn is_complete(&self) -> bool {
        self.only.is_empty() && self.scale >= 1.0 && self.repeats >= 3
    }
}
