//! The operator in a cluster: watches, leader election, and a backend that makes Deployments.
//!
//! In reading order:
//!
//! * [`run()`], [`Config`]: a whole operator;
//! * `run`, `controller`, `context`: a controller for each database, which asks
//!   [`Reconciler`](crate::Reconciler) to observe, plan and apply;
//! * `desired`: what a controller keeps of a `TaskQueue`; no I/O;
//! * `api`: watches, writes, events and leader election;
//! * `database`: from a `TaskQueue` to a session: Secrets, certificates, connections;
//! * `deployment`: the objects of a queue: how they are built, what was applied last, and the next write;
//! * `rollouts`: which queues may roll at the same time; no I/O;
//! * `pods`: what the status of pods says, and how healthy they are; no I/O;
//! * `status`: conditions and events; no I/O, except for `pod_events` and `unreadable`;
//! * `metrics`, `totals`, `http`: what is counted, and the pages of the operator;
//! * `problem`, `sanitize`: problems with a database or a namespace, and foreign text in messages; no I/O.

mod api;
mod config;
mod context;
mod controller;
mod database;
mod deployment;
mod desired;
mod http;
mod metrics;
mod pods;
mod problem;
mod rollouts;
mod run;
mod sanitize;
mod status;
mod totals;

pub use config::Config;
pub use deployment::worker_image::WorkerImage;
pub use run::run;
