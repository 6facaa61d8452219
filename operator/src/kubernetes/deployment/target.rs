//! Whether the Deployment of `spec.targetRef` fits its `TaskQueue`: pure.
//!
//! Its label `rowlock.dev/task-queue` says which `TaskQueue` may scale it. So somebody who may only create
//! `TaskQueues` cannot scale the Deployments of others, and two `TaskQueues` never scale the same one.

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use rowlock_crds::{ConditionReason as Reason, Dur, Manifest, api, containers, env, labels};

use crate::kubernetes::api::kept::{Deployment, Metadata};
use crate::kubernetes::deployment::apply_result::Outcome;
use crate::kubernetes::sanitize::sanitize;
use crate::worker_sidecar::worker_sidecar;

/// Variables of the worker that decide what it runs, and how it ends. The others may differ.
const COMPARED: [&str; 3] = [env::SLOTS, env::HANDLER_URL, env::DRAIN_GRACE];

/// How to print the fields that a target needs.
const PRINT: &str = "`rowlock sidecar -f FILE` prints what it needs";

/// Whether a Deployment was made by an operator for a `TaskQueue`.
pub(crate) fn is_of_an_operator(metadata: &Metadata) -> bool {
    controller(metadata).is_some_and(|owner| owner.kind == api::KIND)
}

/// Whether the Deployment is one that this `TaskQueue` may scale.
pub(crate) fn may_scale(metadata: &Metadata, task_queue: &str) -> bool {
    label(metadata) == Some(task_queue) && controller(metadata).is_none()
}

/// The parts of a target's template that are checked here.
pub(crate) fn outline(template: PodTemplateSpec) -> PodTemplateSpec {
    let label = template.metadata.and_then(|metadata| {
        let labels = metadata.labels.filter(|labels| labels.contains_key(labels::TASK_QUEUE))?;
        let labels = labels.into_iter().filter(|(name, _)| name == labels::TASK_QUEUE).collect();
        Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() })
    });
    let spec = template.spec.map(|spec| PodSpec {
        containers: spec.containers.into_iter().map(container).collect(),
        init_containers: spec.init_containers.map(|all| all.into_iter().map(container).collect()),
        share_process_namespace: spec.share_process_namespace,
        termination_grace_period_seconds: spec.termination_grace_period_seconds,
        ..PodSpec::default()
    });
    PodTemplateSpec { metadata: label, spec }
}

fn container(container: Container) -> Container {
    // Others may hold secrets, such as the URL of a database.
    let is_kept = |name: &str| name == env::QUEUE || COMPARED.contains(&name);
    let env = container.env.map(|all| all.into_iter().filter(|one| is_kept(&one.name)).collect());
    Container { name: container.name, env, ..Container::default() }
}

/// The outcome for a target that the watch does not show: it does not exist, or lacks the label.
pub(crate) fn unseen(found: Option<&Metadata>, name: &str, task_queue: &str) -> Outcome {
    let label = labels::TASK_QUEUE;
    match found {
        None => {
            let message = format!(
                "the Deployment `{name}` of spec.targetRef does not exist: create it, or correct the name"
            );
            Outcome::Unsuitable(Reason::TargetNotFound, message)
        }
        Some(metadata) if self::label(metadata).is_some() => {
            Outcome::Waiting(format!("the Deployment `{name}` has just got its label {label}"))
        }
        Some(_) => {
            let message = format!(
                "the Deployment `{name}` lacks the label {label}={task_queue}, by which it lets this \
                 TaskQueue scale it: add the label to its metadata and to its pod template; {PRINT}"
            );
            Outcome::Unsuitable(Reason::TargetInvalid, message)
        }
    }
}

/// Whether the Deployment can be scaled, and whether its pods are what the `TaskQueue` needs.
pub(crate) fn check(target: &Deployment, manifest: &Manifest) -> Outcome {
    let task_queue = &manifest.name;
    let name = target.metadata.name.as_deref().unwrap_or_default();
    if let Some(message) = anothers(&target.metadata, name, task_queue) {
        return Outcome::Foreign(message);
    }
    let of = |problem: String| format!("the Deployment `{name}` {problem}; {PRINT}");
    if let Some(problem) = without_worker(target, manifest) {
        return Outcome::Unsuitable(Reason::TargetInvalid, of(problem));
    }
    let differences = differences(target, manifest);
    if differences.is_empty() { Outcome::Done } else { Outcome::Mismatch(of(differences.join("; it "))) }
}

/// Why it is not this `TaskQueue` that scales the Deployment.
fn anothers(metadata: &Metadata, name: &str, task_queue: &str) -> Option<String> {
    if let Some(owner) = controller(metadata) {
        let (kind, owner) = (sanitize(&owner.kind), sanitize(&owner.name));
        return Some(format!(
            "the Deployment `{name}` belongs to the {kind} `{owner}`, which controls it: name another \
             Deployment in spec.targetRef"
        ));
    }
    let of = label(metadata).filter(|of| *of != task_queue)?;
    let label = labels::TASK_QUEUE;
    Some(format!(
        "the Deployment `{name}` has the label {label}={}, so that TaskQueue scales it, and this one does \
         not: name another Deployment in spec.targetRef, or set the label to {task_queue}",
        sanitize(of)
    ))
}

/// Why its pods would not run tasks of the queue.
fn without_worker(target: &Deployment, manifest: &Manifest) -> Option<String> {
    let template = template(target);
    let (label, task_queue) = (labels::TASK_QUEUE, &manifest.name);
    let of_pods = template.and_then(|template| {
        let labels = template.metadata.as_ref()?.labels.as_ref();
        labels?.get(label).map(String::as_str)
    });
    if of_pods != Some(task_queue) {
        return Some(format!(
            "has pods without the label {label}={task_queue}, by which the operator finds them: add it to \
             spec.template.metadata.labels"
        ));
    }
    let all: Vec<&Container> = all_containers(target).collect();
    let (queue, worker) = (manifest.queue_name(), containers::WORKER);
    let Some(found) = all.iter().find(|one| one.name == worker) else {
        let other = all.iter().find(|one| variable(one, env::QUEUE).is_some());
        return Some(match other {
            Some(other) => format!(
                "has its worker in the container `{}`: rename that container to `{worker}`",
                sanitize(&other.name)
            ),
            None => format!("has no container `{worker}` with Rowlock's worker: add it to its pod template"),
        });
    };
    match variable(found, env::QUEUE) {
        Some(Variable::Is(of)) if of == queue => None,
        Some(Variable::Is(of)) => Some(format!(
            "has a worker of the queue `{}` ({}): set it to {queue}, or correct spec.targetRef",
            sanitize(of),
            env::QUEUE
        )),
        _ => {
            Some(format!("has a container `{worker}` without the variable {}: set it to {queue}", env::QUEUE))
        }
    }
}

/// How its pods differ from what the `TaskQueue` asks for. They run tasks nevertheless.
fn differences(target: &Deployment, manifest: &Manifest) -> Vec<String> {
    let mut differences = Vec::new();
    let Some(expected) = worker_sidecar(manifest, "") else { return differences };
    let (expected, worker) = (&expected["spec"]["template"]["spec"], containers::WORKER);
    let found = all_containers(target).find(|one| one.name == worker);
    for wanted in expected["containers"][0]["env"].as_array().into_iter().flatten() {
        let (Some(name), Some(value)) = (wanted["name"].as_str(), wanted["value"].as_str()) else { continue };
        if !COMPARED.contains(&name) {
            continue;
        }
        match found.and_then(|found| variable(found, name)) {
            Some(Variable::Elsewhere) => (),
            Some(Variable::Is(now)) if is_same(now, value) => (),
            Some(Variable::Is(now)) => {
                let now = sanitize(now);
                differences.push(format!("has {name}={now} in the container `{worker}`: set it to {value}"));
            }
            None => differences.push(format!("lacks {name} in the container `{worker}`: set it to {value}")),
        }
    }
    let spec = template(target).and_then(|template| template.spec.as_ref());
    let grace = spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE);
    let needed = expected["terminationGracePeriodSeconds"].as_i64().unwrap_or_default();
    if grace < needed {
        differences.push(format!(
            "has a terminationGracePeriodSeconds of {grace}, which cuts tasks short: set it to {needed}, \
             spec.timeout plus 5 s"
        ));
    }
    if spec.is_some_and(|spec| spec.share_process_namespace == Some(true)) {
        differences.push(
            "has shareProcessNamespace, which opens the worker's files, with the database's URL, to the \
             other containers: remove it"
                .to_owned(),
        );
    }
    differences
}

/// Whether two values of a variable mean the same: a duration can be written as 60s or 1m.
fn is_same(found: &str, wanted: &str) -> bool {
    let dur = |text: &str| text.parse::<Dur>();
    found == wanted || dur(found).is_ok_and(|found| dur(wanted) == Ok(found))
}

/// Kubernetes' default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: i64 = 30;

/// What is kept of its template.
fn template(target: &Deployment) -> Option<&PodTemplateSpec> {
    target.spec.as_ref()?.template.as_deref()
}

fn all_containers(target: &Deployment) -> impl Iterator<Item = &Container> {
    let spec = template(target).and_then(|template| template.spec.as_ref()).into_iter();
    spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

/// The value of a variable.
enum Variable<'a> {
    Is(&'a str),
    /// In another object, or known only when the pod runs.
    Elsewhere,
}

fn variable<'a>(container: &'a Container, name: &str) -> Option<Variable<'a>> {
    let found = container.env.iter().flatten().find(|one| one.name == name)?;
    Some(match found.value_from {
        Some(_) => Variable::Elsewhere,
        None => Variable::Is(found.value.as_deref().unwrap_or_default()),
    })
}

fn label(metadata: &Metadata) -> Option<&str> {
    metadata.labels.get(labels::TASK_QUEUE)
}

fn controller(metadata: &Metadata) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

#[cfg(test)]
mod tests;
