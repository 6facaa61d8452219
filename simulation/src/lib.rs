//! Replays a load through the decisions of the operator ([`rowlock_plan`]) and of other autoscalers.

#![warn(missing_docs)]

mod laws;
mod load;
mod oracle;
mod outcome;
mod replay;
mod score;
mod time;
mod world;

pub use laws::LawKind;
pub use load::{Fault, FaultKind, Load, PodStart, QueueLoad, Task};
pub use replay::{replay, replay_specs, replay_traced};
pub use score::{Sample, Score};
