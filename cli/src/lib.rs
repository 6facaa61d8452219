//! The command line: enqueue, inspect, mend, migrate, and a whole Rowlock on one machine
//!
//! In reading order: what a user may type, the commands, `rowlock dev`.

mod args;
mod commands;
mod database;
mod dev;
mod failure;
mod output;
mod run;
mod visible;

pub use failure::Failure;
pub use run::run;
