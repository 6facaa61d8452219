//! `TaskQueue`s on a real cluster, from `helm install` to the end of the last pod: `make cluster-test`.
//!
//! One cluster and one operator per test process ([`cluster`]), a namespace and a database per test
//! ([`harness`]). Handlers report their runs ([`journal`]), and the history checker compares them with the
//! database.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests, too, fail where they stand")]

mod cluster;
mod harness;
mod journal;
mod kubectl;
mod pod_network;
mod polling;
mod prometheus;

mod bare_cluster;
mod broken_handlers;
mod canary;
mod crashes;
mod deletion;
mod disruptive;
mod ended_pods;
mod idle;
mod kubernetes_guide;
mod manual_changes;
mod outages;
mod planned_changes;
mod scale_in;
mod two_control_planes;
