//! What Postgres and the verbs promise, each promise with a test. R1 to R20 are the defects of the prototype.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests, too, fail where they stand")]

mod allocation;
mod bad_rows;
mod care;
mod claims;
mod connections;
mod deletion;
mod distrust;
mod failover;
mod fencing;
mod front;
mod handlers;
mod horizon;
mod hostile_servers;
mod housekeeping;
mod isolation;
mod late;
mod looks;
mod maintenance;
mod meetings;
mod outages;
mod outcomes;
mod overseer;
mod pooler;
mod read_only;
mod refusals;
mod resend;
mod retention;
mod rights;
mod schema;
mod statistics;
mod strangers;
mod surroundings;
mod tls;
mod traps;
