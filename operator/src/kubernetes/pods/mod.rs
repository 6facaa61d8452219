//! What the status of pods says, and how healthy they are: pure.

pub(crate) mod health;
pub(crate) mod status;
