//! The operator against a real API server and a real Postgres. No kubelet runs here: the tests write the
//! status of pods.

mod conditions;
mod databases;
mod deployment;
mod end_to_end;
mod external;
mod faults;
mod faulty_api_server;
mod harness;
mod hostile;
mod limits;
mod owners;
mod pods;
mod replicas;
mod rights;
mod rollouts;
mod scaling;
mod trust;
