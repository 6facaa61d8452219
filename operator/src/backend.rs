//! The interface through which the reconciler starts and stops instances. A backend makes no decisions.

use std::time::Duration;

use rowlock_crds::Manifest;

/// How many pods a queue should have.
#[derive(Debug, Clone, Copy)]
pub struct DesiredPods<'a> {
    /// The queue, as its `TaskQueue` says.
    pub manifest: &'a Manifest,
    /// The number of pods.
    pub pods: u32,
    /// Scaling is suspended or stalled: the current number stays, and `pods` is what was seen of it.
    pub keeps: bool,
}

/// Runs the instances of queues: as processes or in a cluster.
pub trait Backend: Send {
    /// Instances of a queue that run or are starting, without those that stop.
    fn instances(&self, queue: &str) -> u32;

    /// How many of them are ready for tasks.
    fn ready(&self, queue: &str) -> u32;

    /// How many instances of the queue stop.
    fn draining(&self, queue: &str) -> u32;

    /// How long an instance of the queue usually takes from when it is asked for until it is ready for tasks,
    /// by the last starts: half a second to ten minutes. `None` before the first start. Updated by
    /// `not_starting`.
    fn pod_start(&self, queue: &str) -> Option<Duration>;

    /// Whether the number of a queue's instances cannot be changed, until a user changes something.
    fn is_held(&self, _queue: &str) -> bool {
        false
    }

    /// How many of them the cluster has had no room for, for minutes: no node fits them, or a quota refuses
    /// them.
    fn unplaced(&self, _queue: &str) -> u32 {
        0
    }

    /// The age of the oldest of them, so that a new leader can continue to count. Zero for a backend without
    /// leader election.
    fn age(&self, _queue: &str) -> Duration {
        Duration::ZERO
    }

    /// Instances of all queues that `instances` does not count: they stop, or replace others.
    fn leaving(&self) -> u32;

    /// Whether the instances of a queue cannot start their handlers.
    fn not_starting(&mut self, queue: &str) -> bool;

    /// The names of its instances, with the addresses of their metrics.
    fn metrics_addresses(&self, queue: &str) -> Vec<(String, String)>;

    /// Starts and stops instances of all queues. Queues that are not listed are stopped. Idempotent: each
    /// pass calls it.
    fn apply(&mut self, desired_pods: &[DesiredPods<'_>]) -> impl Future<Output = ()> + Send;

    /// Drains all instances, and waits until they have ended.
    fn drain(&mut self) -> impl Future<Output = ()> + Send;

    /// Stops all instances without a drain, and waits until they have ended.
    fn end_now(&mut self) -> impl Future<Output = ()> + Send;
}
