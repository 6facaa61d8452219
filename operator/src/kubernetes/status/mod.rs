//! The status of a `TaskQueue`. No I/O, except for `pod_events` and `unreadable`. Counts are rounded, and
//! less important changes are written less often, so that a busy queue causes few writes.

mod canary;
pub(crate) mod conditions;
pub(crate) mod pod_events;
pub(crate) mod pre_stop_hooks;
mod scaling;
pub(crate) mod scaling_events;
pub(crate) mod unreadable;
pub(crate) mod write_budget;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rowlock_crds::{
    BacklogStatus, ConditionReason, ConditionType, DatabaseStatus, TaskQueueStatus, WorkersStatus,
};
use rowlock_queue::{QueueStats, SCHEMA_VERSION};
use serde_json::json;

use crate::kubernetes::deployment::build;
use crate::kubernetes::status::conditions::{NewCondition, StatusInputs};
use crate::kubernetes::status::scaling::rounded;
use crate::view::QueueView;

/// The time of the oldest task is computed from its age, so it varies with the duration of the query.
const SAME_TIME: SignedDuration = SignedDuration::from_secs(5);

/// How often a status may be written at most, even when a condition flaps.
const CONDITIONS_EVERY: Duration = Duration::from_secs(1);

/// How long a new leader keeps the conditions of the leader before it, while it has observed nothing itself.
/// It lists the cluster and connects within seconds.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// How long a database may be unreachable before an event reports it. Restarts and failovers are shorter.
const UNREACHABLE_GRACE: SignedDuration = SignedDuration::from_mins(1);

/// How long the status reports a changed database: long enough to be seen the next morning.
const CHANGED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// The longest message. The CRD allows more.
const LONGEST_MESSAGE: usize = 4000;

/// How important a changed status is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// Numbers: written after an interval.
    Numbers,
    /// Messages of conditions: the same, within the write budget.
    Messages,
    /// Conditions: written at once, within the write budget.
    Conditions,
}

impl Change {
    pub(crate) fn is_due(
        self,
        since_last: Option<Duration>,
        numbers_interval: Duration,
        has_budget: bool,
    ) -> bool {
        let every = match self {
            Self::None => return false,
            Self::Messages | Self::Conditions if !has_budget => return false,
            Self::Numbers | Self::Messages => numbers_interval,
            Self::Conditions => CONDITIONS_EVERY,
        };
        since_last.is_none_or(|since| since >= every)
    }

    /// Whether a write of it counts against the write budget.
    pub(crate) fn costs_budget(self) -> bool {
        matches!(self, Self::Messages | Self::Conditions)
    }
}

/// Whether the last status stays, because nothing has been observed since this replica began to lead. The
/// leader before it knew more, so `Ready` does not change only because another replica leads.
pub(crate) fn stays(last: &TaskQueueStatus, generation: Option<i64>, unobserved_for: Duration) -> bool {
    let is_current = |condition: &Condition| condition.observed_generation == generation;
    !last.conditions.is_empty()
        && last.conditions.iter().all(is_current)
        && last.observed_generation == generation
        && unobserved_for < KEPT_FOR
}

/// The next status. It keeps the transition times of conditions that have not changed.
pub(crate) fn status(
    inputs: &StatusInputs<'_>,
    conditions: &[NewCondition],
    generation: Option<i64>,
    last: &TaskQueueStatus,
    database: Option<DatabaseStatus>,
    now: Timestamp,
) -> TaskQueueStatus {
    let replicas =
        inputs.deployment.and_then(|deployment| deployment.status.as_ref()).map(|status| status.replicas);
    // The number to restore a deleted Deployment with.
    let kept = last.pods.filter(|_| inputs.spec.suspend_scaling && inputs.deployment.is_none());
    let stats = inputs.view.and_then(|view| view.stats.as_ref());
    TaskQueueStatus {
        observed_generation: generation,
        conditions: conditions
            .iter()
            .map(|new_condition| condition(new_condition, generation, last, now))
            .collect(),
        pods: replicas.map(Option::unwrap_or_default).or(kept),
        selector: Some(selector(inputs)),
        workers: inputs.view.map(|view| workers(view, last.workers.as_ref())),
        backlog: stats.map(|stats| backlog(stats, last, now)),
        scaling: inputs
            .view
            .map(|view| scaling::scaling(view, inputs.spec.workers.scaling(), last.scaling.as_ref())),
        canary: inputs.canary.map(canary::canary),
        schema: if inputs.view.is_some() && inputs.problem.is_none() {
            Some(SCHEMA_VERSION)
        } else {
            last.schema
        },
        adopted: last.adopted.clone(),
        database,
    }
}

/// The condition of a database that has been unreachable for a while, though it may come back by itself.
/// (Problems that somebody has to solve are `Stalled`, which has an event at once.)
pub(crate) fn long_unreachable(status: &TaskQueueStatus, now: Timestamp) -> Option<&Condition> {
    let find = |type_: ConditionType, value: &str| {
        status.conditions.iter().find(|one| one.type_ == type_.as_str() && one.status == value)
    };
    let unreachable = find(ConditionType::DatabaseReachable, "False")?;
    let is_long = now.duration_since(unreachable.last_transition_time.0) >= UNREACHABLE_GRACE;
    (is_long && find(ConditionType::Stalled, "True").is_none()).then_some(unreachable)
}

/// Whether the status says that the queue is stalled because its pods do not get ready. A new leader would
/// otherwise wait as long again.
pub(crate) fn pods_never_ready(status: &TaskQueueStatus, generation: Option<i64>) -> bool {
    use ConditionReason::{CrashLooping, ImageNotPulled, NotListening, NotStarting};
    let reasons = [CrashLooping, ImageNotPulled, NotListening, NotStarting];
    status.conditions.iter().any(|condition| {
        condition.type_ == ConditionType::Stalled.as_str()
            && condition.status == "True"
            && condition.observed_generation == generation
            && reasons.iter().any(|reason| reason.as_str() == condition.reason)
    })
}

/// The current database, and the previous one.
pub(crate) fn database(
    last: Option<&DatabaseStatus>,
    identity: Option<&str>,
    now: Timestamp,
) -> Option<DatabaseStatus> {
    let (Some(identity), before) = (identity, last.map(|last| &last.identity)) else { return last.cloned() };
    if before.is_some_and(|before| before == identity) {
        return last.cloned();
    }
    let changed = before.map(|_| whole_seconds(now));
    Some(DatabaseStatus { identity: identity.to_owned(), before: before.cloned(), changed })
}

/// The database status, if the database has changed recently.
pub(crate) fn former(database: Option<&DatabaseStatus>, now: Timestamp) -> Option<&DatabaseStatus> {
    let changed = |database: &&DatabaseStatus| {
        database.changed.as_ref().is_some_and(|at| now.duration_since(at.0) < CHANGED_FOR)
    };
    database.filter(changed)
}

/// How important the difference is. Another message of the same condition can wait like a number.
pub(crate) fn change(last: &TaskQueueStatus, next: &TaskQueueStatus) -> Change {
    // Nearly always; the rest makes copies.
    if last == next {
        return Change::None;
    }
    let conditions = |status: &TaskQueueStatus| -> Vec<(String, String, String)> {
        let all = status.conditions.iter();
        all.map(|one| (one.type_.clone(), one.status.clone(), one.reason.clone())).collect()
    };
    let other = |status: &TaskQueueStatus| (status.observed_generation, status.adopted.clone());
    let numbers = |status: &TaskQueueStatus| TaskQueueStatus { conditions: Vec::new(), ..status.clone() };
    if conditions(last) != conditions(next) || other(last) != other(next) {
        Change::Conditions
    } else if numbers(last) != numbers(next) {
        Change::Numbers
    } else if last.conditions != next.conditions {
        Change::Messages
    } else {
        Change::None
    }
}

fn condition(
    new_condition: &NewCondition,
    generation: Option<i64>,
    last: &TaskQueueStatus,
    now: Timestamp,
) -> Condition {
    let status = match new_condition.holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let type_ = new_condition.type_.as_str();
    let before = last.conditions.iter().find(|one| one.type_ == type_ && one.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: new_condition.reason.as_str().to_owned(),
        message: new_condition.message.chars().take(LONGEST_MESSAGE).collect(),
        observed_generation: generation,
        last_transition_time: before.map_or(whole_seconds(now), |one| one.last_transition_time.clone()),
    }
}

/// While the database is away, the numbers that come from it stay unchanged.
fn workers(view: &QueueView, last: Option<&WorkersStatus>) -> WorkersStatus {
    let desired = i32::try_from(view.decision.workers_desired).unwrap_or(i32::MAX);
    let Some(stats) = &view.stats else {
        return WorkersStatus { desired, ..last.cloned().unwrap_or_default() };
    };
    let count = |count: i64| i32::try_from(count).unwrap_or(i32::MAX);
    WorkersStatus { desired, allocated: count(stats.allocated), busy: count(stats.busy) }
}

fn backlog(stats: &QueueStats, last: &TaskQueueStatus, now: Timestamp) -> BacklogStatus {
    let age = stats.oldest_available_seconds.and_then(|age| SignedDuration::try_from_secs_f64(age).ok());
    let oldest = age.and_then(|age| now.checked_sub(age).ok());
    let before = last.backlog.as_ref().and_then(|backlog| backlog.oldest_available.clone());
    let oldest_available = oldest.map(|oldest| match before {
        Some(before) if before.0.duration_since(oldest).abs() < SAME_TIME => before,
        _ => whole_seconds(oldest),
    });
    BacklogStatus {
        available: rounded(stats.available),
        scheduled: rounded(stats.scheduled),
        running: rounded(stats.running),
        retryable: rounded(stats.retryable),
        dead: rounded(stats.dead),
        oldest_available,
    }
}

/// The label selector as text, for the scale subresource. The pods of a target have only one of our labels.
fn selector(inputs: &StatusInputs<'_>) -> String {
    let name = inputs.place.1;
    let labels = match &inputs.spec.target_ref {
        Some(_) => json!({ (rowlock_crds::labels::TASK_QUEUE): name }),
        None => build::selector(name),
    };
    let labels = labels.as_object().into_iter().flatten();
    let labels: Vec<String> =
        labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
    labels.join(",")
}

/// The API keeps whole seconds.
fn whole_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

#[cfg(test)]
mod tests;
