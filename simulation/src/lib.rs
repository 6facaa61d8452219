//! Replays a load through the decisions of the operator ([`rowlock_plan`]) and of other autoscalers,
//! and draws what came of it.

#![warn(missing_docs)]

mod laws;
mod load;
mod oracle;
mod outcome;
mod picture;
mod replay;
mod score;
mod time;
mod world;

pub use laws::LawKind;
pub use load::{Fault, FaultKind, Load, PodStart, QueueLoad, Task};
pub use picture::{Course, duration, picture, rounded};
pub use replay::{replay, replay_specs, replay_traced};
pub use score::{Sample, Score};
