//! What the pods of a queue say of its handler: pure. Every answer names the pod, what keeps it from
//! working, and what to do.

mod containers;
mod probes;
mod startup;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use rowlock_crds::{ConditionReason, containers as names};

use crate::kubernetes::database::session::{Problem, sanitize};

/// For so long anything may take before people are told what is waited for.
const SLOW: Duration = Duration::from_secs(30);

/// So long ago what ended says nothing of today: the kubelet pauses for five minutes at most between two
/// tries.
const RECENTLY: Duration = Duration::from_mins(10);

/// What is known beside the pods.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HealthInputs {
    /// Where the handler shall listen.
    pub(crate) port: u16,
    /// Instances of the queue that the database knows, where it says.
    pub(crate) instances: Option<i64>,
}

/// How the pods are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PodHealth {
    pub(crate) pods: usize,
    pub(crate) ready: usize,
    /// What is wrong with the first pod that has something wrong.
    pub(crate) problem: Option<Problem>,
    /// How many have something wrong.
    pub(crate) failing: usize,
    /// What the first pod waits for that takes its time, though nothing is wrong.
    pub(crate) slow: Option<String>,
    /// The pod of that trouble.
    pub(crate) pod: Option<PodRef>,
    /// Whether events of the kubelet say more of it.
    pub(crate) read_events: bool,
    /// How long a start may take by the probes of the template.
    pub(crate) start_longest: Duration,
}

/// One pod of all times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodRef {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// What keeps a pod from working.
#[derive(Debug)]
pub(crate) struct Finding {
    problem: Problem,
    /// Not wrong yet: it takes its time.
    is_slow: bool,
    /// More such pods would fare no better.
    blocks_scaling: bool,
    /// Events of the kubelet say more.
    read_events: bool,
}

impl Finding {
    fn new(reason: ConditionReason, message: String) -> Self {
        Self {
            problem: Problem::new(reason, message),
            is_slow: false,
            blocks_scaling: false,
            read_events: false,
        }
    }

    fn slow(message: String) -> Self {
        Self { is_slow: true, ..Self::new(ConditionReason::Progressing, message) }
    }
}

impl PodHealth {
    /// Adds what the kubelet says of the pod.
    pub(crate) fn add(&mut self, detail: &str) {
        if let Some(problem) = &mut self.problem {
            problem.message = format!("{}; its events say: {}", problem.message, sanitize(detail));
        }
    }
}

/// Judges the pods that are not on their way out.
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
    // Those that ended have successors, as a rule.
    let gone = || (ready == 0).then(|| ended.iter().find_map(|pod| startup::ended(pod, now))).flatten();
    let pod = first.map(|(pod, _)| reference(pod));
    let read_events = first.is_some_and(|(_, found)| found.read_events);
    let problem = first.map(|(_, found)| found.problem.clone()).or_else(|| Some(gone()?.problem));
    let slow = found.iter().find(|(_, found)| found.is_slow).map(|(_, found)| found.problem.message.clone());
    let start_longest = alive.iter().map(|pod| probes::start_longest(pod)).max().unwrap_or_default();
    PodHealth { pods: alive.len(), ready, problem, failing, slow, pod, read_events, start_longest }
}

/// Whether pods only end, find no image, or hang before their handler runs, until one of them is ready;
/// `before`: whether they did when last looked at. Not where they only take their time, or wait for a node.
pub(crate) fn not_starting(pods: &[Arc<Pod>], before: bool, now: Timestamp) -> bool {
    let blocks_scaling = |pod: &Arc<Pod>| {
        let found = if has_ended(pod) { startup::ended(pod, now) } else { find_start(pod, now) };
        found.is_some_and(|found| found.blocks_scaling)
    };
    !pods.iter().any(|pod| is_ready(pod)) && (before && !pods.is_empty() || pods.iter().any(blocks_scaling))
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|found| found.status == "True")
}

/// Its containers do not run any more, and none will.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the container of that name runs.
pub(crate) fn runs(pod: &Pod, container: &str) -> bool {
    let found = statuses(pod).find(|status| status.name == container);
    found.and_then(|status| status.state.as_ref()).is_some_and(|state| state.running.is_some())
}

fn find(pod: &Pod, joined: &probes::Joined, now: Timestamp) -> Option<Finding> {
    if is_ready(pod) {
        return None;
    }
    find_start(pod, now).or_else(|| probes::silent(pod, joined, now))
}

/// What is in the way before all containers run.
fn find_start(pod: &Pod, now: Timestamp) -> Option<Finding> {
    startup::placed(pod, now)
        .or_else(|| statuses(pod).find_map(|status| containers::unwell(pod, status, now)))
        .or_else(|| startup::hangs(pod, now))
}

/// Init containers in their order, sidecars and the handler among them, and then the worker.
fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status
        .flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses))
        .flatten()
}

/// What the pod was made to run under that name.
fn spec_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.init_containers.iter().flatten().chain(&spec.containers).find(|one| one.name == name)
}

/// Whether it runs as long as the pod does. Of one that is not known the handler alone does.
fn is_sidecar(pod: &Pod, name: &str) -> bool {
    let found = spec_of(pod, name);
    found.map_or(name == names::HANDLER, |found| found.restart_policy.as_deref() == Some("Always"))
}

fn running_since(status: &ContainerStatus) -> Option<Timestamp> {
    let running = status.state.as_ref()?.running.as_ref()?;
    running.started_at.as_ref().map(|time| time.0)
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn reference(pod: &Pod) -> PodRef {
    PodRef { name: name(pod).to_owned(), uid: pod.metadata.uid.clone().unwrap_or_default() }
}

/// How people look at it.
fn describe(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    format!("kubectl describe pod {} -n {namespace}", name(pod))
}

/// A condition of a pod.
struct PodCondition<'a> {
    status: &'a str,
    reason: &'a str,
    /// What the kubelet or the scheduler says, as a part of a sentence of ours.
    message: String,
    since: Option<Timestamp>,
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<PodCondition<'a>> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let found = conditions.iter().find(|condition| condition.type_ == type_)?;
    let text = |text: &'a Option<String>| text.as_deref().unwrap_or_default();
    let since = found.last_transition_time.as_ref().map(|time| time.0);
    Some(PodCondition {
        status: &found.status,
        reason: text(&found.reason),
        message: sanitize(text(&found.message)),
        since,
    })
}

#[cfg(test)]
mod tests;
