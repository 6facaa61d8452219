//! What was seen of a queue, as conditions: pure. Each says in words what is wrong and what to do.

mod refusals;
mod scaling;

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};
use k8s_openapi::api::core::v1::ResourceRequirements;
use rowlock_crds::{
    ConditionReason as Reason, ConditionType as Type, DatabaseStatus, TaskQueueSpec, annotations,
};
use rowlock_queue::{Error, NOT_THE_OWNER, SCHEMA_VERSION};

use self::scaling::{contested, limited, without_pods};
use super::contest::Contest;
use super::database::{self, Trouble, words};
use super::health::Health;
use super::outcome::Outcome;
use crate::view::QueueView;

/// For so long a queue may have no pod that is ready before somebody has to act: as long as a Deployment's
/// own deadline, which does not run where pods come by scaling.
const LACKS_LONGEST: Duration = Duration::from_mins(10);

/// Everything that a status is made from.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    /// Its namespace and name.
    pub(crate) place: (&'a str, &'a str),
    pub(crate) spec: &'a TaskQueueSpec,
    /// What keeps us from the namespace or the database, if anything does.
    pub(crate) trouble: Option<&'a Trouble>,
    pub(crate) view: Option<&'a QueueView>,
    /// The database before, where it has become another one of late.
    pub(crate) former: Option<&'a DatabaseStatus>,
    pub(crate) outcome: &'a Outcome,
    /// Who else sets how many pods there are.
    pub(crate) contest: Option<&'a Contest>,
    pub(crate) deployment: Option<&'a Deployment>,
    pub(crate) health: &'a Health,
    /// Whether it was ready until pods had to start for it, a moment ago.
    pub(crate) wakes: bool,
    /// How long it has had no pod that is ready, though there shall be some and the database answers.
    pub(crate) lacks: Option<Duration>,
    /// What the workers' containers ask for.
    pub(crate) worker: &'a ResourceRequirements,
}

/// A condition without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) type_: Type,
    /// `None`: unknown.
    pub(crate) holds: Option<bool>,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

/// All conditions, in the order of the status.
pub(crate) fn judge(seen: &Seen<'_>) -> Vec<Verdict> {
    let stalled = stalled(seen);
    let all = [
        ready(seen, stalled.as_ref()),
        reconciling(seen, stalled.as_ref()),
        match &stalled {
            Some(trouble) => verdict(Type::Stalled, Some(true), trouble.reason, &trouble.message),
            None => verdict(Type::Stalled, Some(false), Reason::Succeeded, "no user action needed"),
        },
        database(seen),
        schema(seen),
        handler(seen),
        limited(seen),
        contested(seen),
    ];
    all.into()
}

/// What cannot get better before somebody changes something.
pub(crate) fn stalled(seen: &Seen<'_>) -> Option<Trouble> {
    if let Some(trouble) = seen.trouble {
        let passes = trouble.may_pass() || trouble.reason == Reason::NotObserved;
        return (!passes).then(|| trouble.clone());
    }
    if let Some(error) = seen.view.and_then(|view| view.refused.as_deref()) {
        return match error {
            Error::Refused { code, .. } if code == NOT_THE_OWNER => {
                let owner = seen.view.and_then(|view| view.owner.as_deref());
                let message = anothers(seen, owner, &error.to_string());
                Some(Trouble::new(Reason::OwnedByAnother, message))
            }
            error if error.is_transient() => None,
            error => Some(database::trouble(error)),
        };
    }
    match seen.outcome {
        Outcome::Foreign(message) => return Some(Trouble::new(Reason::OwnedByAnother, message)),
        Outcome::Refused(said) => {
            let message = refusals::template_refused(said, seen.spec.template.as_ref());
            return Some(Trouble::new(Reason::TemplateRefused, message));
        }
        Outcome::Forbidden(said) => return Some(Trouble::new(Reason::Forbidden, words(said))),
        Outcome::NotTried | Outcome::Done | Outcome::Waiting(_) | Outcome::Failed(_) => (),
    }
    no_pods(seen).or_else(|| hopeless(seen))
}

/// No more pods are let in.
fn no_pods(seen: &Seen<'_>) -> Option<Trouble> {
    let failure = condition(seen.deployment?, "ReplicaFailure").filter(|one| one.status == "True")?;
    let said = failure.message.as_deref().unwrap_or_default();
    let message = refusals::pods_refused(said, seen.spec.template.as_ref(), seen.worker);
    Some(Trouble::new(Reason::PodsRefused, message))
}

/// Pods were let in, and have not become ready for so long that Kubernetes or we have given up hope.
fn hopeless(seen: &Seen<'_>) -> Option<Trouble> {
    let given_up = seen.deployment.filter(|deployment| is_current(deployment)).and_then(|deployment| {
        let said = condition(deployment, "Progressing")?;
        let is_over = said.status == "False" && said.reason.as_deref() == Some("ProgressDeadlineExceeded");
        is_over.then(|| words(said.message.as_deref().unwrap_or_default()))
    });
    let longest = LACKS_LONGEST.max(seen.health.start_longest.saturating_mul(2));
    if given_up.is_none() && seen.lacks.is_none_or(|lacks| lacks < longest) {
        return None;
    }
    if let Some(trouble) = &seen.health.trouble {
        return Some(trouble.clone());
    }
    let (minutes, slow) = (longest.as_secs() / 60, seen.health.slow.clone());
    let message =
        slow.or(given_up).unwrap_or_else(|| format!("no pod has become ready for {minutes} minutes"));
    let ((namespace, name), label) = (seen.place, rowlock_crds::labels::TASK_QUEUE);
    let message = format!(
        "the pods do not become ready: {message}; kubectl describe pods -n {namespace} -l {label}={name}"
    );
    Some(Trouble::new(Reason::NotStarting, message))
}

fn condition<'a>(deployment: &'a Deployment, type_: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.as_ref()?.conditions.as_deref()?.iter().find(|one| one.type_ == type_)
}

/// Whether its status is of what it says now.
fn is_current(deployment: &Deployment) -> bool {
    let seen = deployment.status.as_ref().and_then(|status| status.observed_generation);
    seen >= deployment.metadata.generation
}

/// Whose the queue is, and how to get it. Who it is says the database, and whoever wrote it there: what looks like no owner is not made
/// a part of a command.
fn anothers(seen: &Seen<'_>, owner: Option<&str>, said: &str) -> String {
    let Some(owner) = owner.filter(|owner| is_owner(owner)) else { return words(said) };
    let ((namespace, name), adopt) = (seen.place, annotations::ADOPT);
    format!(
        "the queue in the database belongs to {owner} (the cluster's number, namespace and name of a TaskQueue): give this one another \
         queueName; or, where that one is gone or shall lose it, `kubectl annotate taskqueue {name} -n {namespace} --overwrite '{adopt}={owner}'`"
    )
}

/// The longest owner: a number, a namespace and a name.
const LONGEST_OWNER: usize = 200;

/// As `declare_queue` takes it.
fn is_owner(owner: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-./ ".contains(&c);
    (1..=LONGEST_OWNER).contains(&owner.len()) && owner.bytes().all(allowed)
}

fn ready(seen: &Seen<'_>, stalled: Option<&Trouble>) -> Verdict {
    let not = |trouble: &Trouble| verdict(Type::Ready, Some(false), trouble.reason, &trouble.message);
    if let Some(trouble) = stalled.or(seen.trouble) {
        // Whoever works goes on.
        let holds = (trouble.reason != Reason::NotObserved).then(|| works(seen));
        return Verdict { holds, ..not(trouble) };
    }
    let Some(view) = seen.view else {
        return verdict(Type::Ready, None, Reason::NotObserved, "not looked at yet");
    };
    let (wanted, ready) = (view.decision.pods_desired, seen.health.ready);
    if seen.spec.paused {
        let message = "no task starts while spec.paused is set";
        return verdict(Type::Ready, Some(false), Reason::Paused, message);
    }
    if seen.deployment.is_none() {
        let message = "the Deployment has not been made yet";
        return verdict(Type::Ready, Some(false), Reason::Progressing, message);
    }
    if let Some(held_back) = without_pods(seen, view) {
        return held_back;
    }
    let pods = format!("{ready} of {wanted} pods ready");
    if wanted > 0 && ready == 0 {
        if let Some(trouble) = &seen.health.trouble {
            return not(trouble);
        }
        let pods = seen.health.slow.as_ref().map_or_else(|| pods.clone(), |slow| format!("{pods}: {slow}"));
        // A queue that sleeps and one that wakes up are as ready as each other.
        return verdict(Type::Ready, Some(seen.wakes), Reason::Progressing, &pods);
    }
    verdict(Type::Ready, Some(true), Reason::Succeeded, &pods)
}

/// Whether tasks are done, although something has to be changed for others.
fn works(seen: &Seen<'_>) -> bool {
    let ours = !matches!(seen.outcome, Outcome::Foreign(_) | Outcome::Forbidden(_));
    let refused =
        seen.view.is_some_and(|view| view.refused.as_ref().is_some_and(|error| !error.is_transient()));
    let held_back = seen.view.is_some_and(|view| without_pods(seen, view).is_some());
    ours && !refused && !held_back && seen.trouble.is_none() && !seen.spec.paused && 0 < seen.health.ready
}

fn reconciling(seen: &Seen<'_>, stalled: Option<&Trouble>) -> Verdict {
    if stalled.is_some() {
        return verdict(Type::Reconciling, Some(false), Reason::Succeeded, "see Stalled");
    }
    let Some(view) = seen.view else {
        return verdict(
            Type::Reconciling,
            Some(true),
            Reason::Progressing,
            "the database has to be reached first",
        );
    };
    let message = match seen.outcome {
        Outcome::Failed(error) => Some(format!("trying again: {}", words(error))),
        Outcome::Waiting(why) => Some(why.clone()),
        _ => None,
    };
    if let Some(message) = message {
        return verdict(Type::Reconciling, Some(true), Reason::Progressing, &message);
    }
    let wanted = i32::try_from(view.decision.pods_desired).unwrap_or(i32::MAX);
    let settled = seen.deployment.is_some_and(|deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        let current = is_current(deployment);
        let counts = [status.replicas, status.updated_replicas, status.ready_replicas];
        current && counts.iter().all(|count| count.unwrap_or_default() == wanted)
    });
    if settled {
        return verdict(Type::Reconciling, Some(false), Reason::Succeeded, "all pods are up to date");
    }
    let message = on_the_way(seen, wanted);
    verdict(Type::Reconciling, Some(true), Reason::Progressing, &message)
}

fn on_the_way(seen: &Seen<'_>, wanted: i32) -> String {
    let spec = seen.deployment.and_then(|deployment| deployment.spec.as_ref());
    if spec.is_some_and(|spec| spec.paused == Some(true)) {
        let (namespace, name) = seen.place;
        return format!(
            "somebody has paused the rollout of the Deployment, so its pods stay as they are: kubectl \
            rollout resume deployment/{name} -n {namespace}"
        );
    }
    if seen.contest.is_some() {
        return format!("on the way to {wanted} pods, which others set as well: see Contested");
    }
    let message = format!("on the way to {wanted} pods of the present template");
    seen.health.slow.as_ref().map_or_else(|| message.clone(), |slow| format!("{message}: {slow}"))
}

fn database(seen: &Seen<'_>) -> Verdict {
    let Some(trouble) = seen.trouble else {
        return match (seen.view, seen.former) {
            (Some(_), Some(former)) => changed(former),
            (Some(_), None) => {
                verdict(Type::DatabaseReachable, Some(true), Reason::Succeeded, "the database answers")
            }
            (None, _) => verdict(Type::DatabaseReachable, None, Reason::NotObserved, "not looked at yet"),
        };
    };
    if trouble.is_in_schema() {
        return verdict(Type::DatabaseReachable, Some(true), Reason::Succeeded, "the database answers");
    }
    let unknown = matches!(trouble.reason, Reason::NotObserved | Reason::Forbidden | Reason::OwnedByAnother);
    verdict(Type::DatabaseReachable, (!unknown).then_some(false), trouble.reason, &trouble.message)
}

fn changed(database: &DatabaseStatus) -> Verdict {
    let DatabaseStatus { identity, before, .. } = database;
    let (identity, before) = (words(identity), words(before.as_deref().unwrap_or_default()));
    let message = format!(
        "the Secret leads to the database {identity}, and led to {before}: what is left there is not done; if that is wrong, put the \
         Secret right"
    );
    verdict(Type::DatabaseReachable, Some(true), Reason::DatabaseChanged, &message)
}

fn schema(seen: &Seen<'_>) -> Verdict {
    match seen.trouble {
        Some(trouble) if trouble.is_in_schema() => {
            verdict(Type::SchemaReady, Some(false), trouble.reason, &trouble.message)
        }
        None if seen.view.is_some() => {
            verdict(Type::SchemaReady, Some(true), Reason::Succeeded, &format!("version {SCHEMA_VERSION}"))
        }
        _ => verdict(Type::SchemaReady, None, Reason::NotObserved, "the database has to be reached first"),
    }
}

fn handler(seen: &Seen<'_>) -> Verdict {
    let Health { pods, ready, trouble, troubled, slow, .. } = seen.health;
    match trouble {
        // A worker is not ready either while the database does not take it.
        Some(trouble) if trouble.reason == Reason::NotListening && seen.trouble.is_some() => verdict(
            Type::HandlerHealthy,
            None,
            Reason::NotObserved,
            "the workers have to reach the database first",
        ),
        Some(trouble) if *troubled > 1 => {
            let message = format!("{} ({troubled} of {pods} pods)", trouble.message);
            verdict(Type::HandlerHealthy, Some(false), trouble.reason, &message)
        }
        Some(trouble) => verdict(Type::HandlerHealthy, Some(false), trouble.reason, &trouble.message),
        None if *pods == 0 => verdict(Type::HandlerHealthy, None, Reason::Idle, "no pod runs"),
        None if *ready == 0 => {
            let message = slow.as_deref().unwrap_or("the pods start");
            verdict(Type::HandlerHealthy, None, Reason::Progressing, message)
        }
        None => verdict(Type::HandlerHealthy, Some(true), Reason::Succeeded, "the handlers take tasks"),
    }
}

fn verdict(type_: Type, holds: Option<bool>, reason: Reason, message: &str) -> Verdict {
    Verdict { type_, holds, reason, message: message.to_owned() }
}

#[cfg(test)]
mod tests;
