//! The CRD of `TaskQueue`, its rules and their messages, the operator and its chart, tested against a real
//! API server (only etcd and kube-apiserver, on loopback, without root).
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests, too, fail where they stand")]

mod apply;
mod helm;
mod kubectl;
mod kubectl_output;
mod monitoring;
mod operator;
mod roles;
mod rules;
mod server;
mod table;
mod updates;
