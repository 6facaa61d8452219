//! One loop (observe, plan, apply) that keeps the workers of every `TaskQueue` right
//!
//! In reading order:
//!
//! * [`Reconciler`] and [`DesiredQueue`]: one pass of the loop over all queues of a database, and what each
//!   asks for;
//! * [`Backend`] and [`DesiredPods`]: who makes a plan come true, and how many pods each queue shall have;
//! * `kubernetes`, behind the feature `kube`: the backend of a cluster, with pods, and a whole operator
//!   around it;
//! * `wakeups`: what wakes the loop before its time;
//! * [`SharedPoller`] and [`Participant`]: one poller for the controllers of one database;
//! * [`View`] and [`Limit`]: what a step saw and decided, for people and metrics.

mod backend;
mod connection_limit;
mod declaration;
#[cfg(feature = "kube")]
pub mod kubernetes;
mod managed_queue;
mod metrics;
mod observe;
mod reconciler;
mod shared_poller;
mod view;
mod wakeups;

pub use backend::{Backend, DesiredPods};
pub use connection_limit::Limit;
pub use managed_queue::DesiredQueue;
pub use metrics::Metrics;
pub use reconciler::Reconciler;
pub use shared_poller::{Participant, SharedPoller};
pub use view::{QueueView, View};
