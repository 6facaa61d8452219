//! One loop (observe, plan, apply) that keeps the workers of every `TaskQueue` right
//!
//! In reading order:
//!
//! * [`Operator`] and [`Charge`]: the loop's one step over all queues of a database, and what it is told of each;
//! * [`Applier`] and [`Intent`]: who makes a plan come true, and what it is told;
//! * `kubernetes`, behind the feature `kube`: the applier of a cluster, with pods, and a whole operator around it;
//! * `bell`: what wakes the loop before its time;
//! * [`Room`] and [`Seat`]: where loops meet whose queues are in one database;
//! * [`View`] and [`Limit`]: what a step saw and decided, for people and metrics.

mod applier;
mod bell;
mod charge;
mod control;
mod declaration;
#[cfg(feature = "kube")]
pub mod kubernetes;
mod limit;
mod metrics;
mod observe;
mod room;
mod view;

pub use applier::{Applier, Intent};
pub use charge::Charge;
pub use control::Operator;
pub use limit::Limit;
pub use metrics::Metrics;
pub use room::{Room, Seat};
pub use view::{QueueView, View};
