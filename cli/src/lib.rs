//! The command line: enqueue, inspect, administer, migrate, and a whole Rowlock on one machine
//!
//! In reading order: what a user may type, the commands, `rowlock dev`.

mod args;
mod commands;
mod database;
mod dev;
mod escape;
mod failure;
mod output;
mod run;

pub use failure::Failure;
pub use run::run;
