//! Every decision of the operator, as a pure function of what was observed: no IO, no clock, no randomness.
//!
//! In reading order:
//!
//! * [`ObservedQueue`] and [`Backlog`]: what is known about one queue at one moment;
//! * [`decide`]: how many workers and pods it shall have, and why ([`Decision`], [`Reason`], [`Inputs`]);
//! * [`share`]: what the connections of the database allow of that, over all its queues ([`Connections`]);
//! * [`Memory`], [`SlidingMax`]: what a decision must know of the ones before it, handed in and out;
//! * [`fleet`]: the pods of a queue with their environment, neutral to where they run.

#![warn(missing_docs)]

mod decide;
mod decision;
mod demand;
mod fleet;
mod memory;
mod observed;
mod share;

pub use decide::decide;
pub use decision::{Decision, Reason};
pub use demand::Inputs;
pub use fleet::{Fleet, Instance, Ports, fleet};
pub use memory::{Memory, SlidingMax};
pub use observed::{Backlog, ObservedQueue, Scaling};
pub use share::{CONNECTIONS_PER_POD, Connections, share};
