//! The operator against a real API server and a real Postgres. Nobody runs pods here: their status is written by hand.

mod conditions;
mod databases;
mod deployment;
mod external;
mod faults;
mod hostile;
mod limits;
mod owners;
mod pods;
mod replicas;
mod rights;
mod rollouts;
mod scaling;
mod server_with_faults;
mod stage;
mod trust;
mod whole;
