//! The backend of the loop: everything that acts is behind this trait, and decides nothing.

use std::time::Duration;

use rowlock_crds::Manifest;

/// How many pods a queue shall have.
#[derive(Debug, Clone, Copy)]
pub struct DesiredPods<'a> {
    pub manifest: &'a Manifest,
    pub pods: u32,
}

/// Makes a plan come true: as processes here, in a cluster elsewhere.
pub trait Backend: Send {
    /// Instances of a queue that run or start, without those that stop.
    fn instances(&self, queue: &str) -> u32;

    /// How many of them do tasks, or would if there were any.
    fn ready(&self, queue: &str) -> u32;

    /// For how long the oldest of them has been there, which outlasts whoever asks; nothing where nobody else
    /// takes over.
    fn age(&self, _queue: &str) -> Duration {
        Duration::ZERO
    }

    /// Instances of all queues beyond those: they stop, or are about to replace others.
    fn leaving(&self) -> u32;

    /// Whether no handler of a queue's instances gets to run.
    fn not_starting(&mut self, queue: &str) -> bool;

    /// Where the metrics of its instances are, by the instances' names.
    fn metrics_addresses(&self, queue: &str) -> Vec<(String, String)>;

    /// Makes it so, for all queues; what is not named is stopped. Idempotent: called with every step.
    fn apply(&mut self, intents: &[DesiredPods<'_>]) -> impl Future<Output = ()> + Send;

    /// Stops everything in order and waits for it.
    fn drain(&mut self) -> impl Future<Output = ()> + Send;

    /// Stops everything without letting it finish, and waits for it.
    fn end_now(&mut self) -> impl Future<Output = ()> + Send;
}
