//! The status of pods, and their health. No I/O.

pub(crate) mod ended_pods;
pub(crate) mod handler_ends;
pub(crate) mod health;
mod recent;
pub(crate) mod starts;
pub(crate) mod status;
pub(crate) mod unplaced;
