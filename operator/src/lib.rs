//! One loop (observe, plan, apply) that scales the instances of every `TaskQueue`
//!
//! In reading order:
//!
//! * [`Reconciler`] and [`DesiredQueue`]: one pass of the loop over all queues of a database, and what each
//!   queue asks for;
//! * [`Backend`] and [`DesiredPods`]: the interface that starts and stops instances, and how many pods each
//!   queue should have;
//! * `kubernetes`, behind the feature `kube`: the backend that runs pods in a cluster, and the operator
//!   itself;
//! * [`backlog`]: the statistics of a queue, as decisions want them;
//! * `decision_log`: records in the database why queues have their numbers of pods;
//! * `enqueued`, `horizon`: what metrics add up from one poll to the next;
//! * `wakeups`: NOTIFYs that start a pass early;
//! * [`SharedPoller`] and [`Participant`]: one poller for the controllers of one database;
//! * [`Shortage`] and [`Asked`]: who holds the pods that connections are left for;
//! * [`View`] and [`Limit`]: what a pass observed and decided, for the status and for metrics;
//! * [`Page`] and [`Place`]: the metrics of views, in Prometheus' text format.

#![warn(missing_docs)]

mod backend;
mod connection_limit;
mod decision_log;
mod declaration;
mod enqueued;
mod exposition;
mod horizon;
mod jitter;
#[cfg(feature = "kube")]
pub mod kubernetes;
mod managed_queue;
mod metrics;
mod observe;
mod reconciler;
mod shared_poller;
mod shortage;
mod view;
mod wakeups;
mod worker_container;
mod worker_sidecar;

pub use backend::{Backend, DesiredPods};
pub use connection_limit::Limit;
pub use exposition::Page;
pub use managed_queue::DesiredQueue;
pub use metrics::Place;
pub use observe::backlog;
pub use reconciler::Reconciler;
pub use shared_poller::{Participant, SharedPoller};
pub use shortage::{Asked, Shortage};
pub use view::{Polls, QueueSettings, QueueView, View};
pub use worker_sidecar::worker_sidecar;
