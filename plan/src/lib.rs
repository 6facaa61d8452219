//! Every decision of the operator, as a pure function of what was observed: no IO, no clock, no randomness.
//!
//! In reading order:
//!
//! * [`ObservedQueue`] and [`Backlog`]: what is known about one queue at one moment;
//! * [`decide`]: how many workers and pods it should have, and why ([`Decision`], [`Reason`], [`Inputs`]);
//! * [`share`]: what the connections of the database allow of that, over all its queues ([`Connections`]);
//! * [`Memory`], [`SlidingMax`]: what a decision must know of the ones before it, handed in and out;
//! * [`ServiceTime`], [`PodStarts`]: how long a task takes, and the start of a pod, as measured;
//! * [`canary_step`]: whether a new pod template goes to all pods, by what its first pods have done;
//! * [`fleet`]: the pods of a queue with their environment, neutral to where they run.

#![warn(missing_docs)]

mod arrivals;
mod canary;
mod connections;
mod decide;
mod decision;
mod demand;
mod explain;
mod fleet;
mod memory;
mod observed;
mod pod_starts;
mod pod_times;
mod service;
mod share;
mod staffing;
mod tuning;

pub use canary::{CanaryFault, CanaryStep, Compared, ObservedCanary, canary_step};
pub use connections::{CONNECTIONS_PER_POD, Connections};
pub use decide::decide;
pub use decision::{Decision, Reason};
pub use demand::Inputs;
pub use fleet::{Fleet, Instance, Ports, fleet};
pub use memory::{Memory, SlidingMax};
pub use observed::{ARRIVAL_SECONDS, Arrivals, Backlog, ObservedQueue, Runs, Scaling};
pub use pod_starts::PodStarts;
pub use pod_times::PodTimes;
pub use service::ServiceTime;
pub use share::share;
