//! Every decision of the operator, as a pure function of what was observed: no IO, no clock, no randomness.
//!
//! In reading order:
//!
//! * [`ObservedQueue`] and [`Backlog`]: what is known about one queue at one moment;
//! * [`decide`]: how many workers and pods it shall have, and why ([`Decision`], [`Reason`], [`Inputs`]);
//! * [`Memory`]: what a decision must know of the ones before it, handed in and out;
//! * [`fleet`]: the pods of a queue with their environment, neutral to where they run.

mod decide;
mod decision;
mod demand;
mod fleet;
mod memory;
mod observed;

pub use decide::decide;
pub use decision::{Decision, Reason};
pub use demand::Inputs;
pub use fleet::{Fleet, Instance, Place, fleet};
pub use memory::Memory;
pub use observed::{Backlog, ObservedQueue, Scaling};
