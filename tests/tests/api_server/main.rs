//! What the Kubernetes API promises: the definition of a `TaskQueue`, its rules and their messages, the
//! operator and its chart, against a real API server (etcd and kube-apiserver alone, on loopback, without
//! root).
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests, too, fail where they stand")]

mod apply;
mod helm;
mod kubectl;
mod kubectl_output;
mod operator;
mod roles;
mod rules;
mod server;
mod table;
mod updates;
