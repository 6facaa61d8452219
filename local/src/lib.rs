//! Runs Rowlock on one machine, for `rowlock dev`, the tests and the benchmarks.
//!
//! In reading order:
//!
//! * [`process`]: child processes that do not outlive the program that started them;
//! * [`backend`]: the instances of a queue as processes, in place of pods;
//! * [`postgres`]: a PostgreSQL server that is downloaded once and ends with its owner.

#![warn(missing_docs)]

mod error;

pub mod backend;
pub mod postgres;
pub mod process;

pub use error::Error;
