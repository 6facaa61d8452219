//! The operator against a real API server and a real Postgres. No kubelet runs here: the tests write the
//! status of pods.

mod canary;
mod conditions;
mod connection_limit;
mod dashboards;
mod databases;
mod deployment;
mod end_to_end;
mod ended_pods;
mod external;
mod faults;
mod faulty_api_server;
mod harness;
mod hostile;
mod owners;
mod pods;
mod rights;
mod rollouts;
mod scale_in;
mod scaling;
mod several_operators;
mod target;
mod trust;
mod unplaced_pods;
