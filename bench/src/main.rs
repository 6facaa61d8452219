//! Benchmarks beside peers: each row of a table is a number, the peer's, their ratio and the goal.
//!
//! In reading order: what may be asked for ([`args`]), the order of a run ([`suite`]), where it runs ([`testbed`],
//! [`tools`], [`processes`]), the rows themselves ([`rows`]), those of an
//! operator ([`operator`]), and how they are shown ([`table`]).

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
        // Dropped on the way out: the server, the handlers, the instances.
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}
