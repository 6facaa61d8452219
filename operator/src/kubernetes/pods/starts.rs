//! How long pods took to become ready, by their own timestamps.
//!
//! Kubernetes writes both, the creation and the change of the condition `Ready`, in whole seconds, rounded
//! down. So one start is wrong by up to a second in either direction. These errors cancel out in the average.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use rowlock_plan::PodStarts;

use crate::kubernetes::api::kept::Pod;
use crate::kubernetes::pods::status::{condition, is_ready, since};

/// The starts of one queue's pods. Memory: a few bytes for each pod that there is.
#[derive(Debug, Default)]
pub(crate) struct ObservedStarts {
    /// Whether each pod counts no more, by the hash of its uid. `None` before the first look.
    is_done: Option<HashMap<u64, bool>>,
    starts: PodStarts,
}

impl ObservedStarts {
    /// Notes the pods that became ready for the first time. A pod that was there when this operator first
    /// looked does not count: it may have been ready before, whether or not it is now.
    pub(crate) fn observe(&mut self, pods: &[Arc<Pod>]) {
        let is_first_look = self.is_done.is_none();
        let before = self.is_done.take().unwrap_or_default();
        let mut now = HashMap::with_capacity(pods.len());
        for pod in pods {
            let (id, is_ready) = (id(pod), is_ready(pod));
            let was_done = is_first_look || before.get(&id) == Some(&true);
            if let Some(took) = took(pod).filter(|_| is_ready && !was_done) {
                self.starts.note(took);
            }
            now.insert(id, is_ready || was_done);
        }
        self.is_done = Some(now);
    }

    /// How long a pod usually takes; `None` before the first start.
    pub(crate) fn usual(&self) -> Option<Duration> {
        self.starts.usual()
    }
}

/// From the creation of a pod to its condition `Ready`.
fn took(pod: &Pod) -> Option<Duration> {
    let created = pod.metadata.creation_timestamp.as_ref()?.0;
    Some(since(created, condition(pod, "Ready")?.since?))
}

fn id(pod: &Pod) -> u64 {
    let mut hasher = DefaultHasher::new();
    pod.metadata.uid.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A pod that was created at second 0.
    fn pod(name: &str, ready: bool, since: u32) -> Arc<Pod> {
        let at = |second: u32| format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60);
        let status = if ready { "True" } else { "False" };
        let condition = json!({ "type": "Ready", "status": status, "lastTransitionTime": at(since) });
        let metadata = json!({ "name": name, "uid": name, "creationTimestamp": at(0) });
        serde_json::from_value(json!({ "metadata": metadata, "status": { "conditions": [condition] } }))
            .unwrap()
    }

    fn usual(passes: &[&[Arc<Pod>]]) -> Option<u64> {
        let mut starts = ObservedStarts::default();
        for pods in passes {
            starts.observe(pods);
        }
        starts.usual().map(|usual| usual.as_secs())
    }

    #[test]
    fn a_start_lasts_from_the_creation_of_a_pod_until_it_is_ready() {
        assert_eq!(usual(&[&[], &[pod("a", false, 0)]]), None);
        assert_eq!(usual(&[&[], &[pod("a", false, 0)], &[pod("a", true, 7)]]), Some(7));
        // It was ready before the next look.
        assert_eq!(usual(&[&[], &[pod("a", true, 7)]]), Some(7));
    }

    #[test]
    fn only_the_first_time_that_a_pod_is_ready_counts() {
        let flaps = [pod("a", false, 30)];
        let again = [pod("a", true, 90)];
        assert_eq!(usual(&[&[], &[pod("a", true, 7)], &flaps, &again, &flaps, &again]), Some(7));
    }

    /// A new leader cannot tell whether the nodes of these pods were away meanwhile.
    #[test]
    fn a_pod_that_was_ready_at_the_first_look_does_not_count() {
        let seen = [pod("a", true, 3000)];
        assert_eq!(usual(&[&seen, &seen]), None);
        assert_eq!(usual(&[&seen, &[pod("a", false, 3010)], &[pod("a", true, 3020)]]), None);
        assert_eq!(usual(&[&seen, &[pod("a", true, 3000), pod("b", true, 4)]]), Some(4));
    }

    /// Before, the whole age of a pod that was not ready for a moment counted as its start.
    #[test]
    fn a_pod_that_was_not_ready_at_the_first_look_does_not_count() {
        let unready = [pod("a", false, 3590)];
        assert_eq!(usual(&[&unready, &[pod("a", true, 3599)]]), None);
        assert_eq!(usual(&[&unready, &[pod("a", true, 3599), pod("b", true, 4)]]), Some(4));
    }

    #[test]
    fn memory_is_for_the_pods_that_there_are() {
        let mut starts = ObservedStarts::default();
        for n in 0..1000 {
            starts.observe(&[pod(&n.to_string(), true, 5)]);
        }
        assert_eq!(starts.is_done.unwrap().len(), 1);
    }
}
