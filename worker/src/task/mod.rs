//! The steps of a task in an instance: claim, fetch the payload, attempt, settle.

pub(crate) mod ahead;
pub(crate) mod attempt;
pub(crate) mod claim;
pub(crate) mod fetch;
pub(crate) mod leases;
pub(crate) mod run_window;
pub(crate) mod settle;
pub(crate) mod slots;
pub(crate) mod suspects;
pub(crate) mod trial;
