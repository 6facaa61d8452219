//! Decides the conditions of a `TaskQueue`. No I/O. Each message says what is wrong and what to do.

mod rejections;
mod scaling;

use std::time::Duration;

use k8s_openapi::api::apps::v1::DeploymentCondition;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::jiff::Timestamp;
use rowlock_crds::{
    ConditionReason as Reason, ConditionType as Type, DatabaseStatus, PodTemplate, TaskQueueSpec,
    annotations, containers,
};
use rowlock_queue::{Error, NOT_THE_OWNER, SCHEMA_VERSION, is_owner};
use serde_json::Value;

use self::scaling::{contested, limited, without_pods};
use crate::kubernetes::api::kept::Deployment;
use crate::kubernetes::deployment::apply_result::Outcome;
use crate::kubernetes::deployment::canary::CanaryView;
use crate::kubernetes::deployment::foreign_scaling::ForeignScaling;
use crate::kubernetes::pods::health::PodHealth;
use crate::kubernetes::pods::status::since;
use crate::kubernetes::problem::Problem;
use crate::kubernetes::sanitize::sanitize;
use crate::kubernetes::status::canary;
use crate::view::QueueView;

/// How long pods may stay unready before the queue is stalled: the progress deadline of a Deployment, which
/// does not apply to pods that are added by scaling.
const MAX_UNREADY: Duration = Duration::from_mins(10);

/// How long pods may be ready without an instance in the database. Longer than heartbeats count, so that an
/// outage of the database does not look like this.
const MAX_UNJOINED: Duration = Duration::from_mins(1);

/// How long Kubernetes must have given up before that counts.
const GAVE_UP_FOR: Duration = Duration::from_secs(10);

/// What the status of a `TaskQueue` is decided from.
#[derive(Debug)]
pub(crate) struct StatusInputs<'a> {
    /// Its namespace and name.
    pub(crate) place: (&'a str, &'a str),
    pub(crate) spec: &'a TaskQueueSpec,
    /// Why the namespace or the database cannot be used.
    pub(crate) problem: Option<&'a Problem>,
    pub(crate) view: Option<&'a QueueView>,
    /// The database status, if it has changed to another database recently.
    pub(crate) former: Option<&'a DatabaseStatus>,
    pub(crate) outcome: &'a Outcome,
    /// The foreign field managers that set the number of pods.
    pub(crate) foreign_scaling: Option<&'a ForeignScaling>,
    /// The canary that runs or has failed.
    pub(crate) canary: Option<&'a CanaryView>,
    pub(crate) deployment: Option<&'a Deployment>,
    pub(crate) health: &'a PodHealth,
    /// Whether it was ready a moment ago, and its first pods are starting.
    pub(crate) is_waking_up: bool,
    /// How long no pod has been ready, though pods are wanted and the database answers.
    pub(crate) unready_for: Option<Duration>,
    /// How long pods have been ready, but no instance of the queue in the database.
    pub(crate) unjoined_for: Option<Duration>,
    /// Resources of the worker container.
    pub(crate) worker: &'a ResourceRequirements,
    pub(crate) now: Timestamp,
}

impl StatusInputs<'_> {
    /// The name of the Deployment with the pods.
    fn deployment_name(&self) -> &str {
        self.spec.deployment_name(self.place.1)
    }
}

/// A condition without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewCondition {
    pub(crate) type_: Type,
    /// `None`: unknown.
    pub(crate) holds: Option<bool>,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

/// All conditions, in the order of the status.
pub(crate) fn decide_conditions(inputs: &StatusInputs<'_>) -> Vec<NewCondition> {
    let stalled = stalled(inputs);
    let ready = ready(inputs, stalled.as_ref());
    let stalled = stalled.or_else(|| mismatch(inputs)).or_else(|| canary::failed(inputs));
    let all = [
        ready,
        reconciling(inputs, stalled.as_ref()),
        match &stalled {
            Some(problem) => condition(Type::Stalled, Some(true), problem.reason, &problem.message),
            None => condition(Type::Stalled, Some(false), Reason::Succeeded, "no user action needed"),
        },
        database(inputs),
        schema(inputs),
        handler(inputs),
        limited(inputs),
        contested(inputs),
    ];
    all.into()
}

/// The problem that lasts until a user changes something.
pub(crate) fn stalled(inputs: &StatusInputs<'_>) -> Option<Problem> {
    if let Some(problem) = inputs.problem {
        let passes = problem.may_pass() || problem.reason == Reason::NotObserved;
        return (!passes).then(|| problem.clone());
    }
    if let Some(error) = inputs.view.and_then(|view| view.refused.as_deref()) {
        return match error {
            Error::Refused { code, .. } if code == NOT_THE_OWNER => {
                let owner = inputs.view.and_then(|view| view.owner.as_deref());
                let message = owned_by_another(inputs, owner, &error.to_string());
                Some(Problem::new(Reason::OwnedByAnother, message))
            }
            error if error.is_transient() => None,
            error => Some(Problem::from(error)),
        };
    }
    match inputs.outcome {
        Outcome::Foreign(message) => return Some(Problem::new(Reason::OwnedByAnother, message)),
        Outcome::Rejected(detail) => {
            let message = rejections::template_rejected(detail, template(inputs).as_ref());
            return Some(Problem::new(Reason::TemplateRejected, message));
        }
        Outcome::Forbidden(detail) => return Some(Problem::new(Reason::Forbidden, sanitize(detail))),
        Outcome::Unsuitable(reason, message) => return Some(Problem::new(*reason, message)),
        Outcome::NotTried
        | Outcome::Done
        | Outcome::Mismatch(_)
        | Outcome::Waiting(_)
        | Outcome::Failed(_) => (),
    }
    no_pods(inputs).or_else(|| never_ready(inputs))
}

fn template(inputs: &StatusInputs<'_>) -> Option<Value> {
    inputs.spec.template.as_ref().map(PodTemplate::to_value)
}

/// The pods of a target run tasks, but differ from what the `TaskQueue` asks for.
fn mismatch(inputs: &StatusInputs<'_>) -> Option<Problem> {
    let is_known = inputs.problem.is_none() && inputs.view.is_some_and(|view| view.refused.is_none());
    match inputs.outcome {
        Outcome::Mismatch(message) if is_known => Some(Problem::new(Reason::TargetInvalid, message)),
        _ => None,
    }
}

/// The API server rejects new pods.
fn no_pods(inputs: &StatusInputs<'_>) -> Option<Problem> {
    let failure =
        deployment_condition(inputs.deployment?, "ReplicaFailure").filter(|one| one.status == "True")?;
    let detail = failure.message.as_deref().unwrap_or_default();
    let message = match &inputs.spec.target_ref {
        Some(target) => rejections::target_pods_rejected(detail, &target.name),
        None => rejections::pods_rejected(detail, template(inputs).as_ref(), inputs.worker),
    };
    Some(Problem::new(Reason::PodsRejected, message))
}

/// Pods exist, but have not been ready for longer than the deadline of the Deployment or ours.
fn never_ready(inputs: &StatusInputs<'_>) -> Option<Problem> {
    let given_up = inputs.deployment.filter(|deployment| is_current(deployment)).and_then(|deployment| {
        let detail = deployment_condition(deployment, "Progressing")?;
        // After a long canary, Kubernetes gives up for the moment until it sees that new pods count again.
        let lately = detail.last_update_time.as_ref().is_some_and(|at| since(at.0, inputs.now) < GAVE_UP_FOR);
        let is_over = detail.status == "False"
            && detail.reason.as_deref() == Some("ProgressDeadlineExceeded")
            && !lately;
        is_over.then(|| sanitize(detail.message.as_deref().unwrap_or_default()))
    });
    let longest = MAX_UNREADY.max(inputs.health.start_longest.saturating_mul(2));
    if given_up.is_none() && inputs.unready_for.is_none_or(|unready_for| unready_for < longest) {
        return None;
    }
    if let Some(problem) = &inputs.health.problem {
        return Some(problem.clone());
    }
    let (minutes, slow) = (longest.as_secs() / 60, inputs.health.slow.clone());
    let message = slow.or(given_up).unwrap_or_else(|| format!("no pod has been ready for {minutes} minutes"));
    let ((namespace, name), label) = (inputs.place, rowlock_crds::labels::TASK_QUEUE);
    let message = format!(
        "the pods do not get ready: {message}; kubectl describe pods -n {namespace} -l {label}={name}"
    );
    Some(Problem::new(Reason::NotStarting, message))
}

fn deployment_condition<'a>(deployment: &'a Deployment, type_: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.as_ref()?.conditions.as_deref()?.iter().find(|one| one.type_ == type_)
}

/// Whether the Deployment's status describes its current spec.
fn is_current(deployment: &Deployment) -> bool {
    let observed = deployment.status.as_ref().and_then(|status| status.observed_generation);
    observed >= deployment.metadata.generation
}

/// Names the owner of the queue, and how to take the queue over. The name comes from the database, where any
/// user may have written it: it becomes part of a command only if it looks like an owner.
fn owned_by_another(inputs: &StatusInputs<'_>, owner: Option<&str>, detail: &str) -> String {
    let Some(owner) = owner.filter(|owner| is_owner(owner)) else { return sanitize(detail) };
    let ((namespace, name), adopt) = (inputs.place, annotations::ADOPT);
    format!(
        "the queue in the database belongs to {owner} (cluster uid, namespace and name of a TaskQueue): give \
         this one another queueName; or, to take the queue over, `kubectl annotate taskqueue {name} \
         -n {namespace} --overwrite '{adopt}={owner}'`"
    )
}

fn ready(inputs: &StatusInputs<'_>, stalled: Option<&Problem>) -> NewCondition {
    let not = |problem: &Problem| condition(Type::Ready, Some(false), problem.reason, &problem.message);
    if let Some(problem) = stalled.or(inputs.problem) {
        // Running pods may still process tasks.
        let holds = (problem.reason != Reason::NotObserved).then(|| works(inputs));
        return NewCondition { holds, ..not(problem) };
    }
    let Some(view) = inputs.view else {
        return condition(Type::Ready, None, Reason::NotObserved, "not observed yet");
    };
    let (wanted, ready) = (view.decision.pods_desired, inputs.health.ready);
    if inputs.spec.paused {
        let message = "spec.paused is set: no task starts";
        return condition(Type::Ready, Some(false), Reason::Paused, message);
    }
    if inputs.deployment.is_none() {
        let message = "the Deployment is not created yet";
        return condition(Type::Ready, Some(false), Reason::Progressing, message);
    }
    if let Some(held_back) = without_pods(inputs, view) {
        return held_back;
    }
    let pods = format!("{ready} of {wanted} pods ready");
    if wanted > 0 && ready == 0 {
        if let Some(problem) = &inputs.health.problem {
            return not(problem);
        }
        let pods = inputs.health.slow.as_ref().map_or_else(|| pods.clone(), |slow| format!("{pods}: {slow}"));
        // A queue that is scaled to zero is ready, so one that is scaled up from zero is ready too.
        return condition(Type::Ready, Some(inputs.is_waking_up), Reason::Progressing, &pods);
    }
    if never_joined(inputs) {
        let message = format!(
            "{ready} pods are ready, but no instance of the queue {} is in this database: their workers use \
             another one. Compare the connection string of the container {} with the Secret of spec.database",
            sanitize(&view.name),
            containers::WORKER
        );
        return condition(Type::Ready, Some(false), Reason::NotJoined, &message);
    }
    condition(Type::Ready, Some(true), Reason::Succeeded, &pods)
}

/// Whether the workers of ready pods sent no heartbeat to this database.
fn never_joined(inputs: &StatusInputs<'_>) -> bool {
    inputs.unjoined_for.is_some_and(|unjoined_for| MAX_UNJOINED <= unjoined_for)
}

/// Whether the running pods process tasks, although the queue is stalled.
fn works(inputs: &StatusInputs<'_>) -> bool {
    let ours =
        !matches!(inputs.outcome, Outcome::Foreign(_) | Outcome::Forbidden(_) | Outcome::Unsuitable(..));
    let refused =
        inputs.view.is_some_and(|view| view.refused.as_ref().is_some_and(|error| !error.is_transient()));
    let held_back = inputs.view.is_some_and(|view| without_pods(inputs, view).is_some());
    ours && !refused
        && !held_back
        && inputs.problem.is_none()
        && !inputs.spec.paused
        && 0 < inputs.health.ready
        && !never_joined(inputs)
}

fn reconciling(inputs: &StatusInputs<'_>, stalled: Option<&Problem>) -> NewCondition {
    if stalled.is_some() {
        return condition(Type::Reconciling, Some(false), Reason::Succeeded, "see Stalled");
    }
    let Some(view) = inputs.view else {
        return condition(Type::Reconciling, Some(true), Reason::Progressing, "waiting for the database");
    };
    let message = match inputs.outcome {
        Outcome::Failed(error) => Some(format!("a write failed; trying again: {}", sanitize(error))),
        Outcome::Waiting(why) => Some(why.clone()),
        _ => None,
    };
    if let Some(message) = message {
        return condition(Type::Reconciling, Some(true), Reason::Progressing, &message);
    }
    let wanted = i32::try_from(view.decision.pods_desired).unwrap_or(i32::MAX);
    let settled = inputs.deployment.is_some_and(|deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        let current = is_current(deployment);
        let counts = [status.replicas, status.updated_replicas, status.ready_replicas];
        current && counts.iter().all(|count| count.unwrap_or_default() == wanted)
    });
    if settled {
        return condition(Type::Reconciling, Some(false), Reason::Succeeded, "all pods are up to date");
    }
    let message = on_the_way(inputs, wanted);
    condition(Type::Reconciling, Some(true), Reason::Progressing, &message)
}

fn on_the_way(inputs: &StatusInputs<'_>, wanted: i32) -> String {
    let spec = inputs.deployment.and_then(|deployment| deployment.spec.as_ref());
    if spec.is_some_and(|spec| spec.paused == Some(true)) {
        let (namespace, name) = (inputs.place.0, inputs.deployment_name());
        return format!(
            "the rollout of the Deployment is paused, so its pods are not updated: kubectl rollout resume \
             deployment/{name} -n {namespace}"
        );
    }
    if inputs.foreign_scaling.is_some() {
        return format!("scaling to {wanted} pods; another field manager sets the number too: see Contested");
    }
    if let Some(message) = canary::running(inputs) {
        return message;
    }
    let message = format!("updating to {wanted} pods of the current template");
    inputs.health.slow.as_ref().map_or_else(|| message.clone(), |slow| format!("{message}: {slow}"))
}

fn database(inputs: &StatusInputs<'_>) -> NewCondition {
    let Some(problem) = inputs.problem else {
        return match (inputs.view, inputs.former) {
            (Some(_), Some(former)) => changed(former),
            (Some(_), None) => {
                condition(Type::DatabaseReachable, Some(true), Reason::Succeeded, "the database answers")
            }
            (None, _) => condition(Type::DatabaseReachable, None, Reason::NotObserved, "not observed yet"),
        };
    };
    if problem.is_in_schema() {
        return condition(Type::DatabaseReachable, Some(true), Reason::Succeeded, "the database answers");
    }
    let unknown = matches!(problem.reason, Reason::NotObserved | Reason::Forbidden | Reason::OwnedByAnother);
    condition(Type::DatabaseReachable, (!unknown).then_some(false), problem.reason, &problem.message)
}

fn changed(database: &DatabaseStatus) -> NewCondition {
    let DatabaseStatus { identity, before, .. } = database;
    let (identity, before) = (sanitize(identity), sanitize(before.as_deref().unwrap_or_default()));
    let message = format!(
        "the Secret leads to the database {identity}; before, it led to {before}: tasks that are left there \
         are not processed. If that is wrong, correct the Secret"
    );
    condition(Type::DatabaseReachable, Some(true), Reason::DatabaseChanged, &message)
}

fn schema(inputs: &StatusInputs<'_>) -> NewCondition {
    match inputs.problem {
        Some(problem) if problem.is_in_schema() => {
            condition(Type::SchemaReady, Some(false), problem.reason, &problem.message)
        }
        None if inputs.view.is_some() => {
            condition(Type::SchemaReady, Some(true), Reason::Succeeded, &format!("version {SCHEMA_VERSION}"))
        }
        _ => condition(Type::SchemaReady, None, Reason::NotObserved, "waiting for the database"),
    }
}

fn handler(inputs: &StatusInputs<'_>) -> NewCondition {
    let PodHealth { pods, ready, problem, failing, slow, .. } = inputs.health;
    match problem {
        // Without the database no worker is ready, which says nothing about the handler.
        Some(problem) if problem.reason == Reason::NotListening && inputs.problem.is_some() => condition(
            Type::HandlerHealthy,
            None,
            Reason::NotObserved,
            "waiting for the workers to reach the database",
        ),
        Some(problem) if *failing > 1 => {
            let message = format!("{} ({failing} of {pods} pods)", problem.message);
            condition(Type::HandlerHealthy, Some(false), problem.reason, &message)
        }
        Some(problem) => condition(Type::HandlerHealthy, Some(false), problem.reason, &problem.message),
        None if *pods == 0 => condition(Type::HandlerHealthy, None, Reason::Idle, "no pod runs"),
        None if *ready == 0 => {
            let message = slow.as_deref().unwrap_or("the pods are starting");
            condition(Type::HandlerHealthy, None, Reason::Progressing, message)
        }
        None => condition(Type::HandlerHealthy, Some(true), Reason::Succeeded, "the handlers accept tasks"),
    }
}

fn condition(type_: Type, holds: Option<bool>, reason: Reason, message: &str) -> NewCondition {
    NewCondition { type_, holds, reason, message: message.to_owned() }
}

#[cfg(test)]
mod tests;
