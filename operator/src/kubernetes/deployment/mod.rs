//! The objects of a queue: how they are built, what is written when, and the outcome.

pub(crate) mod apply_result;
pub(crate) mod backend;
pub(crate) mod build;
pub(crate) mod canary;
pub(crate) mod foreign_scaling;
pub(crate) mod inherited_metadata;
pub(crate) mod last_applied;
pub(crate) mod next_write;
pub(crate) mod scale_in;
pub(crate) mod security_context;
pub(crate) mod settled;
pub(crate) mod target;
pub(crate) mod worker_image;
pub(crate) mod worker_resources;
pub(crate) mod worker_tracing;
