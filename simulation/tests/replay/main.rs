//! Loads replayed through the autoscalers.

mod autoscalers;
mod loads;
mod world;
