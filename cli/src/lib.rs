//! The command line `rowlock`: enqueues, inspects and administers tasks, migrates the schema, simulates
//! scaling, and runs Rowlock on one machine.
//!
//! Modules in reading order: the arguments, the commands, `rowlock dev`, `rowlock simulate`.

#![warn(missing_docs)]

mod args;
mod commands;
mod database;
mod dev;
mod escape;
mod failure;
mod output;
mod run;
mod simulate;
mod table;

pub use failure::Failure;
pub use run::run;
