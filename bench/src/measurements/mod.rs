//! The rows of the main benchmarks, one file per group, and what groups share: loads, producers, instances in
//! this process, and other queues.

pub(crate) mod drain;
pub(crate) mod enqueue;
pub(crate) mod fleet;
pub(crate) mod horizon;
pub(crate) mod http;
pub(crate) mod idle;
pub(crate) mod in_process;
pub(crate) mod instance;
pub(crate) mod kills;
pub(crate) mod latency;
pub(crate) mod load;
pub(crate) mod memory;
pub(crate) mod peers;
pub(crate) mod produce;
pub(crate) mod statistics;
pub(crate) mod traces;
pub(crate) mod wal;
