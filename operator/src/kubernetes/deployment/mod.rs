//! The objects of a queue: what they shall be, what is written when, and what came of it.

pub(crate) mod backend;
pub(crate) mod build;
pub(crate) mod contest;
pub(crate) mod field_managers;
pub(crate) mod inherited_metadata;
pub(crate) mod last_applied;
pub(crate) mod outcome;
pub(crate) mod resources;
pub(crate) mod rollouts;
pub(crate) mod security_context;
pub(crate) mod worker_container;
