//! The operator against a real API server and a real Postgres. Nobody runs pods here: their status is written by hand.

mod conditions;
mod deployment;
mod faults;
mod replicas;
mod rights;
mod scaling;
mod server_with_faults;
mod stage;
mod whole;
