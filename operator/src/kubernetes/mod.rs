//! The operator in a cluster: watches, the election, and an applier that makes Deployments.
//!
//! In reading order:
//!
//! * [`run`], [`Config`]: a whole operator;
//! * `tender`, `charges`: the loop over the queues of one database, which asks [`Operator`](crate::Operator) to observe, plan and apply;
//! * `build`, `worker`, `resources`, `security`, `inherit`: a queue's instances as objects; pure;
//! * `applier`, `known`, `apply`, `managed`, `contest`: what is written when, and by which requests;
//! * `rollouts`: which queues wait for others;
//! * `health`, `judgement`, `status`, `scaled`, `events`: what was seen, in words; pure; `said`: what kubelets say of a pod;
//! * `source`, `database`, `watch`, `election`: Secrets and connections; what is in the cluster; who leads.

mod applier;
mod apply;
mod build;
mod charges;
mod config;
mod contest;
mod database;
mod election;
mod events;
mod health;
mod hooks;
mod http;
mod inherit;
mod judgement;
mod known;
mod managed;
mod metrics;
mod outcome;
mod process;
mod resources;
mod rollouts;
mod said;
mod scaled;
mod security;
mod shared;
mod source;
mod status;
mod tender;
mod unread;
mod watch;
mod worker;

pub use config::Config;
pub use process::run;
pub use worker::WorkerImage;
