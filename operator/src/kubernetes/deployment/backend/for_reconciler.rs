//! What the reconciler asks for and orders.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::jiff::Timestamp;

use super::{CONCURRENT_WRITES, DesiredPods, LastApplied, PodBackend};
use crate::backend::Backend;
use crate::kubernetes::pods::status::{count_ready, oldest_age};
use crate::kubernetes::pods::unplaced::unplaced;

impl Backend for PodBackend {
    fn instances(&self, queue: &str) -> u32 {
        let Some(last) = self.queues.get(queue) else { return 0 };
        let stored = self.stored(last);
        let seen = last.newest(stored.as_deref());
        seen.filter(|(metadata, _)| last.may_scale(metadata)).map_or(0, |(_, replicas)| replicas)
    }

    fn ready(&self, queue: &str) -> u32 {
        self.queues.get(queue).map_or(0, |last| count_ready(&self.namespace.pods_of(&last.owner.name)))
    }

    fn draining(&self, queue: &str) -> u32 {
        self.queues.get(queue).map_or(0, |last| self.namespace.count_pods(&last.owner.name).1)
    }

    fn pod_start(&self, queue: &str) -> Option<Duration> {
        self.queues.get(queue)?.starts.usual()
    }

    fn is_held(&self, queue: &str) -> bool {
        self.queues.get(queue).is_some_and(|last| last.outcome.is_held())
    }

    fn unplaced(&self, queue: &str) -> u32 {
        let Some(last) = self.queues.get(queue) else { return 0 };
        let (pods, stored) = (self.namespace.pods_of(&last.owner.name), self.stored(last));
        unplaced(&pods, stored.as_deref(), self.instances(queue), Timestamp::now())
    }

    fn age(&self, queue: &str) -> Duration {
        let Some(last) = self.queues.get(queue) else { return Duration::ZERO };
        let pods = self.namespace.pods_of(&last.owner.name);
        oldest_age(&pods, Timestamp::now())
    }

    fn leaving(&self) -> u32 {
        let beyond = self.queues.iter().map(|(queue, last)| {
            let (staying, terminating) = self.namespace.count_pods(&last.owner.name);
            terminating + staying.saturating_sub(self.instances(queue))
        });
        beyond.sum()
    }

    fn not_starting(&mut self, queue: &str) -> bool {
        let Some(last) = self.queues.get_mut(queue) else { return false };
        let pods = self.namespace.pods_of(&last.owner.name);
        last.observe(&pods, Timestamp::now());
        last.not_starting
    }

    fn metrics_addresses(&self, _queue: &str) -> Vec<(String, String)> {
        // Prometheus discovers pods itself.
        Vec::new()
    }

    async fn apply(&mut self, desired_pods: &[DesiredPods<'_>]) {
        let mut queues = std::mem::take(&mut self.queues);
        let by_name: BTreeMap<&str, &DesiredPods<'_>> =
            desired_pods.iter().map(|desired| (desired.manifest.queue_name(), desired)).collect();
        let (this, by_name) = (&*self, &by_name);
        let each =
            queues.iter_mut().filter_map(|(name, last)| Some((&mut **last, *by_name.get(name.as_str())?)));
        let apply = async |(last, desired): (&mut LastApplied, &DesiredPods<'_>)| {
            last.outcome = this.apply_queue(last, desired).await.unwrap_or_else(|error| last.failed(&error));
        };
        futures_util::stream::iter(each).for_each_concurrent(CONCURRENT_WRITES, apply).await;
        self.queues = queues;
    }

    /// Nothing to do: pods keep running when the operator stops.
    async fn drain(&mut self) {}

    async fn end_now(&mut self) {}
}
