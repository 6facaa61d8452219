//! Talking to the API server: watches, writes, leader election, events.

pub(crate) mod events;
pub(crate) mod field_managers;
pub(crate) mod leader_election;
pub(crate) mod watch;
pub(crate) mod writer;
