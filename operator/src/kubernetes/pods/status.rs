//! Reads the status of a pod. No I/O.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::jiff::Timestamp;
use rowlock_crds::containers::HANDLER;
use rowlock_crds::{api, labels};

use crate::kubernetes::api::kept::{ContainerStatus, Pod};
use crate::kubernetes::sanitize::sanitize;

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|found| found.status == "True")
}

pub(crate) fn count_ready(pods: &[Arc<Pod>]) -> u32 {
    u32::try_from(pods.iter().filter(|pod| is_ready(pod)).count()).unwrap_or(u32::MAX)
}

/// Whether all containers have ended for good.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the container of that name runs.
pub(crate) fn runs(pod: &Pod, container: &str) -> bool {
    let found = statuses(pod).find(|status| status.name == container);
    found.and_then(|status| status.state.as_ref()).is_some_and(|state| state.running.is_some())
}

/// The containers' statuses, in the order in which the containers start: init containers, which include the
/// sidecars and the handler, then the worker.
pub(crate) fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses))
}

/// The spec of the container of that name.
pub(crate) fn spec_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.init_containers.iter().flatten().chain(&spec.containers).find(|one| one.name == name)
}

/// Whether a container is a native sidecar. If its spec is unknown, only the handler counts as one.
pub(crate) fn is_sidecar(pod: &Pod, name: &str) -> bool {
    let found = spec_of(pod, name);
    found.map_or(name == HANDLER, |found| found.restart_policy.as_deref() == Some("Always"))
}

/// Whether a container is a main container: it runs beside others, and none waits for it.
pub(crate) fn is_main(pod: &Pod, name: &str) -> bool {
    pod.status.iter().flat_map(|status| &status.container_statuses).any(|status| status.name == name)
}

/// Whether an operator made the pod, from a template. Otherwise it is of a user's own Deployment.
pub(crate) fn is_of_an_operator(pod: &Pod) -> bool {
    pod.metadata.labels.get(labels::MANAGED_BY) == Some(api::FIELD_MANAGER)
}

pub(crate) fn running_since(status: &ContainerStatus) -> Option<Timestamp> {
    let running = status.state.as_ref()?.running.as_ref()?;
    running.started_at.as_ref().map(|time| time.0)
}

/// The age of the oldest pod.
pub(crate) fn oldest_age(pods: &[Arc<Pod>], now: Timestamp) -> Duration {
    let created = pods.iter().filter_map(|pod| pod.metadata.creation_timestamp.as_ref());
    created.map(|created| created.0).min().map_or(Duration::ZERO, |oldest| since(oldest, now))
}

/// The time from `then` to `now`; zero if `then` is later.
pub(crate) fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The command that shows a pod.
pub(crate) fn describe(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    format!("kubectl describe pod {} -n {namespace}", name(pod))
}

/// A condition of a pod.
pub(crate) struct PodCondition<'a> {
    pub(crate) status: &'a str,
    pub(crate) reason: &'a str,
    /// The message of the kubelet or the scheduler, sanitized.
    pub(crate) message: String,
    pub(crate) since: Option<Timestamp>,
}

pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<PodCondition<'a>> {
    let found = pod.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)?;
    let text = |text: &'a Option<String>| text.as_deref().unwrap_or_default();
    let since = found.last_transition_time.as_ref().map(|time| time.0);
    Some(PodCondition {
        status: &found.status,
        reason: text(&found.reason),
        message: sanitize(text(&found.message)),
        since,
    })
}
