//! Pods that have ended for good, as the kubelet reports. `controller/rescue_pods.rs` ends their leases.
//! No I/O.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::api::core::v1::ContainerStateTerminated;
use rowlock_crds::{containers, labels};
use rowlock_queue::LEASE_DURATION;

use crate::kubernetes::api::kept::{ContainerStatus, Pod, TEMPLATE_HASH};
use crate::kubernetes::pods::recent::{Noted, RecentByNamespace};
use crate::kubernetes::pods::status::{condition, has_ended, is_main, name, statuses};
use crate::kubernetes::sanitize::sanitize;

/// The reasons with which a kubelet reports the end of a process that it has seen. It writes others for a
/// container that it has lost, such as `ContainerStatusUnknown`: that one may still run.
const SEEN_TO_END: [&str; 5] = ["Completed", "Error", "OOMKilled", "StartError", "ContainerCannotRun"];

/// The most containers whose ends are named: an error of a task has room for a few.
const MOST_NAMED: usize = 4;

/// A pod of a `TaskQueue` that has ended for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndedPod {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) task_queue: String,
    /// The Deployment whose `ReplicaSet` it belongs to.
    pub(crate) deployment: String,
    /// How its containers ended, in words.
    pub(crate) how: String,
}

/// The pods that ended lately. After a lease, others have rescued their tasks.
#[derive(Debug)]
pub(crate) struct EndedPods(RecentByNamespace<EndedPod>);

impl Default for EndedPods {
    fn default() -> Self {
        Self(RecentByNamespace::new(LEASE_DURATION))
    }
}

impl EndedPods {
    /// Remembers the pod, if it has ended.
    pub(crate) fn note(&self, pod: &Pod, now: Instant) {
        let Some((namespace, ended)) = pod.metadata.namespace.clone().zip(ended(pod)) else { return };
        self.0.note(namespace, ended.uid.clone(), ended, |_| true, now);
    }

    /// At most `most` pods of this namespace whose leases have not ended yet, each with the value that `of`
    /// returns. Pods for which it returns `None` are skipped.
    pub(crate) fn pending<T>(
        &self,
        namespace: &str,
        of: impl Fn(&EndedPod) -> Option<T>,
        most: usize,
        now: Instant,
    ) -> Vec<(EndedPod, T)> {
        let is_due =
            |noted: &Noted<EndedPod>| noted.sent == 0 && now.duration_since(noted.at) < LEASE_DURATION;
        self.0.pending(namespace, is_due, of, most)
    }

    /// The leases of this pod have ended. It stays noted, because the event of its deletion follows.
    pub(crate) fn done(&self, namespace: &str, uid: &str) {
        self.0.change(namespace, uid, |noted| noted.sent = 1);
    }
}

/// The pod of a Deployment for a `TaskQueue`, if nothing of it runs or will run again.
fn ended(pod: &Pod) -> Option<EndedPod> {
    let how = proof_of_end(pod)?;
    let (task_queue, deployment) = belongs_to(pod)?;
    Some(EndedPod {
        uid: pod.metadata.uid.clone()?,
        name: name(pod).to_owned(),
        task_queue: task_queue.to_owned(),
        deployment: deployment.to_owned(),
        how,
    })
}

/// The `TaskQueue` of a pod, and the Deployment whose `ReplicaSet` it belongs to.
pub(crate) fn belongs_to(pod: &Pod) -> Option<(&str, &str)> {
    let labels = &pod.metadata.labels;
    let (task_queue, hash) = (labels.get(labels::TASK_QUEUE)?, labels.get(TEMPLATE_HASH)?);
    let references = pod.metadata.owner_references.as_deref()?;
    let owner = references.iter().find(|owner| owner.controller == Some(true))?;
    let is_replica_set = owner.kind == "ReplicaSet" && owner.api_version.starts_with("apps/");
    let deployment = owner.name.strip_suffix(hash)?.strip_suffix('-')?;
    is_replica_set.then_some((task_queue, deployment))
}

/// How the containers of a pod ended, if the kubelet says that all have, and will not start again.
///
/// Only the phase excludes that a container starts again in the same pod, as an instance with the same UID:
/// the kubelet sets it when it has stopped them all for good. The garbage collector of pods sets it too, for
/// nodes that it does not reach.
fn proof_of_end(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let collected = condition(pod, "DisruptionTarget").is_some_and(|one| one.reason == "DeletionByPodGC");
    let reason = status.reason.as_deref().filter(|reason| !reason.is_empty());
    if !has_ended(pod) || collected || reason == Some("NodeLost") {
        return None;
    }
    let all = statuses(pod).chain(&status.ephemeral_container_statuses);
    let ends = all.map(|one| Some((one.name.as_str(), end(one)?))).collect::<Option<BTreeMap<_, _>>>()?;
    let spec = pod.spec.as_ref()?;
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    if !ends.contains_key(containers::WORKER) || !all.all(|one| ends.contains_key(one.name.as_str())) {
        return None;
    }
    Some(how(pod, reason, &ends))
}

/// How a pod and its containers ended, in words: those that run tasks, or run beside them.
fn how(pod: &Pod, reason: Option<&str>, ends: &BTreeMap<&str, String>) -> String {
    let told = |name: &str| name == containers::HANDLER || is_main(pod, name);
    let others = ends.keys().filter(|name| **name != containers::WORKER && told(name));
    let names = [containers::WORKER].into_iter().chain(others.copied()).take(MOST_NAMED);
    let ends = names.filter_map(|name| Some(format!("{name}: {}", ends.get(name)?)));
    reason.map(sanitize).into_iter().chain(ends).collect::<Vec<_>>().join("; ")
}

/// How a container ended, if the kubelet has seen it.
fn end(status: &ContainerStatus) -> Option<String> {
    how_it_ended(status.state.as_ref()?.terminated.as_ref()?)
}

/// The same, from the state of a container that has ended.
pub(crate) fn how_it_ended(terminated: &ContainerStateTerminated) -> Option<String> {
    let reason = SEEN_TO_END.into_iter().find(|reason| terminated.reason.as_deref() == Some(reason))?;
    Some(format!("{reason}, exit code {}", terminated.exit_code))
}

#[cfg(test)]
mod tests;
