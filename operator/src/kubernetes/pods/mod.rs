//! The status of pods, and their health: pure.

pub(crate) mod ended_pods;
pub(crate) mod handler_ends;
pub(crate) mod health;
pub(crate) mod starts;
pub(crate) mod status;
pub(crate) mod unplaced;
