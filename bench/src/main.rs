//! Benchmarks of Rowlock and its peers: each row of a table has our number, the peer's, their ratio and the
//! goal.
//!
//! Modules in reading order: the arguments ([`args`]), the order of a run (`suite`), the servers and
//! programs (`testbed`, `tools`, `processes`), the rows (`measurements`), the rows of the operator
//! (`operator`) and those beside KEDA (`autoscale`), the simulated scaling ([`scaling`]) and their output
//! ([`table`]). All but the simulation need the feature `servers`.

mod args;
#[cfg(feature = "servers")]
mod autoscale;
#[cfg(feature = "servers")]
mod measurements;
#[cfg(feature = "servers")]
mod operator;
#[cfg(feature = "servers")]
mod processes;
#[cfg(feature = "servers")]
mod samples;
mod scaling;
#[cfg(feature = "servers")]
mod scrape;
#[cfg(feature = "servers")]
mod suite;
mod table;
#[cfg(feature = "servers")]
mod testbed;
#[cfg(feature = "servers")]
mod tools;

use args::{Args, Command};
use clap::Parser;

fn main() -> anyhow::Result<()> {
    let Args { command } = Args::parse();
    match command {
        #[cfg(feature = "servers")]
        Command::Main(args) => until_interrupted(suite::run(args)),
        #[cfg(feature = "servers")]
        Command::Operator(args) => until_interrupted(operator::run(args)),
        #[cfg(feature = "servers")]
        Command::Autoscale(args) => until_interrupted(autoscale::run(args)),
        Command::Scaling(args) => scaling::run(&args),
    }
}

#[cfg(feature = "servers")]
#[tokio::main]
async fn until_interrupted(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        done = run => done,
        // Returning drops and so stops the server, the handlers and the instances.
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}
