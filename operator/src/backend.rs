//! What the reconciler acts through. A backend decides nothing.

use std::time::Duration;

use rowlock_crds::Manifest;

/// How many pods a queue should have.
#[derive(Debug, Clone, Copy)]
pub struct DesiredPods<'a> {
    pub manifest: &'a Manifest,
    pub pods: u32,
}

/// Runs the instances of queues: as processes or in a cluster.
pub trait Backend: Send {
    /// Instances of a queue that run or start, not those that stop.
    fn instances(&self, queue: &str) -> u32;

    /// How many of them are ready for tasks.
    fn ready(&self, queue: &str) -> u32;

    /// The age of the oldest of them, which a new leader can continue from. Zero where there is no other
    /// leader.
    fn age(&self, _queue: &str) -> Duration {
        Duration::ZERO
    }

    /// Further instances of all queues: they stop, or replace others.
    fn leaving(&self) -> u32;

    /// Whether the instances of a queue cannot start their handlers.
    fn not_starting(&mut self, queue: &str) -> bool;

    /// The names of its instances, with the addresses of their metrics.
    fn metrics_addresses(&self, queue: &str) -> Vec<(String, String)>;

    /// Starts and stops instances of all queues. Queues that are not named are stopped. Idempotent: each pass
    /// calls it.
    fn apply(&mut self, desired_pods: &[DesiredPods<'_>]) -> impl Future<Output = ()> + Send;

    /// Stops everything in order and waits for it.
    fn drain(&mut self) -> impl Future<Output = ()> + Send;

    /// Stops everything without letting it finish, and waits for it.
    fn end_now(&mut self) -> impl Future<Output = ()> + Send;
}
