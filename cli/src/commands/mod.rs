//! One command per file.

pub(crate) mod admin;
pub(crate) mod enqueue;
pub(crate) mod migrate;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod task;
pub(crate) mod tasks;
pub(crate) mod worker;
