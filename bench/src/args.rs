//! What may be asked for.

use clap::{Parser, Subcommand, ValueEnum};

/// Benchmarks beside peers
#[derive(Debug, Parser)]
#[command(name = "rowlock-bench", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Enqueue, drain beside River, latency, HTTP beside wrk, memory, and what an idle instance costs
    Main(MainArgs),
    /// How soon the operator asks for pods, and what it costs
    Operator(OperatorArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct OperatorArgs {
    /// How many task queues there are
    #[arg(long, default_value_t = 100)]
    pub(crate) queues: u32,
    /// How often it goes from zero to a hundred pods; and twice as often to one
    #[arg(long, default_value_t = 5)]
    pub(crate) repeats: u32,
    /// How many seconds nothing happens
    #[arg(long, default_value_t = 60)]
    pub(crate) window: u64,
}

impl OperatorArgs {
    /// Numbers to be quoted: everything, in full.
    pub(crate) fn is_complete(&self) -> bool {
        self.queues >= 100 && self.repeats >= 5 && self.window >= 60
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct MainArgs {
    /// A superuser's URL of a server to use; without it one is started
    #[arg(long, env = "ROWLOCK_BENCH_DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
    /// Shortens everything: numbers of tasks and lengths of windows
    #[arg(long, default_value_t = 1.0)]
    pub(crate) scale: f64,
    /// How often each row is measured; the median counts
    #[arg(long, default_value_t = 3)]
    pub(crate) repeats: u32,
    /// Only these rows
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<Group>,
}

/// Rows that are measured together, because their ratios are of one run.
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

    /// Numbers to be quoted: everything, in full.
    pub(crate) fn is_complete(&self) -> bool {
        self.only.is_empty() && self.scale >= 1.0 && self.repeats >= 3
    }
}
