//! How healthy the pods of a queue are. No I/O. Each problem names the pod, what keeps it from working, and
//! what to do.

mod containers;
mod finding;
mod probes;
mod startup;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use self::finding::Finding;
use crate::kubernetes::api::kept::Pod;
use crate::kubernetes::pods::status::{has_ended, is_ready, name, statuses};
use crate::kubernetes::problem::Problem;
use crate::kubernetes::sanitize::sanitize;

pub(crate) use self::finding::HealthInputs;

/// The health of the pods of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PodHealth {
    pub(crate) pods: usize,
    pub(crate) ready: usize,
    /// The problem of the first pod that has one.
    pub(crate) problem: Option<Problem>,
    /// How many pods have a problem.
    pub(crate) failing: usize,
    /// What the first slow pod waits for, though it has no problem.
    pub(crate) slow: Option<String>,
    /// The pod that `problem` is about.
    pub(crate) pod: Option<PodRef>,
    /// Whether the events of that pod say more.
    pub(crate) read_events: bool,
    /// How long a start may take by the probes of the template.
    pub(crate) start_longest: Duration,
}

/// One pod. Its uid tells it from a later pod of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodRef {
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl PodHealth {
    /// Adds an event of the pod to its problem.
    pub(crate) fn add(&mut self, detail: &str) {
        if let Some(problem) = &mut self.problem {
            problem.message = format!("{}; its events say: {}", problem.message, sanitize(detail));
        }
    }
}

/// The health of pods that are not being deleted.
pub(crate) fn health(pods: &[Arc<Pod>], inputs: HealthInputs, now: Timestamp) -> PodHealth {
    let (ended, mut alive): (Vec<&Pod>, Vec<&Pod>) =
        pods.iter().map(AsRef::as_ref).partition(|pod| has_ended(pod));
    alive.sort_by_key(|pod| pod.metadata.name.clone());
    let ready = alive.iter().filter(|pod| is_ready(pod)).count();
    let joined = probes::Joined::of(inputs, &alive);
    let found: Vec<(&Pod, Finding)> =
        alive.iter().filter_map(|pod| Some((*pod, find(pod, &joined, now)?))).collect();
    let mut wrong = found.iter().filter(|(_, found)| !found.is_slow);
    let (first, failing) = (wrong.next(), found.iter().filter(|(_, found)| !found.is_slow).count());
    // The ReplicaSet usually replaces a pod that ended, so it counts only while no other pod is ready.
    let gone = || (ready == 0).then(|| ended.iter().find_map(|pod| startup::ended(pod, now))).flatten();
    let pod = first.map(|(pod, _)| reference(pod));
    let read_events = first.is_some_and(|(_, found)| found.read_events);
    let problem = first.map(|(_, found)| found.problem.clone()).or_else(|| Some(gone()?.problem));
    let slow = found.iter().find(|(_, found)| found.is_slow).map(|(_, found)| found.problem.message.clone());
    let start_longest = alive.iter().map(|pod| probes::start_longest(pod)).max().unwrap_or_default();
    PodHealth { pods: alive.len(), ready, problem, failing, slow, pod, read_events, start_longest }
}

/// Whether pods crash, cannot pull an image, or hang before their handler runs. `before`: the last answer,
/// which stays true until a pod is ready. Pods that are only slow, or wait for a node, do not count.
pub(crate) fn not_starting(pods: &[Arc<Pod>], before: bool, now: Timestamp) -> bool {
    let blocks_scaling = |pod: &Arc<Pod>| {
        let found = if has_ended(pod) { startup::ended(pod, now) } else { find_start(pod, now) };
        found.is_some_and(|found| found.blocks_scaling)
    };
    !pods.iter().any(|pod| is_ready(pod)) && (before && !pods.is_empty() || pods.iter().any(blocks_scaling))
}

fn find(pod: &Pod, joined: &probes::Joined, now: Timestamp) -> Option<Finding> {
    if is_ready(pod) {
        return None;
    }
    find_start(pod, now).or_else(|| probes::silent(pod, joined, now))
}

/// What keeps a pod from running all its containers.
fn find_start(pod: &Pod, now: Timestamp) -> Option<Finding> {
    startup::placed(pod, now)
        .or_else(|| statuses(pod).find_map(|status| containers::unwell(pod, status, now)))
        .or_else(|| startup::hangs(pod, now))
}

fn reference(pod: &Pod) -> PodRef {
    PodRef { name: name(pod).to_owned(), uid: pod.metadata.uid.clone().unwrap_or_default() }
}

#[cfg(test)]
mod tests;
