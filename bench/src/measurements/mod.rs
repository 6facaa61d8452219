//! The rows of the main benchmarks, one file per group.

pub(crate) mod drain;
pub(crate) mod enqueue;
pub(crate) mod http;
pub(crate) mod idle;
pub(crate) mod latency;
pub(crate) mod load;
pub(crate) mod memory;
pub(crate) mod river;
pub(crate) mod traces;
