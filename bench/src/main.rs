//! Benchmarks of Rowlock and its peers: each row of a table has our number, the peer's, their ratio and the
//! goal.
//!
//! Modules in reading order: the arguments ([`args`]), the order of a run ([`suite`]), the servers and
//! programs ([`testbed`], [`tools`], [`processes`]), the rows ([`rows`]), the rows of the operator
//! ([`operator`]) and their output ([`table`]).

mod args;
mod operator;
mod processes;
mod rows;
mod samples;
mod suite;
mod table;
mod testbed;
mod tools;

use args::{Args, Command};
use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Args { command } = Args::parse();
    tokio::select! {
        done = async { match command {
            Command::Main(args) => suite::run(args).await,
            Command::Operator(args) => operator::run(args).await,
        } } => done,
        // Returning drops and so stops the server, the handlers and the instances.
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}
