//! `TaskQueue`s on a real cluster, from `helm install` to the last pod gone: `make cluster-test`.
//!
//! One cluster and one operator per test process ([`cluster`]), a namespace and a database per test ([`stage`]). Handlers tell
//! what they do ([`journal`]), and the history checker compares that with what the database says.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests, too, fail where they stand")]

mod cluster;
mod journal;
mod kubectl;
mod lan;
mod stage;
mod waiting;

mod alone;
mod apart;
mod changes;
mod deaths;
mod hands;
mod leaving;
mod mistakes;
mod outages;
mod quiet;
mod second;
mod stranger;
