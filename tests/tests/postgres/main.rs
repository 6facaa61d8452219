//! What Postgres and the verbs promise, each promise with a test. R1 to R20 are the defects of the prototype.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests, too, fail where they stand")]

mod allocation;
mod bad_rows;
mod claims;
mod cleanup;
mod concurrent_operations;
mod connections;
mod database_features;
mod deletion;
mod errors;
mod failover;
mod fake_server;
mod fencing;
mod foreign_locks;
mod handlers;
mod hostile_servers;
mod idempotency;
mod isolation;
mod late_commits;
mod lookup_cost;
mod many_queues;
mod operator_queries;
mod outages;
mod outcomes;
mod partitions;
mod pooler;
mod read_only;
mod retention;
mod rights;
mod schema;
mod search_path;
mod statistics;
mod tls;
mod untrusted_callers;
mod xmin_horizon;
