//! The objects of a queue: how they are built, what is written when, and the outcome.

pub(crate) mod backend;
pub(crate) mod build;
pub(crate) mod foreign_scaling;
pub(crate) mod inherited_metadata;
pub(crate) mod last_applied;
pub(crate) mod next_write;
pub(crate) mod outcome;
pub(crate) mod resources;
pub(crate) mod security_context;
pub(crate) mod worker_container;
