//! Pods whose containers run, but that are not ready.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::jiff::Timestamp;
use rowlock_crds::ConditionReason::NotListening;
use rowlock_crds::containers::{HANDLER, WORKER};

use super::finding::{Finding, HealthInputs, SLOW};
use crate::kubernetes::api::kept::{ContainerStatus, Pod};
use crate::kubernetes::pods::status::{
    is_of_an_operator, name, running_since, runs, since, spec_of, statuses,
};
use crate::kubernetes::sanitize::sanitize;

/// How long a handler may take to start, or a probe may fail, if the template does not set it.
const START: Duration = Duration::from_secs(30);

/// Kubernetes' defaults for a probe.
const PERIOD: i32 = 10;
const FAILURES: i32 = 3;

/// Whether the workers have joined their queue in the database.
pub(super) struct Joined {
    port: u16,
    /// `None`: only some have joined, or it is unknown.
    all: Option<bool>,
}

impl Joined {
    pub(super) fn of(inputs: HealthInputs, pods: &[&Pod]) -> Self {
        let working = pods.iter().filter(|pod| runs(pod, WORKER)).count();
        let all = inputs.instances.and_then(|instances| match usize::try_from(instances) {
            Ok(0) => Some(false),
            Ok(instances) if instances >= working => Some(true),
            _ => None,
        });
        Self { port: inputs.port, all }
    }
}

/// How long a start may take by the probes of the template.
pub(super) fn start_longest(pod: &Pod) -> Duration {
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    containers.map(allowed).max().unwrap_or_default()
}

/// The name of the probe whose failure makes the kubelet restart the container.
pub(super) fn that_ends(pod: &Pod, container: &str) -> Option<&'static str> {
    let spec = spec_of(pod, container)?;
    let probes = [("livenessProbe", &spec.liveness_probe), ("startupProbe", &spec.startup_probe)];
    probes.into_iter().find(|(_, probe)| probe.is_some()).map(|(name, _)| name)
}

/// A sidecar whose startup probe has not succeeded: the next containers wait for it.
pub(super) fn unstarted(pod: &Pod, status: &ContainerStatus, runs: Duration) -> Option<Finding> {
    let container = &status.name;
    let (pod, spec) = (name(pod), spec_of(pod, container));
    let longest = budget(spec.and_then(|spec| spec.startup_probe.as_ref())).max(START);
    let target = target(spec.and_then(|spec| spec.startup_probe.as_ref()));
    if runs < longest {
        let message = format!(
            "the startupProbe{target} of container {container} of pod {pod} has not succeeded yet; it may \
             take {} s",
            longest.as_secs()
        );
        return (runs >= SLOW).then(|| Finding::slow(message));
    }
    let message = format!(
        "the startupProbe{target} of container {container} of pod {pod} does not succeed. Check: 1. whether \
         the probe is right (a handler needs none); 2. whether the container listens only on 127.0.0.1, \
         where a probe cannot reach it; 3. whether it waits for a proxy that starts after it (a service \
         mesh whose proxy is not a native sidecar)"
    );
    Some(Finding::new(NotListening, message))
}

/// All containers run, but the worker or another one is not ready.
pub(super) fn silent(pod: &Pod, joined: &Joined, now: Timestamp) -> Option<Finding> {
    let of = |name: &str| statuses(pod).find(|status| status.name == name);
    // In a user's own Deployment, the handler has another name.
    if let Some(handler) = of(HANDLER) {
        running_since(handler)?;
    }
    let worker = of(WORKER)?;
    let works = since(running_since(worker)?, now);
    if worker.ready {
        return unready(pod, now);
    }
    let longest = spec_of(pod, HANDLER).map_or_else(|| start_longest(pod).max(START), allowed);
    if works < longest {
        let message = format!("pod {} waits for its handler to listen on port {}", name(pod), joined.port);
        return (works >= SLOW).then(|| Finding::slow(message));
    }
    let (is_ours, pod, port) = (is_of_an_operator(pod), name(pod), joined.port);
    let remedy = if is_ours { "let it listen on $PORT, or set" } else { "let it listen there, or change" };
    let handler = format!("its handler does not listen on port {port} ({remedy} spec.handler.http.port)");
    let database = format!(
        "its worker does not reach the database (a NetworkPolicy has to allow that, and DNS): see kubectl \
         logs {pod} -c worker"
    );
    let what = match joined.all {
        Some(true) => handler,
        Some(false) => database,
        None => format!("{handler}, or {database}"),
    };
    Some(Finding::new(NotListening, format!("pod {pod} is not ready: {what}")))
}

/// The worker is ready, but the probe of another container keeps the pod from being ready.
fn unready(pod: &Pod, now: Timestamp) -> Option<Finding> {
    let failing = statuses(pod).find_map(|status| {
        let probe = spec_of(pod, &status.name)?.readiness_probe.as_ref()?;
        let runs = since(running_since(status)?, now);
        (!status.ready && runs >= budget(Some(probe)).max(START)).then_some((status, probe))
    });
    let (status, probe) = failing?;
    let message = format!(
        "the readinessProbe{} of container {} of pod {} fails, so the pod runs tasks but never counts as \
         ready, and rollouts do not proceed: a probe cannot reach a handler that listens only on 127.0.0.1. \
         Remove the probe (none is needed), or let the handler listen on all addresses",
        target(Some(probe)),
        status.name,
        name(pod)
    );
    Some(Finding::new(NotListening, message))
}

/// How long a container may take until its probes succeed.
fn allowed(container: &Container) -> Duration {
    let probes = [&container.startup_probe, &container.readiness_probe, &container.liveness_probe];
    probes.into_iter().map(|probe| budget(probe.as_ref())).max().unwrap_or_default().max(START)
}

/// How long a probe may fail.
fn budget(probe: Option<&Probe>) -> Duration {
    let Some(probe) = probe else { return Duration::ZERO };
    let seconds =
        |seconds: Option<i32>, usual: i32| u64::try_from(seconds.unwrap_or(usual)).unwrap_or_default();
    let tries = seconds(probe.failure_threshold, FAILURES) * seconds(probe.period_seconds, PERIOD);
    Duration::from_secs(seconds(probe.initial_delay_seconds, 0) + tries)
}

/// The target of a probe, in parentheses.
pub(super) fn target(probe: Option<&Probe>) -> String {
    let port = |port: &k8s_openapi::apimachinery::pkg::util::intstr::IntOrString| match port {
        k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(port) => port.to_string(),
        k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String(name) => name.clone(),
    };
    let Some(probe) = probe else { return String::new() };
    if let Some(http) = &probe.http_get {
        let path = http.path.as_deref().unwrap_or("/");
        return format!(" (httpGet {} on port {})", sanitize(path), port(&http.port));
    }
    if let Some(tcp) = &probe.tcp_socket {
        return format!(" (tcpSocket on port {})", port(&tcp.port));
    }
    let command = probe.exec.as_ref().and_then(|exec| exec.command.as_ref()?.first());
    command.map_or_else(String::new, |command| format!(" (exec {})", sanitize(command)))
}
