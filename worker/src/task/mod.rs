//! The way of a task through an instance: claimed, payload fetched, attempted, settled.

pub(crate) mod attempt;
pub(crate) mod claim;
pub(crate) mod leases;
pub(crate) mod payloads;
pub(crate) mod settle;
pub(crate) mod slots;
