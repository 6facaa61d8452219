//! The command line's arguments. Doc comments are the help.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Benchmarks of Rowlock and its peers
#[derive(Debug, Parser)]
#[command(name = "rowlock-bench", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure workers and the database beside other queues, wrk, COPY and plain inserts
    #[cfg(feature = "servers")]
    Main(MainArgs),
    /// Measure how soon the operator scales up, and what it costs
    #[cfg(feature = "servers")]
    Operator(OperatorArgs),
    /// Scale queues by the operator and by KEDA with HPA, with the same load and on the same API server
    #[cfg(feature = "servers")]
    Autoscale(AutoscaleArgs),
    /// Replay families of loads through our scaling decisions and those of KEDA with HPA, Knative and an
    /// oracle
    Scaling(ScalingArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ScalingArgs {
    /// Replay only these families
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// How many loads of each family to replay
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) seeds: u64,
    /// The first seed; another one gives loads that nobody has seen yet
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub(crate) first_seed: u64,
    /// Leave out the oracle, which takes most of the time
    #[arg(long)]
    pub(crate) no_oracle: bool,
    /// Read the scores of the other autoscalers from the JSON of an earlier run, where it has the same loads
    #[arg(long, value_name = "FILE")]
    pub(crate) peers: Option<PathBuf>,
    /// List the families, what they stand for and how many tasks they have, and exit
    #[arg(long)]
    pub(crate) list: bool,
}

impl ScalingArgs {
    /// Whether the run has all families and autoscalers, as published numbers need.
    pub(crate) fn is_complete(&self) -> bool {
        self.only.is_empty() && self.seeds >= 2 && !self.no_oracle && self.peers.is_none()
    }
}

#[cfg(feature = "servers")]
#[derive(Debug, clap::Args)]
pub(crate) struct AutoscaleArgs {
    /// Decides when the tasks of the ramp are enqueued
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Only the burst, to try the benchmark in three minutes
    #[arg(long)]
    pub(crate) burst_only: bool,
}

#[cfg(feature = "servers")]
#[derive(Debug, clap::Args)]
pub(crate) struct OperatorArgs {
    /// Measure only these TaskQueues
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<Fleet>,
    /// How often to scale from 0 to 100 pods; from 0 to 1 twice as often
    #[arg(long, default_value_t = 5)]
    pub(crate) repeats: u32,
    /// Seconds to measure the idle operator
    #[arg(long, default_value_t = 60)]
    pub(crate) window: u64,
}

#[cfg(feature = "servers")]
impl OperatorArgs {
    /// Whether the run is long enough for published numbers.
    pub(crate) fn is_complete(&self) -> bool {
        self.only.is_empty() && self.repeats >= 5 && self.window >= 60
    }

    pub(crate) fn wants(&self, fleet: Fleet) -> bool {
        self.only.is_empty() || self.only.contains(&fleet)
    }
}

#[cfg(feature = "servers")]
/// TaskQueues that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fleet {
    /// 100 of one database, which several Secrets name
    Hundred,
    /// 1,000 in 50 databases and namespaces, with a pod each
    Thousand,
    /// 5,000 of one database
    FiveThousand,
}

#[cfg(feature = "servers")]
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

#[cfg(feature = "servers")]
/// Rows that are measured together, so that each ratio is from one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    /// Beside a plain insert and COPY, with 1 and 100 queues
    Enqueue,
    /// A backlog of no-op tasks, beside River, pg-boss and Graphile Worker
    Drain,
    /// One instance with tasks that wait 1 ms, beside wrk and Graphile Worker
    Instance,
    /// One instance with tasks that compute for 1 ms, beside wrk
    Http,
    /// From the enqueue to the handler, on an idle queue
    Latency,
    /// WAL and commits of a task's whole life, beside COPY
    Wal,
    /// 64 and 200 instances on one queue, beside 8
    Fleet,
    /// A steady load while connections are cut
    Kills,
    /// An instance with 500 tasks in flight, and a scrape of it
    Memory,
    /// Statements of an idle instance
    Idle,
    /// A drain while the collector of traces is of no use
    Traces,
    /// The operator's look at 5 million waiting and 10 million finished tasks
    Statistics,
    /// Claims while the xmin horizon is pinned for ten minutes
    Horizon,
}

#[cfg(feature = "servers")]
impl MainArgs {
    pub(crate) fn wants(&self, group: Group) -> bool {
        self.only.is_empty() || self.only.contains(&group)
    }

    /// Whether the run is complete and long enough for published numbers.
    pub(crate) fn is_complete(&self) -> bool {
        self.only.is_empty() && self.scale >= 1.0 && self.repeats >= 3
    }
}
