//! What Postgres and the verbs promise, each promise with a test. R1 to R20 are the defects of the prototype.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests, too, fail where they stand")]

mod allocation;
mod bad_rows;
mod care;
mod claims;
mod connections;
mod deletion;
mod failover;
mod fencing;
mod horizon;
mod housekeeping;
mod isolation;
mod late;
mod looks;
mod maintenance;
mod outages;
mod outcomes;
mod overseer;
mod pooler;
mod refusals;
mod resend;
mod retention;
mod schema;
mod statistics;
mod surroundings;
