//! Talking to the API server: watches, writes, leader election, events.

pub(crate) mod changes;
pub(crate) mod events;
pub(crate) mod field_managers;
pub(crate) mod kept;
pub(crate) mod leader_election;
pub(crate) mod objects;
pub(crate) mod readable;
mod store;
pub(crate) mod watch;
mod watch_backoff;
pub(crate) mod writer;
