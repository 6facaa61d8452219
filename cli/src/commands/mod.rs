//! One command per file.

pub(crate) mod cancel;
pub(crate) mod delete;
mod each_task;
pub(crate) mod enqueue;
pub(crate) mod migrate;
pub(crate) mod retry;
pub(crate) mod sidecar;
pub(crate) mod status;
pub(crate) mod task;
pub(crate) mod tasks;
pub(crate) mod why;
pub(crate) mod worker;
